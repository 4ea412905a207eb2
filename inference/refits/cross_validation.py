"""K-fold cross-validation: the log-likelihood of samples that the estimate has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from emjax.em import EM, bound_to
from emjax.program.handlers.units import Units
from emjax.refits.reweighted import Reweighted, check_no_local_latents, checked_reweighted
from emjax.run import validation
from emjax.run.annotations import InitParams, Whole
from emjax.run.bound import checked_key
from emjax.run.compilation import CompiledFunction
from emjax.run.resolution import moves_of
from emjax.run.runner import one_blas_thread
from emjax.run.state import Status, has_failed


class CrossValidation(eqx.Module):
    """What estimates from the other folds say of each fold's samples.

    **Attributes:**

    - `pointwise`: log p(x_n | θ without n's fold) in nats, for each element n of the plate; NaN
      where the fold's EM failed.
    - `fold`: which fold each element is held out in.
    - `params`: the estimate without each fold, folds first.
    - `status`: why each fold's EM stopped, from the start that ended highest of those that did not
      fail.
    - `num_steps`: how many steps it took.
    - `plate`: the plate whose elements are the samples.
    """

    pointwise: Float[Array, "element"]
    fold: Int[np.ndarray, "element"]
    params: dict[str, Array]
    status: tuple[Status, ...] = eqx.field(static=True)
    num_steps: Int[np.ndarray, "fold"]
    plate: str = eqx.field(static=True)

    @property
    def log_likelihood(self) -> float:
        """Σ_n log p(x_n | θ without n's fold) in nats: what is compared, the higher the better."""
        return float(np.asarray(self.pointwise).sum())

    @property
    def mean(self) -> float:
        """The held-out log-likelihood of an element, on average, in nats."""
        return self.log_likelihood / len(self.pointwise)

    @property
    def standard_error(self) -> float:
        """√(n · variance over elements): the standard error of `log_likelihood` in nats.

        Source: Vehtari, Gelman & Gabry (2017), (23).
        """
        pointwise = np.asarray(self.pointwise)
        return float(np.sqrt(len(pointwise) * np.var(pointwise, ddof=1)))

    @property
    def has_failed(self) -> bool:
        """Whether the EM of a fold failed, so that there is no sum over the folds."""
        return any(bool(has_failed(status)) for status in self.status)

    def __str__(self) -> str:
        n = len(self.pointwise)
        lines = [
            f"held-out log-likelihood {self.log_likelihood:.4f} ± {self.standard_error:.4f} nats "
            f"({n} elements of plate '{self.plate}', {len(self.status)} folds)",
            f"of an element           {self.mean:.4f} ± {self.standard_error / n:.4f} nats",
        ]
        for i, (status, steps) in enumerate(zip(self.status, self.num_steps, strict=True)):
            # of folds that converged there is nothing to say
            if status != Status.CONVERGED:
                lines.append(f"fold {i}: {status.message} (after {steps} steps)")
        return "\n".join(lines)


def cross_validate(
    em: EM,
    rng_key: Any,
    *args: Any,
    num_folds: Whole = 5,
    plate: str | None = None,
    rows: Mapping[str, Any] | None = None,
    init_params: InitParams = None,
    **kwargs: Any,
) -> CrossValidation:
    """Return the held-out log-likelihood of the samples.

    Each is taken under the estimate from the folds that the sample is not in. A fold is a choice of
    weights, 0 for what is held out and 1 for the others, so that all folds, and all restarts of
    each, are runs of one compiled function. Which element is in which fold is drawn with `rng_key`:
    the same for the same key and size, so that models can be compared element by element.

    `num_folds`: as many as there are elements is leave-one-out. `plate`: the plate whose elements
    are held out; default: the only outermost one. `rows`: {another plate: which element of `plate`
    each of its elements belongs to}, for long-form data: `plate="items", rows={"labels": item}`.
    `init_params`: as `EM.run` takes it.

    A start that the program computes from its data has seen the held-out elements, and parameters
    of single elements (one for each document) are not learned for those that are held out. An
    element of multiplicity s is held out with all its copies. Errors: `ValueError` for a plate that
    the program does not have, an impossible number of folds, elements that are not independent
    given the parameters, and continuous latents of single elements.
    """
    rng_key = checked_key(
        rng_key,
        "The second argument is a random key, the model's own arguments follow: "
        "emjax.cross_validate(em, jax.random.key(0), ...).",
    )
    bound = bound_to(em, args, kwargs)
    weighted = checked_reweighted(bound, plate, rows)
    units, compiled = weighted.units, weighted.compiled
    _check_folds(num_folds, units)
    check_no_local_latents(
        bound,
        units,
        "; that of a held-out element cannot be learned from the others. Cross-validate over a "
        "plate outside which it stands: cross_validate(..., plate=...).",
    )
    # what is no dictionary may have no truth value either
    some_params = {} if init_params is None else init_params
    some_params = validation.checked_params(compiled.graph, some_params, complete=False)
    fold, started, keys = _draws(units.size, int(num_folds), em.settings.num_restarts)(rng_key)
    fold = np.asarray(fold)
    given = compiled.given(some_params)
    with one_blas_thread():
        fits = [_best_fit(weighted, fold, number, keys, given) for number in range(num_folds)]
    status = tuple(Status(int(fit.status)) for fit in fits)
    if all(has_failed(end) for end in status):
        # raises where the start is to blame
        bound.run(started, init_params=init_params)
    pointwise = np.zeros(fold.shape, jnp.result_type(float))
    for number, fit in enumerate(fits):
        pointwise[fold == number] = _held_out(weighted, fold == number, fit)
    return CrossValidation(
        jnp.asarray(pointwise),
        fold,
        jax.tree.map(_stacked, *(fit.params for fit in fits)),
        status,
        np.asarray([fit.num_steps for fit in fits]),
        units.plate,
    )


def _stacked(*values: np.ndarray) -> Array:
    return jnp.asarray(np.stack(values))


@lru_cache(maxsize=64)
def _draws(size: int, num_folds: int, num_restarts: int) -> CompiledFunction:
    """Return the function of a random key that draws the fold of each of `size` elements.

    It also returns a key for what is started, and one for each start: (fold, start).
    """

    def draws(rng_key):
        # folds do not depend on how many starts there are, nor the other way around
        drawn, started = jax.random.split(rng_key)
        fold = jax.random.permutation(drawn, jnp.arange(size) % num_folds)
        return fold, started, jax.random.split(started, (num_folds, num_restarts))

    return CompiledFunction(draws, is_called_once=True)


class Fit(NamedTuple):
    """How EM ended.

    - `params`: the parameters.
    - `status`, `num_steps`: why it stopped, and after how many steps.
    - `height`: the objective there in nats; −∞ where EM failed.
    - `sharpness`: how sharp densities are there (`run.collapse`).
    """

    params: dict
    status: Any
    num_steps: Any
    height: Any
    sharpness: list


def _best_fit(weighted: Reweighted, fold: np.ndarray, number: int, keys, given) -> Fit:
    """Return the fit without a fold, of the start that ends highest of those that do not fail."""
    # not all together in one function: one run is small, and is compiled as quickly as `EM.run`
    fit = weighted.function("fit", _fit, is_called_once=False)
    compiled, fits, heights = weighted.compiled, [], []
    data = [_weights(fold, number), *weighted.data]
    moves = moves_of(data)
    for start in range(keys.shape[1]):
        found = jax.device_get(fit(fold, np.asarray(number), keys, np.asarray(start), given))
        # a component that collapses has an objective as high as one likes
        falls = partial(compiled.falls, found.params, data, moves)
        has_collapsed = bool(compiled.watch.collapsed(found.sharpness, falls))
        fits.append(found)
        heights.append(-np.inf if has_collapsed else found.height)
    return fits[int(np.argmax(heights))]


def _weights(fold, number):
    """Return the weights of the elements that are left without a fold."""
    # nothing is cut out: with weights of zero all folds have one shape, and one compilation
    return (fold != number).astype(jnp.result_type(float))


def _fit(weighted: Reweighted, fold, number, keys, start, given) -> Fit:
    """Return the fit without a fold from one start; pure."""
    compiled = weighted.compiled
    data = [_weights(fold, number), *weighted.data]
    _, end = compiled.pure.run(keys[number, start], data, given, start)
    at = end.at
    height = jnp.where(has_failed(at.status), -jnp.inf, at.objective[at.num_steps])
    return Fit(at.reported, at.status, at.num_steps, height, end.sharpness)


def _held_out(weighted: Reweighted, is_out: np.ndarray, fit: Fit) -> np.ndarray:
    """Return the log-likelihoods of the elements that a fit has not seen; NaN where it failed.

    Errors: `ValueError` where they are not independent given the parameters.
    """
    if has_failed(fit.status):
        return np.full(int(is_out.sum()), np.nan)
    contributions = weighted.contributions_at(fit.params, is_out)
    weighted.check_independent(contributions.nonlinearity)
    return np.asarray(contributions.log_likelihood)[is_out]


def _check_folds(num_folds: Any, units: Units) -> None:
    # True is a whole number to Python
    is_whole = isinstance(num_folds, int | np.integer) and not isinstance(num_folds, bool)
    if not is_whole or not 2 <= num_folds <= units.size:
        raise ValueError(
            f"num_folds must be a whole number from 2 to {units.size}, the number of elements of "
            f"plate '{units.plate}', not {num_folds!r}."
        )
