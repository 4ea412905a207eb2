"""How an estimator is fitted: a program, its arguments, and the runs of EM."""

from __future__ import annotations

import pickle
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags, check_random_state, check_scalar
from sklearn.utils.validation import validate_data

import emjax
from emjax.sklearn.precision import in_double
from emjax.sklearn.rows import checked_weights, is_pandas
from emjax.sklearn.sites import plate_of_samples

# keys are drawn as scikit-learn draws the seeds of its estimators
LARGEST_SEED = np.iinfo(np.int32).max
# attributes that hold arrays of JAX
OF_JAX = ("fit_", "_online")
Fitted = TypeVar("Fitted", bound="FittedByEM")


class Task(NamedTuple):
    """What is fitted: a program and its arguments, weights and labels among them.

    - `program`, `args`, `kwargs`: as `EM(program).run(key, *args, **kwargs)` takes them.
    - `X`: the samples; `weights`: (n_samples,), how many samples each counts as, or None; `labels`:
      (n_samples,), the value of each one's latent, −1 where it is unknown, or None.
    """

    program: Callable
    args: tuple
    kwargs: Mapping[str, Any]
    X: Any
    weights: np.ndarray | None
    labels: np.ndarray | None

    @property
    def num_samples(self) -> float:
        """How many samples there are, weights included."""
        return float(len(self.X) if self.weights is None else self.weights.sum())


class FittedByEM(BaseEstimator, ABC):
    """A program with a plate of samples, which `fit` fits by EM.

    All is computed in double precision, whatever JAX's own is. An estimator of a model says in its
    `__init__` what scikit-learn's conventions ask (`max_iter`, `tol`, `n_init`, `random_state`,
    `warm_start`, `verbose`), and overrides of the following what it needs:

    - `_program()`: the program; its first argument is X.
    - `_arguments()`: {name: value} of those of its other arguments that do not vary by sample.
    - `_named(X, data)`: {name: value} of all of its arguments but X. `data`: what was given so.
    - `_validated(X, reset)`: X checked, as the program takes it.
    - `_latent_name(X, kwargs)`: the discrete latent of a sample, for `labels`; None: it has none.
    - `_plate_name()`: the plate of samples; None: the only outermost one that holds data.
    - `_starts(task, rng)`: {parameter: value} for each run; {}: `EM`'s own start.
    - `_options()`: further settings of `EM`.
    - `_note(task)`: sets attributes of what is fitted.
    - `_keep(fit)`: sets attributes of what was learned.

    **Attributes:**

    - `fit_`: the emjax `Fit`, of which everything else can be asked: `emjax.summary(model.fit_)`,
      `model.fit_.diagnose()`. A pickled estimator leaves the data that it was fitted to behind.
    - `converged_`: whether the objective says so; else `fit_.status` has the reason.
    - `n_iter_`: how many EM steps the best run took, the one that found no more gain included.
    - `lower_bound_`: the objective per sample in nats, at the estimate.
    - `n_features_in_`, `feature_names_in_`: as everywhere in scikit-learn.
    """

    max_iter: int
    tol: float
    n_init: int
    random_state: Any
    warm_start: bool
    verbose: int
    fit_: emjax.Fit
    n_features_in_: int
    # whether NaN is a value that is missing, and what X is cast to
    allow_nan: bool = False
    _dtype: Any = np.float64

    # ── what an estimator of a model says ─────────────────────────────────────────────────────────

    @abstractmethod
    def _program(self) -> Callable: ...

    def _arguments(self) -> dict[str, Any]:
        return {}

    def _named(self, X: Any, data: Mapping[str, Any]) -> dict[str, Any]:
        return {**self._arguments(), **data}

    def _validated(self, X: Any, reset: bool) -> Any:
        return validate_data(
            self,
            X,
            reset=reset,
            dtype=self._dtype,
            ensure_all_finite="allow-nan" if self.allow_nan else True,
            ensure_min_samples=2 if reset else 1,
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.allow_nan
        return tags

    def _latent_name(self, X: Any, kwargs: Mapping[str, Any]) -> str | None:
        return None

    def _plate_name(self) -> str | None:
        return None

    def _starts(self, task: Task, rng: np.random.RandomState) -> list[dict[str, Any]]:
        return [{}]

    def _options(self) -> dict[str, Any]:
        return {}

    def _note(self, task: Task) -> None:
        """Set attributes of what is fitted: here there are none."""

    def _keep(self, fit: emjax.Fit) -> None:
        """Set attributes of what was learned: here there are none."""

    # ── fits ──────────────────────────────────────────────────────────────────────────────────────

    def fit(self: Fitted, X: Any, y: Any = None, sample_weight: Any = None, **data: Any) -> Fitted:
        """Fit the program to X by EM, and return the estimator.

        `y`: ignored, unless the estimator says otherwise. `sample_weight`: (n_samples,), how many
        samples each counts as: a weight of 2 is the row twice, of 0 no row. `data`: further
        arguments of the program. Warns with `ConvergenceWarning` where EM did not converge, for
        whatever reason. Errors: `ValueError` for data that scikit-learn or the program refuses.
        """
        self._check_numbers()
        given = X
        X = self._validated(X, reset=True)
        # the fit has the names of a data frame's columns
        frame = type(given)(X, given.index, given.columns) if is_pandas(given) else X
        with in_double():
            task = self._task(X, self._labels(X, y), sample_weight, data)
            rng = check_random_state(self.random_state)
            self.fit_ = self._best_of(task, rng, frame)
            self._conclude(task)
        return self

    def _check_numbers(self) -> None:
        check_scalar(self.max_iter, "max_iter", int | np.integer, min_val=0)
        check_scalar(self.n_init, "n_init", int | np.integer, min_val=1)
        check_scalar(self.tol, "tol", float | int | np.number, min_val=0)

    def _labels(self, X: Any, y: Any) -> np.ndarray | None:
        """Return the known values of latents, (n_samples,), or None: y is ignored."""
        return None

    def _task(self, X: Any, labels: Any, sample_weight: Any, data: Mapping[str, Any]) -> Task:
        program, kwargs = self._program(), self._named(X, data)
        args, weights = (X,), None
        if labels is not None:
            program = emjax.labeled(program, self._latent_name(X, kwargs))
            args = (labels, *args)
        if sample_weight is not None:
            weights = checked_weights(sample_weight, X)
            program = emjax.weighted(program, self._plate(X, kwargs))
            args = (weights, *args)
        return Task(program, args, kwargs, X, weights, labels)

    def _plate(self, X: Any, kwargs: Mapping[str, Any]) -> str:
        """Return the plate of samples."""
        named = self._plate_name()
        if named is not None:
            return named
        return plate_of_samples(self._program(), (X,), kwargs)

    def _em(self, program: Callable, num_restarts: int = 1) -> emjax.EM:
        settings = {
            "max_steps": int(self.max_iter),
            "tol": float(self.tol),
            "num_restarts": num_restarts,
            "progress_bar": bool(self.verbose),
        }
        return emjax.EM(program, **{**settings, **self._options()})

    def _best_of(self, task: Task, rng: np.random.RandomState, frame: Any) -> emjax.Fit:
        """Return the best of the runs from all starts. `frame`: the samples, with names."""
        goes_on = self.warm_start and hasattr(self, "fit_")
        starts = [dict(self.fit_.params)] if goes_on else self._starts(task, rng)
        num_restarts = self.n_init if starts == [{}] else 1
        em = self._em(task.program, int(num_restarts))
        args = (*task.args[:-1], frame)
        best = None
        for start in starts:
            key = jax.random.key(rng.randint(LARGEST_SEED))
            found = em.run(key, *args, init_params=start or None, **task.kwargs)
            if best is None or _height(found) > _height(best):
                best = found
        assert best is not None
        return best

    def _conclude(self, task: Task) -> None:
        fit = self.fit_
        self._note(task)
        self.converged_ = fit.status == emjax.Status.CONVERGED
        # the step that gained nothing is one, too
        self.n_iter_ = max(fit.num_steps, 1)
        self.lower_bound_ = float(fit.objective[-1]) / task.num_samples
        self._keep(fit)
        if not self.converged_:
            words = "\n".join([fit.status.message, *fit.warnings])
            warnings.warn(f"{type(self).__name__}: {words}", ConvergenceWarning, stacklevel=3)

    # ── pickles ───────────────────────────────────────────────────────────────────────────────────

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: the fit without the data that it is of."""
        kept: Any = super().__getstate__()
        state = dict(kept)
        of_jax = {name: state.pop(name) for name in OF_JAX if name in state}
        if (fit := of_jax.get("fit_")) is not None:
            of_jax["fit_"] = emjax.Fit.of(fit.em, None, fit)
        # apart, since JAX's arrays are rounded where they are read back in single precision
        return {**state, "_of_jax": pickle.dumps(of_jax)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        rest = dict(state)
        with in_double():
            of_jax = pickle.loads(rest.pop("_of_jax"))
        super().__setstate__({**rest, **of_jax})


def _height(fit: emjax.Fit) -> float:
    """Return the objective that a run came to; −∞ where something is degenerate."""
    is_degenerate = any(finding.kind == "collapsed" for finding in fit.findings)
    is_finite = fit.status != emjax.Status.NOT_FINITE
    return float(fit.objective[-1]) if is_finite and not is_degenerate else -np.inf
