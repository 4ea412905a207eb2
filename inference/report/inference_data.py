"""Results for ArviZ: estimates, posteriors of latents, data and log-likelihoods, in arrays with
named dimensions.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import handlers

from emjax.em import EM, EMResult
from emjax.graph.factor_graph import FactorGraph
from emjax.program.handlers.plates import Plates
from emjax.refits.reweighted import plates_of, reweighted
from emjax.report.dimensions import parameter_dimensions
from emjax.report.summary_table import support_values
from emjax.run import validation
from emjax.run.annotations import Draws
from emjax.run.bound import Bound

DRAWS = ("chain", "draw")


def to_arviz(
    em: EM,
    result: EMResult,
    *args: Any,
    draws: Draws | None = None,
    plate: str | None = None,
    rows: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Return what EM found as ArviZ's `InferenceData` (from ArviZ 1.0 on, an xarray `DataTree`).

    - `posterior`: the parameters, (chain, draw, …): the estimate as the only draw, or the `draws`.
    - `latent_posterior`: p(latent | data, params) at the estimate, named `…_probability`: the
      latent's plates, then its values.
    - `log_likelihood`: log p(x_n | params) in nats of each element of `plate` (default: the only
      outermost one), under each draw: what `arviz.loo` reads. Without `plate`, it is left out where
      that is not defined: several outermost plates, elements that share latents.
    - `observed_data`: what was observed.
    - `sample_stats`: `lp`, the objective in nats at the estimate.

    Dimensions are named by the program's plates, by the latents whose values they list, `time`
    within a `scan`, and else `…_dim_0`, as ArviZ does.

    `args`, `kwargs`: the model's own. `draws`: {site: (draw, …)}, such as a bootstrap's estimates.
    `rows`: see `pointwise_log_likelihood`. Errors: `ImportError` without ArviZ; `ValueError` for a
    result of another program, or draws of other shapes.
    """
    arviz, xarray = _arviz()
    bound = em.on(*args, **kwargs)
    graph, plates = bound.compiled.graph, plates_of(bound)
    params = validation.checked_params(graph, result.params, complete=True)
    drawn = (
        {name: value[None] for name, value in params.items()}
        if draws is None
        else _checked_draws(graph, draws)
    )
    named = _Named(xarray, graph, plates)
    latent = {
        f"{name}_probability": (value, named.latent(name, value.ndim))
        for name, value in bound.posterior(params).items()
    }
    groups = {
        "posterior": named.dataset(
            {name: (value[None], (*DRAWS, *named.parameter(name))) for name, value in drawn.items()}
        ),
        "latent_posterior": named.dataset(latent),
        "log_likelihood": named.dataset(_log_likelihood(bound, drawn, plate, rows)),
        "observed_data": named.dataset(
            {
                name: (value, named.site(name, value.ndim, is_series))
                for name, (value, is_series) in _observed(bound, params).items()
            }
        ),
    }
    if draws is None and len(result.objective):
        groups["sample_stats"] = named.dataset({"lp": (result.objective[-1:][None], DRAWS)})
    groups["posterior"].attrs |= {
        "inference_library": "emjax",
        "inference_library_version": metadata.version("emjax"),
        "status": str(result.status),
        "num_steps": int(result.num_steps),
    }
    groups = {
        name: dataset
        for name, dataset in groups.items()
        if dataset.data_vars or name == "posterior"
    }
    if hasattr(arviz, "InferenceData"):
        return arviz.InferenceData(**groups, warn_on_custom_groups=False)
    return xarray.DataTree.from_dict(groups)


def _arviz():
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # ArviZ announces its next version whenever it is imported
            import arviz
            import xarray
    except ImportError as error:
        raise ImportError('emjax.to_arviz needs ArviZ: pip install "emjax[arviz]"') from error
    return arviz, xarray


class _Named:
    """Names the axes of a program's arrays, and makes data sets of them."""

    def __init__(self, xarray, graph: FactorGraph, plates: Plates):
        self.xarray, self.graph, self.plates = xarray, graph, plates
        self.parameters = parameter_dimensions(graph)

    def site(self, name: str, rank: int, is_series: bool) -> tuple[str | None, ...]:
        """Return the names of the axes of a sample site's value."""
        axes = self.plates.axes.get(name, {})
        names = [axes.get(d - rank) for d in range(rank)]
        return ("time", *names[1:]) if is_series and names and names[0] is None else tuple(names)

    def latent(self, name: str, rank: int) -> tuple[str | None, ...]:
        """Return the names of the axes of a latent's posterior."""
        latent = self.graph.latents[name]
        event = latent.support.ndim - 1
        return (*self.site(name, rank - 1 + event, latent.is_series)[: rank - 1], name)

    def parameter(self, name: str) -> tuple[str | None, ...]:
        """Return the names of a parameter's axes: latents, else plates."""
        own = self.parameters[name]
        plates = self.site(name, len(own), False)
        return tuple(
            source or (plate if plate not in own else None)
            for source, plate in zip(own, plates, strict=True)
        )

    def dataset(self, variables: Mapping[str, tuple[Any, tuple[str | None, ...]]]):
        """Return a data set of {name: (array, its dimensions)}; a dimension without a name, or of
        two sizes, is called `…_dim_0`.
        """
        sizes: dict[str, int] = {}
        arrays = {}
        for name, (array, dims) in variables.items():
            array, own = np.asarray(array), []
            rest = len(dims) - len([dim for dim in dims if dim in DRAWS])
            for d, (dim, size) in enumerate(zip(dims, array.shape, strict=True)):
                if dim is None or dim in own or dim in variables or sizes.get(dim, size) != size:
                    dim = f"{name}_dim_{d - (len(dims) - rest)}"
                sizes[dim] = size
                own.append(dim)
            arrays[name] = (own, array)
        return self.xarray.Dataset(
            arrays, {dim: self._values(dim, size) for dim, size in sizes.items()}
        )

    def _values(self, dim: str, size: int) -> np.ndarray:
        if dim in self.graph.latents or dim.removeprefix("next_") in self.graph.latents:
            values = support_values(self.graph, dim)
            return values if len(values) == size else np.arange(size)
        return np.arange(size)


def _checked_draws(graph: FactorGraph, draws) -> dict:
    if not isinstance(draws, Mapping) or set(draws) != set(graph.names):
        raise ValueError(
            f"draws must be {{site: array (draw, …)}} with exactly the program's parameters "
            f"{list(graph.names)}."
        )
    arrays = {name: jnp.asarray(value) for name, value in draws.items()}
    counts = {name: array.shape[:1] for name, array in arrays.items()}
    for name, array in arrays.items():
        if (
            array.shape[1:] != graph.parameters[name].shape
            or len(set(counts.values())) > 1
            or not array.ndim
        ):
            raise ValueError(
                f"draws['{name}'] must have shape (draw, "
                f"{', '.join(map(str, graph.parameters[name].shape))}), with as many draws as the "
                "others, not "
                f"{array.shape}."
            )
    return arrays


def _log_likelihood(bound: Bound, drawn, plate, rows) -> dict:
    """Return the log-likelihood of each element of a plate under each draw, named after the only
    site observed in it.
    """
    try:
        whole = reweighted(bound, plate, rows)
        found, error = whole.function(
            "draws", lambda pure, drawn: jax.lax.map(pure.contributions, drawn)
        )(whole.data, drawn)
        whole.check_independent(jnp.max(error), rows)
    except ValueError:
        if plate is not None:
            raise
        return {}
    inside = {whole.plate.name, *(rows or {})}
    observed = {
        term.site.name
        for term in whole.compiled.graph.terms
        if term.site.is_observed and inside & set(term.site.plates)
    }
    name = next(iter(observed)) if len(observed) == 1 else "observed"
    return {name: (found[None], (*DRAWS, whole.plate.name))}


def _observed(bound: Bound, params) -> dict:
    """Return {site: (its observed value, whether it is in a `scan`)}."""
    with numpyro.validation_enabled(False):
        ran = handlers.trace(
            handlers.seed(
                handlers.substitute(bound.compiler.model, data=dict(params)), jax.random.key(0)
            )
        ).get_trace(*bound.args, **bound.kwargs)
    series = {name for name, site in ran.items() if site.get("_control_flow_done")}
    return {
        name: (site["value"], name in series)
        for name, site in ran.items()
        if site["type"] == "sample" and site["is_observed"]
    }
