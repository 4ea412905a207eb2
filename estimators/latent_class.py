"""Latent classes in place of StepMix's: answers to items, some of them missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float
from numpyro.distributions import constraints
from sklearn.utils import Tags, check_scalar

import emjax
from emjax.sklearn.annotations import Name, Named, Real, Switch, SwitchOrAuto, Whole
from emjax.sklearn.fits import Task
from emjax.sklearn.latents import OfDiscreteLatent


def program(
    answers: Float[jax.Array | np.ndarray, "subject item"],
    num_classes: int,
    num_answers: Sequence[int],
) -> None:
    """The model of `emjax.models.latent_class`, subjects × items; NaN is an answer not given.

    `num_answers`: of each item. Items of C answers share a parameter `probs_C` (class, item of
    them, answer) and a site `answers_C`, so that no answer that an item does not have is estimated.
    The start: the best of several short runs; with `init_params="program"`, equal `weights`, and
    rows of probabilities uniformly at random.
    """
    weights = numpyro.param(
        "weights", jnp.full(num_classes, 1 / num_classes), constraint=constraints.simplex
    )
    probs = {}
    for number, items in _items_by_answers(num_answers).items():
        probs[number] = _rows_of_probabilities(number, num_classes, len(items))
    with numpyro.plate("subjects", len(answers)):
        latent_class = numpyro.sample(
            "latent_class", dist.Categorical(weights), infer={"start": "short-runs"}
        )
        for number, items in _items_by_answers(num_answers).items():
            given = answers[:, np.array(items)]
            of_items = dist.Categorical(probs[number][latent_class]).mask(~jnp.isnan(given))
            codes = jnp.nan_to_num(given).astype(int)
            numpyro.sample(f"answers_{number}", of_items.to_event(1), obs=codes)


def _rows_of_probabilities(num_answers: int, num_classes: int, num_items: int) -> Any:
    """Declare p of items that have as many answers: (class, item, answer)."""
    return numpyro.param(
        f"probs_{num_answers}",
        lambda key: jax.random.dirichlet(key, jnp.ones(num_answers), (num_classes, num_items)),
        constraint=constraints.simplex,
    )


def _items_by_answers(num_answers: Sequence[int]) -> dict[int, list[int]]:
    """Return {number of answers: the items that have as many}, ascending."""
    found = {}
    for number in sorted(set(num_answers)):
        found[number] = [item for item, own in enumerate(num_answers) if own == number]
    return found


class LatentClass(OfDiscreteLatent):
    """Latent class analysis, in place of StepMix with measurement="categorical" or "binary".

    X has a row for each subject and a column for each item: answers 0, 1, 2, …, and NaN where one
    was not given (full-information maximum likelihood, StepMix's "categorical_nan").

    **Arguments:**

    - `n_components`: how many classes.
    - `rel_tol`: EM has converged when a step increases the log-likelihood by at most rel_tol · (1 +
      |log-likelihood|).
    - `max_iter`: the largest number of EM steps.
    - `n_init`: how many starts are tried; the best is kept.
    - `init_params`: None (the best of several short runs), a name of `EM(init=…)`, such as
      "responsibilities", which is StepMix's "random"; or {"weights": …, "probs": …}, of the shapes
      of the attributes.
    - `random_state`: seeds the starts, and `sample`.
    - `semi_supervised`: whether y holds classes that are known: see `fit`.
    - `warm_start`: whether `fit` goes on from the last fit's parameters.
    - `verbose`: whether to show the log-likelihood and the steps.

    **Attributes:**

    - `weights_`: (n_components,), the sizes of the classes.
    - `probs_`: (n_components, item, answer). An answer that an item does not have has probability
      0. StepMix's `pis` are `probs_.reshape(n_components, -1)`; of binary items, `probs_[..., 1]`.
    - `n_outcomes_`: (item,), how many answers each has: one more than the largest in X, 2 at least.
    - `converged_`, `n_iter_`; `lower_bound_`: the log-likelihood per subject in nats.
    - `fit_`: the emjax `Fit`: `emjax.classification(model.fit_)`, `emjax.summary(model.fit_)`.

    Source: Goodman (1974), "Exploratory latent structure analysis using both identifiable and
    unidentifiable models", Biometrika 61.

    ```python
    from emjax.sklearn import LatentClass

    X = np.random.default_rng(0).integers(0, 3, (100, 4)).astype(float)
    X[0, 1] = np.nan
    model = LatentClass(2, random_state=0).fit(X)
    model.predict_proba(X[:3])
    ```
    """

    allow_nan = True
    weights_: np.ndarray
    probs_: np.ndarray
    n_outcomes_: np.ndarray

    def __init__(
        self,
        n_components: Whole = 2,
        *,
        rel_tol: Real = 1e-9,
        max_iter: Whole = 1000,
        n_init: Whole = 1,
        init_params: Named | Name = None,
        random_state: Any = None,
        semi_supervised: SwitchOrAuto = "auto",
        warm_start: Switch = False,
        verbose: Whole = 0,
    ):
        self.n_components = n_components
        self.rel_tol = rel_tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.random_state = random_state
        self.semi_supervised = semi_supervised
        self.warm_start = warm_start
        self.verbose = verbose

    @property
    def tol(self) -> Real:
        """`rel_tol`, by emjax's name."""
        return self.rel_tol

    def _program(self) -> Callable:
        return program

    def _arguments(self) -> dict[str, Any]:
        outcomes = tuple(int(number) for number in self.n_outcomes_)
        return {"num_classes": self.n_components, "num_answers": outcomes}

    def _plate_name(self) -> str:
        return "subjects"

    def _latent_name(self, X: Any, kwargs: Any) -> str:
        return "latent_class"

    def _check_numbers(self) -> None:
        super()._check_numbers()
        check_scalar(self.n_components, "n_components", int | np.integer, min_val=1)

    def _options(self) -> dict[str, Any]:
        is_given = isinstance(self.init_params, dict)
        return {"init": None if is_given else self.init_params}

    def _starts(self, task: Task, rng: np.random.RandomState) -> list[dict[str, Any]]:
        if not isinstance(self.init_params, dict):
            return [{}]
        start = dict(self.init_params)
        if "probs" in start:
            probs = np.asarray(start.pop("probs"))
            for number, items in _items_by_answers(self._arguments()["num_answers"]).items():
                start[f"probs_{number}"] = probs[:, items, :number]
        return [start]

    def _validated(self, X: Any, reset: bool) -> Any:
        X = super()._validated(X, reset)
        observed = X[~np.isnan(X)]
        if (observed < 0).any():
            raise ValueError(f"Negative values in data passed to {type(self).__name__}.")
        if (observed != np.floor(observed)).any():
            raise ValueError("Answers are 0, 1, 2, …, and NaN where one was not given.")
        largest = np.nanmax(X, axis=0, initial=0).astype(int)
        if reset:
            self.n_outcomes_ = np.maximum(largest + 1, 2)
        elif (largest >= self.n_outcomes_).any():
            item = int((largest >= self.n_outcomes_).argmax())
            raise ValueError(
                f"Item {item} has the answer {largest[item]}, and had none above "
                f"{self.n_outcomes_[item] - 1} where the model was fitted."
            )
        return X

    def _keep(self, fit: emjax.Fit) -> None:
        self.weights_ = np.asarray(fit.params["weights"])
        shape = (self.n_components, len(self.n_outcomes_), self.n_outcomes_.max())
        self.probs_ = np.zeros(shape)
        for number, items in _items_by_answers(self._arguments()["num_answers"]).items():
            self.probs_[:, items, :number] = fit.params[f"probs_{number}"]

    @property
    def _n_features_out(self) -> int:
        return self.n_components

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Return answers of new subjects, (n_samples, item), and their classes, (n_samples,)."""
        found, classes = super().sample(n_samples)
        X = np.empty((n_samples, self.n_features_in_))
        by_answers = _items_by_answers(self._arguments()["num_answers"])
        for number, items in by_answers.items():
            X[:, items] = found if len(by_answers) == 1 else found[f"answers_{number}"]
        return X, classes

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.categorical = True
        return tags
