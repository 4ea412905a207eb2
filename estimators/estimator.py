"""Any program with a plate of samples as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

import emjax
from emjax.sklearn.annotations import (
    Name,
    Named,
    Program,
    Real,
    Switch,
    SwitchOrAuto,
    Whole,
)
from emjax.sklearn.batches import FitsInBatches
from emjax.sklearn.fits import Task
from emjax.sklearn.latents import OfDiscreteLatent
from emjax.sklearn.precision import in_double
from emjax.sklearn.sites import Statement, latents_in

# how scikit-learn writes the parameter of a part
OF_ARGUMENTS = "arguments__"
Fitted = TypeVar("Fitted", bound="EMEstimator")


class EMEstimator(FitsInBatches, OfDiscreteLatent):
    """Any program with a plate of samples behind scikit-learn's interface.

    **Arguments:**

    - `program`: the NumPyro program. Its first argument is X, (n_samples, n_features); others are
      passed by keyword: those of `arguments`, and those that vary by sample (groups, covariates
      that are no part of X) to `fit`, `predict` and all else that takes X.
    - `arguments`: {name: value} of the program's other arguments, such as the number of components.
      Each is a parameter of the estimator, `arguments__name`, for `set_params` and grid searches.
    - `latent`: the latent of a sample that `predict`, `predict_proba` and `transform` are of. None:
      the only one in the plate of samples.
    - `plate`: the plate of samples. None: the only outermost one that holds data.
    - `init_params`: where EM starts: None (as the program states), a name or strategy of
      `EM(init=…)`, or {parameter: value}.
    - `n_init`: how many starts are tried; the best is kept (`EM(num_restarts=…)`).
    - `max_iter`: the largest number of EM steps.
    - `tol`: EM has converged when a step increases the objective by at most tol · (1 +
      |objective|). scikit-learn's mixtures compare the mean log-likelihood of a sample with theirs.
    - `options`: {name: value} of further settings of `EM`, such as {"integrate": {"factor"}} or
      {"acceleration": "anderson"}.
    - `allow_nan`: whether values of X may be NaN. The program then says what that means, by
      `PartiallyObserved` or a mask.
    - `semi_supervised`: whether y holds labels: see `fit`.
    - `random_state`: seeds the starts, and `sample`.
    - `warm_start`: whether `fit` goes on from the last fit's parameters.
    - `verbose`: whether to show the objective and the steps.

    **Attributes:**

    - `params_`: {parameter: its estimate}, NumPy arrays.
    - `fit_`: the emjax `Fit`, of which everything else can be asked: `emjax.summary(model.fit_)`,
      `model.fit_.diagnose()`. A pickled estimator leaves the data that it was fitted to behind.
    - `converged_`: whether the objective says so; else `fit_.status` has the reason.
    - `n_iter_`: how many EM steps the best run took.
    - `lower_bound_`: the objective per sample in nats, at the estimate.
    - `latent_`: the latent of a sample; None where the program has none, or several.
    - `n_features_in_`, `feature_names_in_`: of X.

    All is computed in double precision.

    ```python
    from functools import partial
    from emjax.models import gaussian_mixture
    from emjax.sklearn import EMEstimator

    X = np.random.default_rng(0).normal([[0, 0], [4, 4]], size=(40, 2, 2)).reshape(-1, 2)
    model = EMEstimator(gaussian_mixture.program, arguments={"num_components": 2}, random_state=0)
    model.fit(X).predict(X)
    ```
    """

    _dtype = "numeric"
    arguments: Mapping[str, Any] | None
    latent_: str | None
    params_: dict[str, np.ndarray]

    def __init__(
        self,
        program: Program,
        *,
        arguments: Named = None,
        latent: Name = None,
        plate: Name = None,
        init_params: Any = None,
        n_init: Whole = 1,
        max_iter: Whole = 1000,
        tol: Real = 1e-9,
        options: Named = None,
        allow_nan: Switch = False,
        semi_supervised: SwitchOrAuto = "auto",
        random_state: Any = None,
        warm_start: Switch = False,
        verbose: Whole = 0,
    ):
        self.program = program
        self.arguments = arguments
        self.latent = latent
        self.plate = plate
        self.init_params = init_params
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.options = options
        self.allow_nan = allow_nan
        self.semi_supervised = semi_supervised
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose

    # ── parameters ────────────────────────────────────────────────────────────────────────────────

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, {name: value}; `deep`: the program's arguments, too."""
        found = super().get_params(deep=deep)
        # whether they are what they should be is seen when something is fitted
        if deep and isinstance(self.arguments, Mapping):
            own = self.arguments.items()
            found |= {f"{OF_ARGUMENTS}{name}": value for name, value in own}
        return found

    def set_params(self: Fitted, **params: Any) -> Fitted:
        """Set parameters, those of the program's arguments (`arguments__name`) too."""
        of_estimator, of_program = {}, {}
        for name, value in params.items():
            if name.startswith(OF_ARGUMENTS):
                of_program[name.removeprefix(OF_ARGUMENTS)] = value
            else:
                of_estimator[name] = value
        super().set_params(**of_estimator)
        if of_program:
            self.arguments = {**self._arguments(), **of_program}
        return self

    # ── the program ───────────────────────────────────────────────────────────────────────────────

    def _program(self) -> Callable:
        return self.program

    def _arguments(self) -> dict[str, Any]:
        if self.arguments is not None and not isinstance(self.arguments, Mapping):
            raise ValueError(f"arguments must be {{name: value}}, not {self.arguments!r}.")
        return dict(self.arguments or {})

    def _plate_name(self) -> str | None:
        return self.plate

    def _options(self) -> dict[str, Any]:
        is_given = isinstance(self.init_params, Mapping)
        return {"init": None if is_given else self.init_params, **(self.options or {})}

    def _starts(self, task: Task, rng: np.random.RandomState) -> list[dict[str, Any]]:
        return [dict(self.init_params) if isinstance(self.init_params, Mapping) else {}]

    def _validated(self, X: Any, reset: bool) -> Any:
        X = super()._validated(X, reset)
        return X.astype(np.float64, copy=False) if X.dtype.kind == "f" else X

    # ── latents ───────────────────────────────────────────────────────────────────────────────────

    def _latent(self, X: Any, kwargs: Mapping[str, Any]) -> Statement | None:
        """Return the latent of a sample; None where the program has none, or several."""
        found = latents_in(self.program, (X,), kwargs, self._plate(X, kwargs))
        integrated = (self.options or {}).get("integrate", ())
        found = [s for s in found if s.num_values or s.name in integrated]
        if self.latent is not None:
            found = [s for s in found if s.name == self.latent]
            if not found:
                raise ValueError(
                    f"The program has no latent {self.latent!r} in the plate of samples."
                )
        return found[0] if len(found) == 1 else None

    def _latent_name(self, X: Any, kwargs: Mapping[str, Any]) -> str:
        latent = self._latent(X, kwargs)
        return self._one_latent(None if latent is None else latent.name)

    def _one_latent(self, name: str | None) -> str:
        if name is None:
            raise ValueError(
                "The program has no latent in the plate of samples, or several. Name the one that "
                "is meant, EMEstimator(program, latent=…); of all, model.fit_.posterior() says."
            )
        return name

    def _note(self, task: Task) -> None:
        latent = self._latent(task.X, task.kwargs)
        self.latent_ = None if latent is None else latent.name
        if latent is not None:
            self._first = latent.first
            # where other plates hold it, too
            self._axis = latent.axes[latent.plates.index(self._plate(task.X, task.kwargs))]
            of_each = int(np.prod(np.delete(latent.shape, self._axis)))
            self._num_outputs = of_each * (latent.num_values or 1)

    def _keep(self, fit: emjax.Fit) -> None:
        self.params_ = {name: np.asarray(value) for name, value in fit.params.items()}

    @property
    def _n_features_out(self) -> int:
        self._one_latent(self.latent_)
        return self._num_outputs

    def _responsibilities(self, posterior: Mapping[str, Any], num_samples: int) -> np.ndarray:
        found = posterior[self._one_latent(self.latent_)]
        if isinstance(found, Mapping):
            raise ValueError(
                f"Latent '{self.latent_}' is Gaussian: it has no most probable one of its values. "
                "Its mean is what `transform` returns."
            )
        return np.moveaxis(np.asarray(found), self._axis, 0)

    def predict(self, X: Any, **data: Any) -> np.ndarray:
        """Return the most probable value of each sample's latent: integers, (n_samples, …).

        They are values as the program has them, and as `y` has them. `data`: as in `fit`.
        """
        return super().predict(X, **data) + self._first

    def _drawn(self, latents: dict[str, np.ndarray]) -> Any:
        return latents if self.latent_ is None else latents[self.latent_]

    def transform(self, X: Any, **data: Any) -> Any:
        """Return what is known of each sample's latent: (n_samples, n_values or n_coordinates).

        Of a discrete latent it is p(value | sample), of a Gaussian one its mean given the sample.
        """
        fit, X, kwargs = self._asked(X, data)
        with in_double():
            found = fit.posterior(X, **kwargs)[self._one_latent(self.latent_)]
        mean = found["mean"] if isinstance(found, Mapping) else found
        return np.moveaxis(np.asarray(mean), self._axis, 0).reshape(len(X), -1)
