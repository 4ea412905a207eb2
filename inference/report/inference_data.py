"""Results for ArviZ, in arrays with named dimensions.

They are estimates, posteriors of latents, data and log-likelihoods.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import handlers

from emjax.answers.reweighted import (
    Contributions,
    Reweighted,
    checked_reweighted,
    plates_of,
    sites_within,
)
from emjax.em import EM, asked_of
from emjax.fit import Fit, of_a_fit
from emjax.graph.factor_graph import FactorGraph
from emjax.naming.axes import Axis, program_axes, support_values
from emjax.program.statements import has_run
from emjax.run.annotations import Draws, ResultOrNone
from emjax.run.bound import Bound
from emjax.run.result import check_is_result

# the axes that ArviZ expects before those of a value, whether there are several chains or not
DRAWS = ("chain", "draw")
OF_DRAWS = tuple(Axis(name, ()) for name in DRAWS)


@of_a_fit
def to_arviz(
    em: EM | Fit,
    result: ResultOrNone = None,
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

    Dimensions are named by the program's plates, by the latents whose values they list, the columns
    of a data frame, `time` within a `scan`, and else `…_dim_0`, as ArviZ does.

    `args`, `kwargs`: the model's own. `draws`: {site: (draw, …)}, such as a bootstrap's estimates.
    `rows`: see `pointwise_log_likelihood`. Errors: `ImportError` without ArviZ; `ValueError` for a
    result of another program, or draws of other shapes.
    """
    arviz, xarray = _arviz()
    check_is_result(result)
    bound = asked_of(em, result, args, kwargs)
    params = bound.checked(result)
    drawn = {name: value[None] for name, value in params.items()}
    if draws is not None:
        drawn = _checked_draws(bound.compiled.graph, draws)
    named = _Named(xarray, bound)
    groups = {
        "posterior": named.draws(drawn),
        "latent_posterior": named.latents(_of_latents(bound, params)),
        "log_likelihood": named.likelihoods(_log_likelihood(bound, drawn, plate, rows)),
        "observed_data": named.observed(_observed(bound, params)),
    }
    # of draws from elsewhere, the objective is not known
    if draws is None and len(result.objective):
        lp = result.objective[-1:][None]
        groups["sample_stats"] = named.dataset({"lp": (lp, OF_DRAWS)})
    groups["posterior"].attrs |= {
        "inference_library": "emjax",
        "inference_library_version": metadata.version("emjax"),
        "status": str(result.status),
        "num_steps": int(result.num_steps),
    }
    return _inference_data(arviz, xarray, groups)


def _of_latents(bound: Bound, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the posteriors of latents, without the means of what no observation depends on."""
    latents = bound.compiled.graph.latents
    answers = bound.posterior(params)
    return {name: value for name, value in answers.items() if name in latents}


def _inference_data(arviz: Any, xarray: Any, groups: Mapping[str, Any]) -> Any:
    """Return data sets as one object of ArviZ's, those without variables left out."""
    filled = {}
    for name, dataset in groups.items():
        # it says why EM stopped, though the program has no parameters
        if name == "posterior" or dataset.data_vars:
            filled[name] = dataset
    # ArviZ 1.0 has no class of its own for this
    if hasattr(arviz, "InferenceData"):
        return arviz.InferenceData(**filled, warn_on_custom_groups=False)
    return xarray.DataTree.from_dict(filled)


def _arviz():
    try:
        with warnings.catch_warnings():
            # ArviZ announces its next version whenever it is imported
            warnings.simplefilter("ignore", FutureWarning)
            import arviz
            import xarray
    except ImportError as error:
        raise ImportError('emjax.to_arviz needs ArviZ: pip install "emjax[arviz]"') from error
    return arviz, xarray


class _Named:
    """Names the axes of a program's arrays, and makes data sets of them."""

    def __init__(self, xarray, bound: Bound):
        self.xarray, self.graph = xarray, bound.compiled.graph
        self.plates, self.axes = plates_of(bound), program_axes(bound)

    # ── data sets ─────────────────────────────────────────────────────────────────────────────────

    def draws(self, drawn: Mapping[str, Any]) -> Any:
        """Return draws of the parameters, {name: (draw, …)}, as those of one chain."""
        variables = {}
        for name, value in drawn.items():
            variables[name] = value[None], (*OF_DRAWS, *self.axes.of_parameters[name])
        return self.dataset(variables)

    def latents(self, posteriors: Mapping[str, Any]) -> Any:
        """Return the posteriors of latents."""
        variables = {}
        for name, value in posteriors.items():
            variables[f"{name}_probability"] = value, self._of_latent(name)
        return self.dataset(variables)

    def observed(self, values: Mapping[str, tuple[Any, bool]]) -> Any:
        """Return what was observed, {site: (its value, whether it is in a `scan`)}."""
        variables = {}
        for name, (value, is_series) in values.items():
            variables[name] = value, self._of_site(name, value.ndim, is_series)
        return self.dataset(variables)

    def likelihoods(self, values: Mapping[str, tuple[Any, str]]) -> Any:
        """Return log-likelihoods under draws, {site: (chain, draw, element; its plate)}."""
        variables = {}
        for name, (value, plate) in values.items():
            variables[name] = value, (*OF_DRAWS, Axis(plate, ()))
        return self.dataset(variables)

    def dataset(self, variables: Mapping[str, tuple[Any, Sequence[Axis]]]) -> Any:
        """Return a data set of {name: (array, its axes)}.

        A dimension without a name, or of which there are two that differ, is called `…_dim_0`.
        """
        labels: dict[str, tuple[Any, ...]] = {}
        arrays = {}
        for name, (value, axes) in variables.items():
            array, names = np.asarray(value), []
            # ArviZ counts the dimensions of the value alone, draws aside
            num_axes_of_draws = sum(axis.name in DRAWS for axis in axes)
            for d, (axis, size) in enumerate(zip(axes, array.shape, strict=True)):
                dim, own = axis.name, axis.labels
                if len(own) != size:
                    own = tuple(range(size))
                if not dim or dim in names or dim in variables or labels.get(dim, own) != own:
                    dim = f"{name}_dim_{d - num_axes_of_draws}"
                labels[dim] = own
                names.append(dim)
            arrays[name] = (names, array)
        coordinates = {}
        for dim, values in labels.items():
            # rows of a data frame may be called by several words
            are_plain = not any(isinstance(value, tuple) for value in values)
            coordinates[dim] = np.asarray(values if are_plain else list(map(str, values)))
        return self.xarray.Dataset(arrays, coordinates)

    # ── the names of axes ─────────────────────────────────────────────────────────────────────────

    def _of_site(self, name: str, rank: int, is_series: bool) -> tuple[Axis, ...]:
        """Return the axes of a sample site's value, of which plates name some."""
        axes = self.plates.axes.get(name, {})
        names = [axes.get(d - rank, "") for d in range(rank)]
        # within a `scan`, steps are stacked along the first axis
        if is_series and names and not names[0]:
            names[0] = "time"
        return tuple(Axis(each, ()) for each in names)

    def _of_latent(self, name: str) -> tuple[Axis, ...]:
        """Return the axes of a latent's posterior: those of its elements, then its values."""
        values = support_values(self.graph, name)
        return (*self.axes.of_elements(name), Axis(name, tuple(values.tolist())))


def _checked_draws(graph: FactorGraph, draws) -> dict:
    if not isinstance(draws, Mapping) or set(draws) != set(graph.names):
        raise ValueError(
            f"draws must be {{site: array (draw, …)}} with exactly the program's parameters "
            f"{list(graph.names)}."
        )
    arrays = {name: jnp.asarray(value) for name, value in draws.items()}
    are_as_many = len({array.shape[:1] for array in arrays.values()}) <= 1
    for name, array in arrays.items():
        shape = graph.parameters[name].shape
        if not are_as_many or not array.ndim or array.shape[1:] != shape:
            raise ValueError(
                f"draws['{name}'] must have shape (draw, {', '.join(map(str, shape))}), with as "
                f"many draws as the others, not {array.shape}."
            )
    return arrays


def _log_likelihood(bound: Bound, drawn, plate, rows) -> dict:
    """Return the log-likelihood of each element of a plate under each draw.

    It is named after the only site observed in the plate.
    """
    try:
        weighted = checked_reweighted(bound, plate, rows)
        contributions = jax.device_get(weighted.function("draws", _contributions)(drawn))
        weighted.check_independent(np.max(contributions.nonlinearity))
    except ValueError:
        # who names a plate is told why; without one, what has no such log-likelihood goes without
        if plate is not None:
            raise
        return {}
    units = weighted.units
    observed = {site.name for site in sites_within(bound, units) if site.is_observed}
    name = observed.pop() if len(observed) == 1 else "observed"
    return {name: (contributions.log_likelihood[None], units.plate)}


def _contributions(weighted: Reweighted, drawn: Mapping) -> Contributions:
    """Return what each element contributes under each draw, draws first."""
    return jax.lax.map(weighted.contributions, drawn)


def _observed(bound: Bound, params) -> dict:
    """Return {site: (its observed value, whether it is in a `scan`)}."""
    program = handlers.substitute(bound.compiler.model, data=dict(params))
    args, kwargs = bound.arguments
    # the data were checked when they were bound
    with numpyro.validation_enabled(False):
        seeded = handlers.seed(program, jax.random.key(0))
        sites = handlers.trace(seeded).get_trace(*args, **kwargs)
    observed = {}
    for name, site in sites.items():
        if site["type"] == "sample" and site["is_observed"]:
            observed[name] = site["value"], has_run(site)
    return observed
