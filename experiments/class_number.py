"""Are two classes enough? Which test keeps its level, and which finds the third?

Yes-no answers to six questions come from two classes, or from three; of each data set, programs of
two and of three classes are fitted, and three tests ask whether the third is needed: the parametric
bootstrap likelihood-ratio test (BLRT), the Vuong–Lo–Mendell–Rubin test (VLMR) and its adjusted
form. Of data of two classes p-values should be uniform. BIC says which it would take.
"""

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from scipy import stats

import emjax
from emjax import EM
from emjax.models import latent_class
from experiments import canvas, report

NUM_SUBJECTS = 200
LEVEL = 0.05
ADJUSTED = "VLMR, adjusted"
TESTS = ("BLRT", "VLMR", ADJUSTED)


@dataclass(frozen=True, eq=False)
class Truth:
    """Where answers come from: the shares of classes, and how probable each of them says yes."""

    name: str
    weights: np.ndarray
    probs: np.ndarray


# the third answers as the first to half of the questions, and as the second to the others
TWO = Truth("two classes", np.array([0.5, 0.5]), np.array([[0.8] * 6, [0.25] * 6]))
NEAR = Truth(
    "three, near",
    np.array([0.4, 0.35, 0.25]),
    np.array([[0.8] * 6, [0.25] * 6, [0.7] * 3 + [0.3] * 3]),
)
FAR = Truth(
    "three, far",
    np.array([0.4, 0.35, 0.25]),
    np.array([[0.85] * 6, [0.15] * 6, [0.9] * 3 + [0.1] * 3]),
)


class Tested(NamedTuple):
    """What the tests say of data sets of one truth.

    - `p_values`: (data set, test), NaN where a test has none.
    - `prefers_three`: whether BIC does.
    - `num_negative`: of all replicates, how many a poor optimum made negative.
    """

    p_values: np.ndarray
    prefers_three: np.ndarray
    num_negative: int


@cache
def em_of(num_classes: int) -> EM:
    """Return EM on so many classes, which compiles once."""
    return EM(partial(latent_class.program, num_classes=num_classes))


def answers(truth: Truth, rng: np.random.Generator) -> np.ndarray:
    """Return what subjects answer, (subject, item)."""
    classes = rng.choice(len(truth.weights), NUM_SUBJECTS, p=truth.weights)
    return (rng.random((NUM_SUBJECTS, 6)) < truth.probs[classes]).astype(int)


def tested(truth: Truth, num_data_sets: int, num_replicates: int) -> Tested:
    """Return what each test says of several data sets."""
    rng, p_values, prefers_three, num_negative = np.random.default_rng(0), [], [], 0
    for number in range(num_data_sets):
        data, key = answers(truth, rng), jax.random.key(number)
        two, three = (em_of(num_classes).run(key, data) for num_classes in (2, 3))
        of_bootstrap = emjax.bootstrap_likelihood_ratio(
            two, three, key, num_replicates=num_replicates
        )
        # between two numbers that a p-value of so many replicates can be, all are as probable
        jitter = rng.random() / (num_replicates + 1)
        p_values.append([of_bootstrap.p_value - jitter, *of_theory(two, three)])
        prefers_three.append(emjax.criteria(three).bic < emjax.criteria(two).bic)
        num_negative += of_bootstrap.num_negative
    return Tested(np.array(p_values), np.array(prefers_three), num_negative)


def of_theory(two: emjax.Fit, three: emjax.Fit) -> tuple[float, float]:
    """Return the p-values of VLMR, NaN where the data do not determine the third class."""
    try:
        found = emjax.vuong_lo_mendell_rubin(two, three)
    except ValueError:
        return np.nan, np.nan
    return found.p_value, found.adjusted_p_value


def rejected(of_truth: Tested) -> np.ndarray:
    """Return how often each test rejects two classes, of the data sets of which it has a p-value.

    BIC comes last.
    """
    has_p = ~np.isnan(of_truth.p_values)
    shares = (of_truth.p_values < LEVEL).sum(0) / has_p.sum(0)
    return np.append(shares, of_truth.prefers_three.mean())


def distances(of_truth: Tested) -> list[tuple[float, float, int]]:
    """Return of each test its Kolmogorov–Smirnov distance from uniform, its p-value, and how many
    data sets it has none of.
    """
    found = []
    for p_values in of_truth.p_values.T:
        known = p_values[~np.isnan(p_values)]
        distance = stats.kstest(known, "uniform")
        found.append((distance.statistic, distance.pvalue, len(p_values) - len(known)))
    return found


def run(output: Path, quick: bool) -> None:
    """Print the tables, draw the figures."""
    num_replicates = 19 if quick else 99
    sizes = {TWO: 3, FAR: 1} if quick else {TWO: 100, NEAR: 20, FAR: 20}
    found = {truth.name: tested(truth, size, num_replicates) for truth, size in sizes.items()}
    report.heading(f"{NUM_SUBJECTS} subjects, two classes against three")
    rows = []
    for truth, size in sizes.items():
        shares = rejected(found[truth.name])
        rows.append([truth.name, size, *(f"{share:.3f}" for share in shares)])
    report.table(
        ["truth", "data sets", *TESTS, "BIC"],
        rows,
        f"Share of data sets in which two classes are rejected at {LEVEL:.0%}, or BIC takes three:",
    )
    rows = []
    for test, (distance, p_value, num_without) in zip(
        TESTS, distances(found[TWO.name]), strict=True
    ):
        rows.append([test, f"{distance:.3f}", f"{p_value:.4f}", num_without])
    report.table(
        ["test", "distance", "p", "without a p-value"],
        rows,
        "Data of two classes: the Kolmogorov–Smirnov distance of p-values from uniform.",
    )
    replicates = sum(sizes.values()) * num_replicates
    negative = sum(of_truth.num_negative for of_truth in found.values())
    report.remark(f"Of {replicates} replicates, {negative} had a negative likelihood ratio.")
    draw_p_values(output / "p_values.png", found[TWO.name])
    draw_rejected(output / "rejected.png", found)


def draw_p_values(path: Path, of_two: Tested) -> None:
    """Draw how p-values of data of two classes are distributed."""
    found = dict(zip(TESTS, distances(of_two), strict=True))
    nearest = min(TESTS, key=lambda test: found[test][0])
    with canvas.figure(
        path,
        f"Where two classes are the truth, p-values of {nearest} are nearest to uniform",
        f"""The share of {len(of_two.p_values)} data sets whose p-value is at most so large, of the
        bootstrap likelihood-ratio test (BLRT) and the Vuong–Lo–Mendell–Rubin test (VLMR). Pale:
        uniform. D: the Kolmogorov–Smirnov distance from it.""",
        width=6,
        height=4.2,
    ) as drawing:
        axes = drawing.subplots()
        axes.plot([0, 1], [0, 1], color=canvas.PALE, linewidth=4)
        for number, (test, p_values) in enumerate(zip(TESTS, of_two.p_values.T, strict=True)):
            known = np.sort(p_values[~np.isnan(p_values)])
            at, share = [0, *known, 1], [0, *np.arange(1, len(known) + 1) / len(known), 1]
            # the adjusted test is nearly the other: dashed, both are seen
            style = {"linestyle": "--" if test == ADJUSTED else "-", "where": "post"}
            name = f"{test}, D = {found[test][0]:.2f}"
            axes.step(at, share, color=canvas.PALETTE[number], label=name, **style)
        axes.set(xlabel="p-value", ylabel="share of data sets", xlim=(0, 1), ylim=(0, 1.01))
        axes.legend(loc="lower right")


def draw_rejected(path: Path, found: dict[str, Tested]) -> None:
    """Draw how often each test rejects two classes, and BIC takes three, by the truth."""
    shares = {name: rejected(of_truth) for name, of_truth in found.items()}
    least = 100 * shares[FAR.name].min()
    with canvas.figure(
        path,
        f"A third class far from the others is found in {least:.0f}% of data sets"
        + " or more" * bool(least < 100),
        f"""How often each test rejects two classes at {LEVEL:.0%} (dotted), and BIC takes three,
        by what is the truth.""",
        width=7,
        height=0.7 + 1.0 * len(found),
    ) as drawing:
        panels = drawing.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0]
        names = (*TESTS, "BIC")
        for axes, (truth, of_truth) in zip(panels, shares.items(), strict=True):
            axes.barh(names, 100 * of_truth, color=canvas.PALETTE[: len(names)], height=0.7)
            for row, share in enumerate(of_truth):
                axes.text(100 * share + 1, row, f"{100 * share:.0f}%", va="center")
            axes.axvline(100 * LEVEL, color=canvas.GREY, linewidth=0.9, linestyle=":")
            axes.set(title=f"truth: {truth}", xlim=(0, 107), ylim=(len(names) - 0.4, -0.6))
            axes.tick_params(axis="y", length=0)
        panels[-1].set_xlabel("data sets, %")
