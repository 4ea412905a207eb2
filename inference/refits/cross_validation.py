"""K-fold cross-validation: the log-likelihood of samples that the estimate has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from emjax.em import EM
from emjax.numerics.guards import is_random_key
from emjax.refits.reweighted import Reweighted, reweighted
from emjax.run import validation
from emjax.run.annotations import Whole
from emjax.run.bound import one_blas_thread
from emjax.run.loop import Status, has_failed


class CrossValidation(eqx.Module):
    """What estimates from the other folds say of each fold's samples; NaN where the fold's EM
    failed.

    **Attributes:**

    - `pointwise`: log p(x_n | θ without n's fold) in nats, for each element n of the plate.
    - `fold`: which fold each element is held out in.
    - `params`: the estimate without each fold, folds first.
    - `status`, `num_steps`: of each fold's EM, from the start that ended highest of those that did
      not fail.
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
        return float(self.pointwise.sum())

    @property
    def mean(self) -> float:
        """The held-out log-likelihood of an element, on average, in nats."""
        return self.log_likelihood / len(self.pointwise)

    @property
    def standard_error(self) -> float:
        """√(n · variance over elements): the standard error of `log_likelihood` in nats. Source:
        Vehtari, Gelman & Gabry (2017), (23).
        """
        return float(jnp.sqrt(len(self.pointwise) * jnp.var(self.pointwise, ddof=1)))

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
        lines += [
            f"fold {i}: {status.message} (after {steps} steps)"
            for i, (status, steps) in enumerate(zip(self.status, self.num_steps, strict=True))
            if status != Status.CONVERGED
        ]
        return "\n".join(lines)


def cross_validate(
    em: EM,
    rng_key: Any,
    *args: Any,
    num_folds: Whole = 5,
    plate: str | None = None,
    rows: Mapping[str, Any] | None = None,
    init_params: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> CrossValidation:
    """Return the held-out log-likelihood of the samples, each under the estimate from the folds
    that it is not in.

    A fold is a choice of weights, 0 for what is held out and 1 for the others, so that all folds,
    and all restarts of each, are runs of one compiled function. Which element is in which fold is
    drawn with `rng_key`: the same for the same key and size, so that models can be compared element
    by element.

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
    if not is_random_key(rng_key):
        raise ValueError(
            "The second argument is a random key, the model's own arguments follow: "
            "emjax.cross_validate(em, jax.random.key(0), ...)."
        )
    whole = reweighted(em.on(*args, **kwargs), plate, rows)
    _check_folds(num_folds, whole)
    _check_local(whole, rows or {})
    given = whole.compiled.given(
        validation.checked_params(whole.compiled.graph, init_params or {}, complete=False)
    )
    drawn, started = jax.random.split(rng_key)
    fold = jax.random.permutation(drawn, jnp.arange(whole.plate.size) % num_folds)
    keys = jax.random.split(started, (num_folds, em.settings.num_restarts))
    with one_blas_thread():
        run = whole.function("folds", _all_folds)
        pointwise, (params, status, num_steps, error) = jax.block_until_ready(
            run(whole.data, fold, keys, given)
        )
    ends = tuple(Status(int(s)) for s in status)
    if all(has_failed(end) for end in ends):
        em.run(
            started, *args, init_params=init_params, **kwargs
        )  # raises where the start is to blame
    whole.check_independent(jnp.max(error), rows)
    return CrossValidation(
        pointwise, np.asarray(fold), params, ends, np.asarray(num_steps), whole.plate.name
    )


def _all_folds(whole: Reweighted, fold, keys, given):
    """Return each element's held-out log-likelihood, how each fold's EM ended, and by how much
    held-out elements are not independent.
    """

    def one_fold(pointwise, numbered):
        number, own = numbered
        is_out = fold == number
        params, status, num_steps = _best_fit(whole, (~is_out).astype(pointwise.dtype), own, given)
        found, error = whole.contributions(params, is_out)
        failed = has_failed(status)
        return jnp.where(is_out, jnp.where(failed, jnp.nan, found), pointwise), (
            params,
            status,
            num_steps,
            jnp.where(failed, 0, error),
        )

    return jax.lax.scan(
        one_fold, jnp.zeros(fold.shape, jnp.result_type(float)), (jnp.arange(len(keys)), keys)
    )


def _best_fit(whole: Reweighted, weights, keys, given):
    """Return the parameters, the status and the number of steps of the start whose objective ends
    highest, of those that neither fail nor collapse.
    """

    def fit(numbered):
        number, key = numbered
        _, end = whole.compiled.pure.run(key, [weights, *whole.data], given, number)
        at = end.at
        is_bad = has_failed(at.status) | whole.compiled.watch.is_collapsed(end.variances)
        height = jnp.where(is_bad, -jnp.inf, at.objective[at.num_steps])
        return at.reported, at.status, at.num_steps, height

    ends = jax.lax.map(fit, (jnp.arange(len(keys)), keys))
    best = jnp.argmax(ends[-1])
    return tuple(jax.tree.map(lambda leaf: leaf[best], ends[:3]))


def _check_folds(num_folds, whole: Reweighted) -> None:
    size = whole.plate.size
    if (
        not isinstance(num_folds, int | np.integer)
        or isinstance(num_folds, bool)
        or not 2 <= num_folds <= size
    ):
        raise ValueError(
            f"num_folds must be a whole number from 2 to {size}, the number of elements of plate "
            f"'{whole.plate.name}', not {num_folds!r}."
        )


def _check_local(whole: Reweighted, rows) -> None:
    """Raise `ValueError` for a continuous latent that each element has its own value of: no other
    element says anything of it.
    """
    inside = {whole.plate.name, *rows}
    for term in whole.compiled.graph.terms:
        if term.site.is_prior and inside & set(term.site.plates):
            raise ValueError(
                f"Continuous latent '{term.site.name}' has a value for each element of plate "
                f"'{whole.plate.name}'; that of a held-out element cannot "
                "be learned from the others. Cross-validate over a plate outside which it stands: "
                "cross_validate(..., plate=...)."
            )
