"""A fit that can be asked: what EM found, and the program and data that it belongs to."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import numpy as np
from jax.export import Exported
from jaxtyping import Array, Float

from emjax.answers.draws import sample_posterior
from emjax.answers.exported import exported
from emjax.answers.forward import sample
from emjax.answers.frames import posterior_frame
from emjax.answers.imputation import deterministic, impute
from emjax.answers.relabeled import relabeled
from emjax.answers.reweighted import pointwise
from emjax.answers.saved import content_of
from emjax.certificates.diagnosis import Diagnosis
from emjax.naming.data_labels import check_labels
from emjax.plan import Plan
from emjax.run.annotations import Path, Whole
from emjax.run.archive import FIT
from emjax.run.bound import Bound
from emjax.run.described import program_in_words
from emjax.run.result import EMResult
from emjax.run.streamed import PartByPart, Streamed

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")
# how the parameters of a function that takes an estimate are called
ESTIMATE = ("params", "result")


class Fit(EMResult):
    """What EM found, and what it belongs to: what `EM.run` returns.

    All that an `EM` can be asked at parameters, a fit is asked at its own, of the data that were
    fitted, `fit.posterior()`, or of others, `fit.posterior(other_data)`. Functions that take an EM,
    a result and data take a fit alone: `emjax.summary(fit)`.

    **Attributes:** those of `EMResult`, and

    - `em`: the `EM`.
    - `bound`: the program bound to the data that were fitted: arrays by reference, data frames as
      they were; None for a fit that was loaded without them.
    """

    em: Any = eqx.field(static=True, default=None)
    bound: Bound | Streamed | None = eqx.field(static=True, default=None)

    @classmethod
    def of(cls, em: Any, bound: Bound | Streamed | None, result: EMResult) -> Fit:
        """Return a result as a fit of an EM to data."""
        found = {field.name: getattr(result, field.name) for field in fields(EMResult)}
        return cls(**found, em=em, bound=bound)

    def on(self, *args: Any, **kwargs: Any) -> Any:
        """Return the program bound to data: those that were fitted, if none are given.

        Errors: `ValueError` for data frames whose columns, or categories, are not those that were
        fitted.
        """
        if args or kwargs:
            bound = self.em.on(*args, **kwargs)
            # chunks of a stream are arrays, without names
            if isinstance(self.bound, Bound) and isinstance(bound, Bound):
                check_labels(self.bound, bound)
            return bound
        if self.bound is None:
            raise ValueError(
                "This fit was loaded without its data. Pass them, the program's own arguments: "
                "fit.posterior(x). Or save them with it: fit.save(path, data=True)."
            )
        return self.em.on(*self.bound.args, **self.bound.kwargs)

    def _name(self) -> str:
        if self.bound is not None:
            return f"Fit{self.bound.in_words}"
        # of a fit that stands by itself, nothing is known
        return "Fit" if self.em is None else f"Fit({program_in_words(self.em.model)})"

    # ── what can be asked ─────────────────────────────────────────────────────────────────────────

    def posterior(self, *args: Any, **kwargs: Any) -> dict[str, Any] | PartByPart:
        """Return p(latent | data) for every latent: its shape, its support; see `EM.posterior`."""
        return self.on(*args, **kwargs).posterior(self)

    def posterior_frame(self, *args: Any, latent: str | None = None, **kwargs: Any) -> Any:
        """Return p(latent | data) as a pandas data frame: a row for each element.

        Rows are labeled as those of the data frame that was fitted, and there is a column for each
        value, for a Gaussian latent one for the mean and the standard deviation of each coordinate:
        `frame.join(fit.posterior_frame())`. `latent`: which one, if there are several.
        """
        return posterior_frame(self.on(*args, **kwargs), self, latent)

    def pairwise_posterior(self, *args: Any, **kwargs: Any) -> dict[str, Array]:
        """Return p(latent at t, latent at t + 1 | data); see `EM.pairwise_posterior`."""
        return self.on(*args, **kwargs).pairwise_posterior(self)

    def decode(self, *args: Any, **kwargs: Any) -> dict[str, Array] | PartByPart:
        """Return the most probable joint assignment of all latents, each of its site's shape."""
        return self.on(*args, **kwargs).decode(self)

    def sample_posterior(
        self, rng_key: Any, num_samples: Whole = 1, *args: Any, **kwargs: Any
    ) -> dict[str, Array]:
        """Return joint draws of all latents, (draw, *its shape); see `EM.sample_posterior`.

        Other data than those that were fitted follow `num_samples`.
        """
        return sample_posterior(self.on(*args, **kwargs), self, rng_key, num_samples)

    def sample(
        self, rng_key: Any, num_samples: Whole | None = None, *args: Any, **kwargs: Any
    ) -> dict[str, Array]:
        """Return new data from the program at the estimate: {site: value}, latents, too.

        Every site that is no parameter is drawn, observations included, in the shapes of the data
        that were fitted or of others; masks and weights take nothing away. What the program reads
        of these beside its observations (covariates, say) stays as it is. `num_samples`: one more
        axis in front; None: one draw, without it; other data follow it. Errors: `ValueError` for a
        `numpyro.factor`, which is no distribution to draw from.
        """
        return sample(self.on(*args, **kwargs), self, rng_key, num_samples)

    def impute(
        self,
        *args: Any,
        rng_key: Any = None,
        num_samples: int | None = None,
        **kwargs: Any,
    ) -> dict[str, Array]:
        """Return the data with what they lack filled in: {site: of the observation's shape}.

        Of each site that states what is missing: by `PartiallyObserved`, a mask, or an `obs_mask`.
        Entries that are observed are as they were. Those that are missing are, without `rng_key`,
        expectations given all data, latents summed out; of discrete sites with a finite support,
        the most probable value of each entry. With it, they are drawn jointly with the latents,
        given all data: (num_samples, …) for multiple imputation, or one draw where that is None.
        Errors: `ValueError` for a program that states nothing missing.
        """
        return impute(self.on(*args, **kwargs), self, rng_key, num_samples)

    def deterministic(self, *args: Any, **kwargs: Any) -> dict[str, Array]:
        """Return the value of each `numpyro.deterministic` site at the estimate, of its shape.

        Of one that reads latents it is the expectation given the data, exactly. Errors:
        `ValueError` or `MemoryError` for one that mixes so many latents that their joint table
        would not fit.
        """
        return deterministic(self.on(*args, **kwargs), self)

    def log_likelihood_of(
        self, *args: Any, **kwargs: Any
    ) -> Float[Array, ""] | Float[np.ndarray, ""]:
        """Return log p(data | params) in nats, of other data than `log_likelihood` is of."""
        return self.on(*args, **kwargs).log_likelihood(self)

    def pointwise_log_likelihood(
        self,
        *args: Any,
        plate: str | None = None,
        rows: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Float[Array, "element"]:
        """Return log p(x_n | params) of each element; see `emjax.pointwise_log_likelihood`."""
        bound = self.on(*args, **kwargs)
        return bound.in_its_precision(lambda bound: pointwise(bound, self, plate, rows))

    def relabel(
        self,
        order: str | Callable[..., Any] | Sequence[int] | np.ndarray,
        latent: str | None = None,
    ) -> Fit:
        """Return the fit with the values of a latent in another order; its data are the same.

        Value k is what value order[k] was, in all parameters and findings. `order`: "size" (the
        largest first), the name of a parameter (ascending, by its first coordinate first), a
        function of the parameters that returns a number for each value (ascending), or a
        permutation. `latent`: which one, if there are several. Errors: `ValueError` for a program
        that treats the values unequally, and for what is no order.
        """
        return relabeled(self.on(), self, order, latent)

    # ── what EM did ───────────────────────────────────────────────────────────────────────────────

    def plan(self, *args: Any, **kwargs: Any) -> Plan:
        """Return how each parameter is maximized, and why; see `EM.plan`."""
        bound = self.on(*args, **kwargs)
        return self.em.plan(*bound.args, **bound.kwargs)

    def diagnose(self, *args: Any, **kwargs: Any) -> Diagnosis:
        """Return certificates of what EM arrived at; see `EM.diagnose`."""
        bound = self.on(*args, **kwargs)
        return self.em.diagnose(self, *bound.args, **bound.kwargs)

    # ── what is kept of it ────────────────────────────────────────────────────────────────────────

    def save(self, path: Path, data: bool = False) -> None:
        """Save the fit to a file that `emjax.load(path, program)` opens.

        It is a zip of arrays (NumPy's `.npy`) and one JSON, without any code: safe to open, and
        readable to later versions. In it are the result, the settings, names, shapes and
        constraints by which the program is recognized, versions, and shapes of the data; with
        `data=True` also the data, if they are arrays, data frames, numbers and words.
        """
        if not isinstance(path, str | os.PathLike):
            raise ValueError(f"fit.save takes the file: fit.save('fit.emjax'), not {path!r}.")
        FIT.write(path, content_of(self.em.model, self.em.settings, self.bound, self, data))

    def export(
        self,
        question: str = "posterior",
        *args: Any,
        platforms: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Exported:
        """Return the posterior of rows as a `jax.export` artifact, which is served without emjax.

        `fit.export().serialize()` is bytes, `jax.export.deserialize(…).call(x)` the posterior of
        any number of rows x, {latent: as `posterior`}; for bytes JAX needs flatbuffers, which
        `pip install emjax[export]` brings. It takes those of the program's arguments that are
        arrays, as they are given to the program; parameters, and what else the program was given,
        are in it. Data are not checked.

        `question`: "posterior", "decode", or "log_likelihood" (of each row, in nats). `platforms`:
        where it is served, such as ("cpu", "cuda"); None: where it is made. `args`, `kwargs`: data
        of which nothing but shapes counts, those that were fitted if none are given. Errors:
        `ValueError` where rows are not independent given the parameters: a latent that they share,
        a chain that runs from one to the next (sequences that are rows are fine).
        """
        return exported(self.on(*args, **kwargs), self, question, platforms)


def of_a_fit(function: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
    """Return a function (em, …, *data) that also takes a fit in place of an EM.

    It then stands for its EM, for the estimate, if the function takes one, and for the data that
    were fitted, unless others follow.
    """
    parameters = inspect.signature(function).parameters
    leading, named = [], set()
    for name, parameter in parameters.items():
        if parameter.kind == inspect.Parameter.POSITIONAL_OR_KEYWORD:
            leading.append(name)
        elif parameter.kind == inspect.Parameter.KEYWORD_ONLY:
            named.add(name)

    @wraps(function)
    def of_either(*args: Any, **kwargs: Any) -> Any:
        if not args or not isinstance(args[0], Fit):
            return function(*args, **kwargs)
        fit, rest = args[0], list(args[1:])
        first = []
        for name in leading[1:]:
            if name in ESTIMATE:
                first.append(fit)
            elif name in kwargs:
                first.append(kwargs.pop(name))
            elif rest:
                first.append(rest.pop(0))
        options = {name: kwargs[name] for name in kwargs if name in named}
        data = {name: kwargs[name] for name in kwargs if name not in named}
        _check_options(function, named, data, fit)
        bound = fit.on(*rest, **data)
        of_em: Callable[..., Returned] = function
        return of_em(fit.em, *first, *bound.args, **bound.kwargs, **options)

    return of_either


def _check_options(function: Any, named: set[str], data: Mapping[str, Any], fit: Fit) -> None:
    """Raise `TypeError` for what is neither an option of a function nor the program's argument."""
    try:
        parameters = inspect.signature(fit.em.model).parameters
    # a program that does not say what it takes
    except (TypeError, ValueError):
        return
    if any(each.kind == inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        return
    for name in data:
        if name not in parameters:
            options = ", ".join(sorted(named)) or "none"
            raise TypeError(
                f"{function.__name__} has no option '{name}', and the program no such argument; "
                f"its options are {options}."
            )
