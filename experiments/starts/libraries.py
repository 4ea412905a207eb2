"""The libraries beside emjax, with the starts that they have: scikit-learn, StepMix, hmmlearn.

Their defaults, except that tolerances are so small and steps so many that the start alone matters:
scikit-learn's `tol=1e-3` a sample, hmmlearn's `tol=1e-2` and 10 steps stop far below the optimum.
Where no library in Python has the program, it is the start of the one that others use, and EM goes
on from there: majority votes (crowd-kit), random partitions (flexmix).
"""

import logging
import warnings
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

from experiments.benchmarks.data import majority_start
from experiments.starts.data_sets import DataSet
from experiments.starts.ends import MAX_STEPS, Fit

# what a table calls a library's default, and its other starts
LIBRARY, LIBRARY_TEN = "library", "library × 10"
LIBRARY_OTHERS = ("lib. k-means++", "lib. random")
OF_FAMILY = {
    "mixture": "scikit-learn",
    "classes": "StepMix",
    "votes": "crowd-kit's start",
    "lines": "flexmix's start",
    "normal chain": "hmmlearn",
    "Poisson chain": "hmmlearn",
}
MODULES = {"scikit-learn": "sklearn", "StepMix": "stepmix", "hmmlearn": "hmmlearn"}


def is_installed(data_set: DataSet) -> bool:
    """Return whether the library of a data set's family is there."""
    module = MODULES.get(OF_FAMILY[data_set.family])
    return module is None or find_spec(module) is not None


def fits_of(data_set: DataSet) -> dict[str, Fit]:
    """Return the fits of the library of a data set's family, by start; none if not installed."""
    return FITS[data_set.family](data_set) if is_installed(data_set) else {}


# ── scikit-learn ──────────────────────────────────────────────────────────────────────────────────

COVARIANCE_TYPES = {"full": "full", "tied": "tied", "diagonal": "diag", "spherical": "spherical"}


def of_mixture(data_set: DataSet) -> dict[str, Fit]:
    """Return the fits of `sklearn.mixture.GaussianMixture`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    (points,) = data_set.data

    def fit_from(**settings) -> Fit:
        def fit(seed: int) -> tuple[dict[str, np.ndarray], int]:
            mixture = GaussianMixture(
                data_set.num_values,
                covariance_type=COVARIANCE_TYPES[data_set.covariance],
                tol=1e-9,
                max_iter=MAX_STEPS,
                random_state=seed,
                **settings,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                mixture.fit(points)
            params = {"weights": mixture.weights_, "loc": mixture.means_}
            if data_set.covariance in ("full", "tied"):
                return params | {"covariance": mixture.covariances_}, mixture.n_iter_
            return params | {"scale": np.sqrt(mixture.covariances_)}, mixture.n_iter_

        return fit

    plus_plus, random_points = LIBRARY_OTHERS
    return {
        LIBRARY: fit_from(),
        LIBRARY_TEN: fit_from(n_init=10),
        plus_plus: fit_from(init_params="k-means++"),
        random_points: fit_from(init_params="random_from_data"),
    }


# ── StepMix ───────────────────────────────────────────────────────────────────────────────────────


def of_classes(data_set: DataSet) -> dict[str, Fit]:
    """Return the fits of `stepmix.StepMix`, whose tolerance is small as it is."""
    from stepmix import StepMix

    (answers,) = data_set.data

    def fit_from(**settings) -> Fit:
        def fit(seed: int) -> tuple[dict[str, np.ndarray], int]:
            model = StepMix(
                data_set.num_values,
                measurement="binary",
                max_iter=MAX_STEPS,
                random_state=seed,
                progress_bar=0,
                **settings,
            )
            model.fit(answers)
            probs = model.get_parameters()["measurement"]["pis"]
            return {"weights": model.weights_, "probs": probs}, model.n_iter_

        return fit

    return {LIBRARY: fit_from(), LIBRARY_TEN: fit_from(n_init=10)}


# ── hmmlearn ──────────────────────────────────────────────────────────────────────────────────────


def of_chain(data_set: DataSet) -> dict[str, Fit]:
    """Return the fits of `hmmlearn.hmm`, of one sequence."""
    from hmmlearn import hmm

    logging.getLogger("hmmlearn").setLevel(logging.ERROR)
    sequence = data_set.data[0][:, 0].reshape(len(data_set.data[0]), -1)
    is_poisson = data_set.family == "Poisson chain"
    kind = hmm.PoissonHMM if is_poisson else hmm.GaussianHMM

    def fit(seed: int) -> tuple[dict[str, np.ndarray], int]:
        model = kind(data_set.num_values, tol=1e-9, n_iter=MAX_STEPS, random_state=seed)
        model.fit(sequence)
        params = {"initial": model.startprob_, "transition": model.transmat_}
        num_steps = model.monitor_.iter
        if is_poisson:
            return params | {"rate": model.lambdas_[:, 0]}, num_steps
        spread = np.sqrt(model.covars_.diagonal(axis1=1, axis2=2))
        return params | {"loc": model.means_, "scale": spread}, num_steps

    return {LIBRARY: fit}


# ── starts of others ──────────────────────────────────────────────────────────────────────────────


def of_votes(data_set: DataSet) -> dict[str, Fit]:
    """Return the start that takes the majority's vote for the truth."""
    item, annotator, label = data_set.data
    sizes = data_set.program.keywords
    table = np.zeros((sizes["num_items"], sizes["num_classes"]))
    np.add.at(table, (item, label), 1.0)
    shares = table / table.sum(axis=1, keepdims=True)
    index = annotator * sizes["num_classes"] + label
    params = majority_start(shares, item, index, sizes["num_annotators"])
    return {LIBRARY: lambda seed: (params, 0)}


def of_lines(data_set: DataSet) -> dict[str, Fit]:
    """Return the start from a random partition: the least squares of each part."""
    x, y = data_set.data
    design = np.stack([np.ones_like(x), x], axis=1)

    def fit(seed: int) -> tuple[dict[str, np.ndarray], int]:
        part = np.random.default_rng(seed).integers(data_set.num_values, size=len(x))
        found = []
        for number in range(data_set.num_values):
            rows, values = design[part == number], y[part == number]
            line = np.linalg.lstsq(rows, values, rcond=None)[0]
            found.append((len(rows) / len(x), *line, (values - rows @ line).std()))
        columns = map(np.array, zip(*found, strict=True))
        return dict(zip(("weights", "intercept", "slope", "scale"), columns, strict=True)), 0

    return {LIBRARY: fit}


FITS: dict[str, Callable[[DataSet], dict[str, Fit]]] = {
    "mixture": of_mixture,
    "classes": of_classes,
    "votes": of_votes,
    "lines": of_lines,
    "normal chain": of_chain,
    "Poisson chain": of_chain,
}
