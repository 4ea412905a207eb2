"""How many things make a wine, if thirteen of its chemical features are measured?

178 wines of three cultivars. Factor analysis explains the correlations of the features by a few
hidden factors, and what is left of each by noise; nothing is told of the cultivars. Any rotation of
the factors fits as well, so varimax chooses one in which each feature has few. The number of
factors: by BIC, and by what is held out.

Data: Forina et al., UCI machine learning repository, with scikit-learn (`load_wine`). Rotation:
Kaiser (1958), Psychometrika 23.
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import jax
import numpy as np
from matplotlib.axes import Axes
from sklearn.datasets import load_wine

import emjax
from emjax import EM, compare_updates, cross_validate, plot
from emjax.models import factor_analysis
from experiments import canvas, report

NUM_FACTORS = 3  # of the fit that is drawn
FEATURES = (
    "alcohol", "malic acid", "ash", "alkalinity of ash", "magnesium", "phenols", "flavonoids",
    "other phenols", "proanthocyanins", "color", "hue", "OD280/OD315", "proline",
)  # fmt: skip
SCIKIT_LEARN = -2684.284457  # log-likelihood of its FactorAnalysis, 3 factors, to its end
NUDGES = {"phenols": 0.08, "flavonoids": -0.07}  # by how much a name is moved, up, off another
COLORS = (canvas.BLUE, canvas.ORANGE, canvas.VERMILLION)
CULTIVARS = ("first", "second", "third")


@dataclass(frozen=True)
class Fit:
    """Factor analysis of the wines, rotated by varimax.

    - `loadings`: (feature, factor), the factor that explains most first.
    - `noise`: the variance that is left of each feature, whose variance is 1.
    - `scores`: the mean of each wine's factors given its features, (wine, factor).
    - `log_likelihood`: in nats, over all wines.
    - `status`: why EM stopped, in words.
    - `found`: what EM found, not rotated.
    """

    loadings: np.ndarray
    noise: np.ndarray
    scores: np.ndarray
    log_likelihood: float
    status: str
    found: emjax.Fit

    @property
    def num_free(self) -> int:
        """The number of free parameters: a rotation of the factors changes nothing."""
        num_features, num_factors = self.loadings.shape
        return num_features * (num_factors + 2) - num_factors * (num_factors - 1) // 2

    @property
    def bic(self) -> float:
        """Schwarz's criterion: the lower, the better."""
        return -2 * self.log_likelihood + self.num_free * np.log(len(self.scores))


@cache
def wines() -> tuple[np.ndarray, np.ndarray]:
    """Return the features, each of mean 0 and variance 1, and the cultivar of each wine."""
    data = load_wine()
    return (data.data - data.data.mean(axis=0)) / data.data.std(axis=0), data.target


def factor_em() -> EM:
    """Return EM of factor analysis, to the seventh digit of the likelihood, from four starts."""
    program = factor_analysis.program
    # with five factors or more there are several optima
    return EM(
        program, integrate={"factor"}, tol=1e-9, stop="aitken", max_steps=2_000, num_restarts=4
    )


def fit(em: EM, num_factors: int) -> Fit:
    """Return where EM ends, rotated by varimax."""
    data, _ = wines()
    result = em.run(jax.random.key(0), data, num_factors)
    loadings = np.asarray(result.params["loadings"])
    scores = np.asarray(result.posterior()["factor"]["mean"])
    rotation = varimax(loadings)
    return Fit(
        loadings @ rotation,
        np.asarray(result.params["scale"]) ** 2,
        scores @ rotation,
        float(result.log_likelihood),
        report.outcome(result),
        result,
    )


def varimax(loadings: np.ndarray, num_rounds: int = 500) -> np.ndarray:
    """Return the rotation that makes the squares of each factor's loadings vary most.

    Factors come in the order of what they explain, each with the sign in which its largest loading
    is positive.
    """
    rotation = np.eye(loadings.shape[1])
    for _ in range(num_rounds):
        rotated = loadings @ rotation
        uneven = rotated**3 - rotated * (rotated**2).mean(axis=0)
        left, _, right = np.linalg.svd(loadings.T @ uneven)
        rotation = left @ right
    rotated = loadings @ rotation
    order = np.argsort(-(rotated**2).sum(axis=0))
    largest = np.abs(rotated).argmax(axis=0)
    signs = np.sign(rotated[largest, np.arange(len(largest))])
    return (rotation * signs)[:, order]


def held_out(em: EM, num_factors: int) -> float:
    """Return the log-likelihood of wines under the estimate from other folds, in nats."""
    data, _ = wines()
    return float(cross_validate(em, jax.random.key(1), data, num_factors).log_likelihood)


def run(output: Path, quick: bool) -> None:
    """Print the tables, draw the figures."""
    em = factor_em()
    nums = (1, NUM_FACTORS) if quick else range(1, 8)
    fits = {num_factors: fit(em, num_factors) for num_factors in nums}
    folds = {num_factors: held_out(em, num_factors) for num_factors in nums}
    print_numbers(fits, folds)
    chosen = fits[NUM_FACTORS]
    print_loadings(em, chosen)
    draw_biplot(output / "biplot.png", chosen)
    draw_loadings(output / "loadings.png", chosen)
    draw_numbers(output / "number_of_factors.png", fits, folds)
    report.heading("Generic EM against the update derived by hand (models/factor_analysis.py)")
    data, _ = wines()
    start = {
        "loc": data[0],
        "loadings": 0.5 * np.random.default_rng(0).normal(size=(len(FEATURES), NUM_FACTORS)),
        "scale": np.full(len(FEATURES), 0.7),
    }
    step = factor_analysis.hand_derived_step
    print(compare_updates(em, step, start, data, NUM_FACTORS))


def print_numbers(fits: dict[int, Fit], folds: dict[int, float]) -> None:
    """Print the likelihood, BIC and what is held out, for each number of factors."""
    report.heading("How many factors?")
    rows = []
    for num_factors, found in fits.items():
        least = found.noise.argmin()
        rows.append(
            [
                str(num_factors),
                f"{found.log_likelihood:.3f}",
                str(found.num_free),
                f"{found.bic:.1f}",
                f"{folds[num_factors]:.1f}",
                f"{found.noise[least]:.4f}",
                FEATURES[least],
                found.status,
            ]
        )
    report.table(
        ["factors", "log-likelihood", "free", "BIC", "held out", "least noise", "of", "EM"],
        rows,
        caption=f"""Log-likelihoods in nats, over {len(wines()[0])} wines. Free: parameters, less
            the rotations. Held out: under the estimate from the other four of five folds. The noise
            is a share of a feature's variance.""",
    )
    report.remark(f"""scikit-learn's FactorAnalysis ends at {SCIKIT_LEARN:.3f} with {NUM_FACTORS}
        factors. Where the least noise is nearly 0, a factor is that one feature, and EM goes
        there ever more slowly: a Heywood case.""")


def print_loadings(em: EM, found: Fit) -> None:
    """Print what EM plans, and the loadings."""
    report.heading(f"{NUM_FACTORS} factors, rotated by varimax")
    print(em.plan(wines()[0], NUM_FACTORS))
    print()
    rows = [
        [name, *(f"{value:.2f}" for value in loadings), f"{noise:.2f}"]
        for name, loadings, noise in zip(FEATURES, found.loadings, found.noise, strict=True)
    ]
    explained = (found.loadings**2).sum(axis=0) / len(FEATURES)
    rows.append(
        ["explained", *(f"{share:.0%}" for share in explained), f"{found.noise.mean():.2f}"]
    )
    columns = [f"factor {number + 1}" for number in range(NUM_FACTORS)]
    report.table(
        ["feature", *columns, "noise"],
        rows,
        caption="Correlations of features with factors; the share of all variance in the last row.",
    )


def draw_biplot(path: Path, found: Fit) -> None:
    """Draw the wines and the features on two factors."""
    with canvas.figure(
        path,
        "Two factors that nobody named tell three cultivars apart",
        f"""Factor analysis of 13 features of 178 wines, the first two of {NUM_FACTORS} factors,
        rotated by varimax. Dots are wines at the mean of their factors, colored by the cultivar,
        which EM was not told; arrows are the correlations of features with the factors, those that
        are strong.""",
        width=7.5,
        height=5.0,
    ) as figure:
        draw_wines(figure.subplots(), found)


def draw_loadings(path: Path, found: Fit) -> None:
    """Draw the loadings, features of one factor side by side."""
    of_factor, size = np.abs(found.loadings).argmax(axis=1), np.abs(found.loadings).max(axis=1)
    order = np.lexsort((-size, of_factor))
    names = [f"factor {number + 1}" for number in range(NUM_FACTORS)]
    sizes = [f"{sum(of_factor == number)} with {name}" for number, name in enumerate(names)]
    with canvas.figure(
        path,
        f"Features go {', '.join(sizes[:-1])} and {sizes[-1]}",
        """Correlations of 13 features of 178 wines with three factors, rotated by varimax. Features
        come by the factor with which they are correlated most.""",
        width=7.0,
        height=4.4,
    ) as figure:
        params = {**found.found.params, "loadings": found.loadings[order]}
        axes = plot.loadings(replace(found.found, params=params), ax=figure.subplots())
        axes.set_yticks(range(len(order)), [FEATURES[index] for index in order])
        axes.set_xticks(range(len(names)), names)
        axes.set_title("")


def draw_wines(axes: Axes, found: Fit) -> None:
    """Draw the scores on the first two factors, and the loadings as arrows from the middle."""
    _, cultivar = wines()
    for number, (name, color) in enumerate(zip(CULTIVARS, COLORS, strict=True)):
        own = found.scores[cultivar == number, :2]
        style = {"markersize": 5, "alpha": 0.7, "markeredgewidth": 0, "label": f"{name} cultivar"}
        axes.plot(*own.T, "o", color=color, **style)
    reach = 2.4  # how long an arrow of correlation 1 is
    for name, loadings in zip(FEATURES, reach * found.loadings[:, :2], strict=True):
        if np.hypot(*loadings) < 0.55 * reach:
            continue
        arrow = {"arrowstyle": "-|>", "color": canvas.INK, "linewidth": 1.0}
        axes.annotate("", loadings, (0, 0), arrowprops=arrow)
        side = "left" if loadings[0] >= 0 else "right"
        end = 1.06 * loadings + [0, NUDGES.get(name, 0.0)]
        canvas.label(
            axes, end[0], end[1], name, fontsize=7.5, weight="normal", ha=side, va="center"
        )
    axes.axhline(0, color=canvas.PALE, linewidth=0.8, zorder=0)
    axes.axvline(0, color=canvas.PALE, linewidth=0.8, zorder=0)
    axes.set(xlabel="factor 1", ylabel="factor 2", xlim=(-2.2, 3.3), aspect="equal")
    axes.legend(loc="upper right")


def draw_numbers(path: Path, fits: dict[int, Fit], folds: dict[int, float]) -> None:
    """Draw BIC and what is held out by the number of factors."""
    nums = list(fits)
    bic, out = [fits[num].bic for num in nums], [-2 * folds[num] for num in nums]
    best = nums[int(np.argmin(bic))], nums[int(np.argmin(out))]
    with canvas.figure(
        path,
        f"BIC takes {best[0]} factors, cross-validation {best[1]}",
        """Both in the unit of −2 log-likelihood: the lower, the better; the lowest is marked. BIC
        counts parameters; cross-validation predicts each of five folds from the others.""",
        width=6.5,
        height=3.4,
    ) as figure:
        axes = figure.subplots()
        curves = (bic, "BIC", canvas.BLUE), (out, "held out", canvas.VERMILLION)
        for heights, name, color in curves:
            axes.plot(nums, heights, "o-", color=color, markersize=4)
            lowest = int(np.argmin(heights))
            axes.plot(nums[lowest], heights[lowest], "o", color=color, markersize=9)
            canvas.label(axes, nums[-1] + 0.12, heights[-1], name, color, va="center")
        axes.set(xlabel="number of factors", ylabel="−2 log-likelihood, or BIC", xticks=nums)
        axes.set_xlim(nums[0] - 0.3, nums[-1] + 0.9)
        canvas.light_grid(axes)
