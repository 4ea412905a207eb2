"""The twelve data sets: which program, which data, and which optima count.

Data come with scikit-learn, lie in `experiments/data`, or are drawn from a seed.
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

from emjax.models import dawid_skene, gaussian_mixture, hidden_markov, latent_class
from experiments.hidden_markov import earthquakes
from experiments.starts.programs import lines

# Two limits below which an optimum of Gaussians is spurious, though its likelihood is finite: a
# component of a few points that happen to lie near a plane (McLachlan & Peel, 2000, section 3.10).
LEAST_POINTS = 2  # times as many as a component's spread needs not to be flat
LEAST_RATIO = 0.02  # of the narrowest extent of a component to the widest (Hathaway, 1985)


class DataSet(NamedTuple):
    """Data, and a program for them.

    - `name`: as the tables have it; `meaning`: what it is, in a line.
    - `program`: of the arrays of `data` alone.
    - `num_values`: of its latent.
    - `family`: "mixture", "classes", "votes", "lines", "normal chain" or "Poisson chain".
    - `covariance`: of a mixture, as `emjax.models.gaussian_mixture` calls it.
    """

    name: str
    meaning: str
    program: Callable
    data: tuple
    num_values: int
    family: str
    covariance: str = ""

    def is_regular(self, params: Mapping[str, Any]) -> bool:
        """Return whether no Gaussian of an estimate is spurious: too few points, or too flat."""
        extents = _extents(params)
        if extents is None:
            return True
        num_samples, num_needed = _num_samples(self), _num_needed(self, params)
        sizes = np.asarray(params.get("weights", 1.0)) * num_samples
        enough = sizes.min() >= LEAST_POINTS * num_needed
        return bool(enough and extents.min() >= LEAST_RATIO * extents.max())


def _extents(params: Mapping[str, Any]) -> np.ndarray | None:
    """Return the standard deviations of each component along its axes; None without any."""
    if "covariance" in params:
        return np.sqrt(np.maximum(np.linalg.eigvalsh(np.asarray(params["covariance"])), 0))
    return np.asarray(params["scale"]) if "scale" in params else None


def _num_samples(data_set: DataSet) -> int:
    """Return how many points there are."""
    values = data_set.data[0]
    return len(values) if data_set.family == "lines" else values.size // values.shape[-1]


def _num_needed(data_set: DataSet, params: Mapping[str, Any]) -> int:
    """Return how many points span the spread of a component; none where it is that of all."""
    if data_set.covariance == "tied":
        return 0
    return params["loc"].shape[-1] + 1 if data_set.covariance == "full" else 2


def standardized(points: np.ndarray) -> np.ndarray:
    """Return points of mean 0 and standard deviation 1 in each coordinate."""
    return (points - points.mean(axis=0)) / points.std(axis=0)


# ── data drawn from a seed ────────────────────────────────────────────────────────────────────────


def unequal_clouds() -> np.ndarray:
    """Return points of four clouds, of 300, 80, 25 and 15 points."""
    rng = np.random.default_rng(0)
    clouds = (
        (300, (0.0, 0.0), ((4.0, 0.0), (0.0, 0.6))),
        (80, (3.0, 3.0), ((0.6, 0.3), (0.3, 0.6))),
        (25, (-3.0, 2.5), ((0.25, 0.0), (0.0, 0.25))),
        (15, (0.0, -3.0), ((0.3, 0.0), (0.0, 0.1))),
    )
    drawn = [rng.multivariate_normal(center, cov, size) for size, center, cov in clouds]
    return np.concatenate(drawn)


def answers(
    num_people: int, num_items: int, num_classes: int, extreme: float, seed: int
) -> np.ndarray:
    """Return yes and no of people in classes, (person, item).

    A class says yes to an item with a probability uniform between `extreme` and 1 − `extreme`.
    """
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(num_classes, 5.0))
    probs = rng.uniform(extreme, 1 - extreme, (num_classes, num_items))
    classes = rng.choice(num_classes, num_people, p=shares)
    return (rng.random((num_people, num_items)) < probs[classes]).astype(int)


def votes(
    num_items: int, num_annotators: int, num_votes: int, num_classes: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows (item, annotator, label): each item has `num_votes` labels.

    An annotator's confusion matrix is a share of the identity, 0.1 to 0.7, and random rows.
    """
    rng = np.random.default_rng(seed)
    skill = rng.uniform(0.1, 0.7, num_annotators)[:, None, None]
    slips = rng.dirichlet(np.ones(num_classes), (num_annotators, num_classes))
    confusion = skill * np.eye(num_classes) + (1 - skill) * slips
    truth = rng.choice(num_classes, num_items, p=rng.dirichlet(np.full(num_classes, 3.0)))
    item = np.repeat(np.arange(num_items), num_votes)
    drawn = [rng.choice(num_annotators, num_votes, replace=False) for _ in range(num_items)]
    annotator = np.concatenate(drawn)
    probs = confusion[annotator, truth[item]]
    return item, annotator, np.array([rng.choice(num_classes, p=row) for row in probs])


def points_near_lines() -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of 150 points near three lines, or four of which two share little."""
    rng = np.random.default_rng(2)
    x = rng.uniform(-2, 2, 150)
    line = rng.choice(4, len(x), p=[0.4, 0.3, 0.2, 0.1])
    intercept, slope = np.array([0.0, 1.0, -1.0, 2.0]), np.array([1.0, -1.0, 0.3, 2.5])
    noise = np.array([0.3, 0.3, 0.5, 0.2])[line] * rng.normal(size=len(x))
    return x, intercept[line] + slope[line] * x + noise


def walk() -> np.ndarray:
    """Return 300 steps of a walk through four clouds in the plane, (time, 1, coordinate)."""
    rng = np.random.default_rng(3)
    transition = 0.85 * np.eye(4) + 0.15 * rng.dirichlet(np.ones(4), 4)
    state = np.zeros(300, int)
    for t in range(1, len(state)):
        state[t] = rng.choice(4, p=transition[state[t - 1]])
    centers, spreads = 1.5 * rng.normal(size=(4, 2)), rng.uniform(0.5, 1.5, (4, 2))
    return (centers[state] + spreads[state] * rng.normal(size=(len(state), 2)))[:, None, :]


# ── the table ─────────────────────────────────────────────────────────────────────────────────────


def mixture(
    name: str, meaning: str, points: np.ndarray, num_values: int, covariance: str
) -> DataSet:
    """Return points with a Gaussian mixture."""
    program = partial(gaussian_mixture.program, num_components=num_values, covariance=covariance)
    about = f"{meaning}: {len(points)} × {points.shape[1]}, {num_values} {covariance} Gaussians"
    return DataSet(name, about, program, (points,), num_values, "mixture", covariance)


def classes(name: str, meaning: str, table: np.ndarray, num_values: int) -> DataSet:
    """Return answers with latent classes."""
    program = partial(latent_class.program, num_classes=num_values)
    about = f"{meaning}: {len(table)} × {table.shape[1]}, {num_values} classes"
    return DataSet(name, about, program, (table,), num_values, "classes")


def of_mixtures() -> list[DataSet]:
    """Return the data sets of Gaussian mixtures."""
    digits = load_digits()
    return [
        mixture("iris, full", "Fisher's flowers", load_iris().data, 3, "full"),
        mixture("iris, tied", "Fisher's flowers", load_iris().data, 3, "tied"),
        mixture("wine", "chemistry of wines", standardized(load_wine().data), 3, "diagonal"),
        mixture("tumors", "cell nuclei", standardized(load_breast_cancer().data), 3, "diagonal"),
        mixture("digits 0–4", "images", digits.data[digits.target < 5], 5, "spherical"),
        mixture("unequal", "clouds of 300, 80, 25 and 15", unequal_clouds(), 4, "full"),
    ]


def of_labels() -> list[DataSet]:
    """Return the data sets whose observations are labels."""
    item, annotator, label = votes(300, 10, 5, 4, seed=5)
    sizes = {"num_items": 300, "num_annotators": 10, "num_classes": 4}
    program = partial(dawid_skene.program, **sizes)
    about = "1,500 labels of 300 items by 10 annotators, 4 classes"
    return [
        classes("answers", "classes much alike", answers(400, 8, 3, 0.25, seed=6), 3),
        classes("questions", "more of both", answers(1000, 20, 7, 0.1, seed=3), 7),
        DataSet("annotators", about, program, (item, annotator, label), 4, "votes"),
    ]


def of_others() -> list[DataSet]:
    """Return regressions and chains."""
    on_lines = partial(lines, num_lines=3)
    in_clouds = partial(hidden_markov.gaussian_program, num_states=4)
    in_years = partial(hidden_markov.poisson_program, num_states=4)
    steps = walk()
    return [
        DataSet("lines", "150 points, 3 lines", on_lines, points_near_lines(), 3, "lines"),
        DataSet(
            "walk",
            "300 steps in the plane, 4 states",
            in_clouds,
            (steps, np.array([len(steps)])),
            4,
            "normal chain",
        ),
        DataSet(
            "earthquakes",
            "107 yearly counts, 4 states",
            in_years,
            earthquakes.data(),
            4,
            "Poisson chain",
        ),
    ]


@cache
def data_sets() -> dict[str, DataSet]:
    """Return the twelve data sets by name."""
    return {found.name: found for found in (*of_mixtures(), *of_labels(), *of_others())}
