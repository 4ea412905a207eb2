"""What `experiments.benchmarks.face` compares: data, starts, and estimators of both libraries."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

MOST_STEPS = 5000
Arrays = dict[str, np.ndarray]


class Task(NamedTuple):
    """What is fitted.

    - `name`: of the class. `ours`, `theirs`: modules that have it.
    - `data`: rows, a start and lengths of sequences, of a number of rows.
    - `model`: a class, a start, a tolerance as the class takes it → an estimator.
    - `evaluated`: the library's estimator at the parameters that one of either has found.
    """

    name: str
    title: str
    theirs: str
    data: Callable[[int], tuple[np.ndarray, Arrays, list[int] | None]]
    model: Callable[[type, Arrays, float, bool], Any]
    evaluated: Callable[[type, Any], Any]


# ── data and starts ───────────────────────────────────────────────────────────────────────────────


def clouds(num_rows: int) -> tuple[np.ndarray, Arrays, None]:
    """Return points of three normals that overlap, and a start at three of them."""
    rng = np.random.default_rng(0)
    centers = np.array([[0.0, 0, 0, 0], [2, 2, 0, 0], [0, 2, 2, 1]])
    X = centers[rng.integers(0, 3, num_rows)] + rng.normal(size=(num_rows, 4))
    precisions = np.tile(np.linalg.inv(np.cov(X.T)), (3, 1, 1))
    return X, {"weights": np.full(3, 1 / 3), "means": X[:3], "precisions": precisions}, None


def states(num_rows: int) -> tuple[np.ndarray, list[int]]:
    """Return three states that last ten rows, and the lengths of sequences of 1,000 rows."""
    rng = np.random.default_rng(0)
    moves = np.where(rng.random(num_rows) < 0.1, rng.integers(1, 3, num_rows), 0)
    rest = num_rows % 1000
    return np.cumsum(moves) % 3, [1000] * (num_rows // 1000) + [rest] * (rest > 0)


def chain(**emissions: np.ndarray) -> Arrays:
    """Return a start of a chain."""
    return {"startprob_": np.full(3, 1 / 3), "transmat_": (np.eye(3) + 1 / 3) / 2, **emissions}


def series(num_rows: int) -> tuple[np.ndarray, Arrays, list[int]]:
    """Return points that states move."""
    state, lengths = states(num_rows)
    rng = np.random.default_rng(1)
    X = np.array([[-2.0, 0], [1, 1], [0, 3]])[state] + rng.normal(size=(num_rows, 2))
    means = np.array([[-1.0, 0], [1, 0], [0, 1]])
    return X, chain(means_=means, covars_=np.tile(X.var(axis=0), (3, 1))), lengths


def symbols(num_rows: int) -> tuple[np.ndarray, Arrays, list[int]]:
    """Return symbols that states emit."""
    state, lengths = states(num_rows)
    rng = np.random.default_rng(1)
    rows = rng.dirichlet(np.full(6, 0.5), 3).cumsum(axis=1)
    X = (rng.random((num_rows, 1)) > rows[state]).sum(axis=1).clip(0, 5)[:, None]
    return X, chain(emissionprob_=rng.dirichlet(np.ones(6), 3)), lengths


def features(num_rows: int) -> tuple[np.ndarray, Arrays, None]:
    """Return features that two factors share."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(num_rows, 2)) @ np.random.default_rng(1).normal(size=(2, 8))
    X += rng.normal(size=X.shape) * np.linspace(0.7, 1.5, 8)
    return X, {"noise": X.var(axis=0) / 2}, None


# ── estimators ────────────────────────────────────────────────────────────────────────────────────


def mixture(kind: type, start: Arrays, tol: float, is_ours: bool) -> Any:
    """Return a mixture of full normals at a start."""
    given = {f"{name}_init": value for name, value in start.items()}
    no_floor = {} if is_ours else {"reg_covar": 0.0}
    return kind(3, tol=tol, max_iter=MOST_STEPS, **given, **no_floor)


def gaussian_chain(kind: type, start: Arrays, tol: float, is_ours: bool) -> Any:
    """Return a chain of points at a start, without hmmlearn's prior and floor."""
    options: dict[str, Any] = {"n_iter": MOST_STEPS, "tol": tol, "init_params": ""}
    if not is_ours:
        options |= {"covars_prior": 0, "covars_weight": 0, "min_covar": 0}
        options["implementation"] = "scaling"
    return at(kind(3, **options), start)


def symbol_chain(kind: type, start: Arrays, tol: float, is_ours: bool) -> Any:
    """Return a chain of symbols at a start."""
    options = {} if is_ours else {"implementation": "scaling"}
    chain = kind(3, n_features=6, n_iter=MOST_STEPS, tol=tol, init_params="", **options)
    return at(chain, start)


def at(model: Any, attributes: Arrays) -> Any:
    """Return an estimator whose attributes have been set."""
    for name, value in attributes.items():
        setattr(model, name, value)
    return model


def factors(kind: type, start: Arrays, tol: float, is_ours: bool) -> Any:
    """Return a factor analysis whose noise starts as given."""
    options = {} if is_ours else {"svd_method": "lapack"}
    noise = start["noise"]
    return kind(2, noise_variance_init=noise, tol=tol, max_iter=MOST_STEPS, **options)


def copied(*names: str) -> Callable[[type, Any], Any]:
    """Return what makes a library's estimator with such attributes of another."""

    def evaluated(kind: type, fitted: Any) -> Any:
        return at(kind(fitted.n_components), {name: getattr(fitted, name) for name in names})

    return evaluated


def evaluated_chain(kind: type, fitted: Any) -> Any:
    """Return hmmlearn's chain of points at the parameters of another."""
    made = copied("startprob_", "transmat_", "means_")(kind, fitted)
    made.covars_ = np.diagonal(fitted.covars_, axis1=1, axis2=2)
    return made


CHAIN = ("startprob_", "transmat_", "emissionprob_")
MIXTURE = ("weights_", "means_", "covariances_", "precisions_cholesky_")
FACTORS = ("mean_", "components_", "noise_variance_")
TASKS = (
    Task("GaussianMixture", "`GaussianMixture`, 3 full, 4 features", "sklearn.mixture",
         clouds, mixture, copied(*MIXTURE)),
    Task("GaussianHMM", "`GaussianHMM`, 3 states, 2 features", "hmmlearn.hmm",
         series, gaussian_chain, evaluated_chain),
    Task("CategoricalHMM", "`CategoricalHMM`, 3 states, 6 symbols", "hmmlearn.hmm",
         symbols, symbol_chain, copied(*CHAIN)),
    Task("FactorAnalysis", "`FactorAnalysis`, 2 factors, 8 features", "sklearn.decomposition",
         features, factors, copied(*FACTORS)),
)  # fmt: skip
BY_NAME = {task.name: task for task in TASKS}
