"""How many labels does a digit take, if EM also reads the digits that have none?

1,797 handwritten digits (scikit-learn's), 500 of them held out. Of the others a few have labels. A
classifier learns from these alone, or, by EM, from all of them; with one style for each digit
(naive Bayes, a model that is wrong) and with four.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from sklearn.datasets import load_digits

from emjax import EM, compare_updates, labeled
from experiments import canvas, report, styles

NUM_DIGITS = 10
BRIGHTEST = 16
NUM_HELD_OUT = 500
NUMS_LABELS = (10, 20, 40, 80, 160, 320, 640)
NUMS_STYLES = (1, 4)
# how much a digit without a label counts
ALONE = "labels alone"
WEIGHTS = {ALONE: 0.0, "EM": 1.0, "EM, a tenth": 0.1}
COLORS = {"EM": canvas.BLUE, "EM, a tenth": canvas.VERMILLION}

# on held-out digits, (draw of labels,), by number of styles, number of labels, and method
Accuracies = dict[tuple[int, int, str], np.ndarray]


class Digits(NamedTuple):
    """Pictures (digit, pixel) of brightness 0 … 16, and what they show."""

    counts: jax.Array
    truth: np.ndarray


def split() -> tuple[Digits, Digits]:
    """Return the digits to learn from and those held out, shuffled."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    counts, truth = data.data.astype(int)[order], data.target[order]
    learned = Digits(jnp.asarray(counts[NUM_HELD_OUT:]), truth[NUM_HELD_OUT:])
    return learned, Digits(jnp.asarray(counts[:NUM_HELD_OUT]), truth[:NUM_HELD_OUT])


def some_labels(truth: np.ndarray, num_labels: int, seed: int) -> np.ndarray:
    """Return the labels of so many digits drawn at random, and −1 for the others.

    There are as many of each digit as can be.
    """
    order = np.random.default_rng(seed).permutation(len(truth))
    turn = np.zeros(len(truth), int)  # how many of the same digit come earlier
    for digit in range(NUM_DIGITS):
        turn[truth[order] == digit] = np.arange((truth == digit).sum())
    chosen = order[np.argsort(turn, kind="stable")[:num_labels]]
    labels = np.full(len(truth), -1)
    labels[chosen] = truth[chosen]
    return labels


def semi_supervised_em() -> EM:
    """Return EM on the program whose first argument are labels."""
    return EM(labeled(styles.program, "label"), tol=1e-6, max_steps=200)


def arguments(digits: Digits, labels: np.ndarray, weight: float, num_styles: int) -> tuple:
    """Return the program's arguments; digits without a label count `weight`."""
    weights = jnp.asarray(np.where(labels >= 0, 1.0, weight))
    return jnp.asarray(labels), digits.counts, weights, BRIGHTEST, NUM_DIGITS, num_styles


def accuracy(em: EM, params: dict, digits: Digits, num_styles: int) -> float:
    """Return the share of digits whose most probable class is right."""
    unlabeled = arguments(digits, np.full(len(digits.truth), -1), 1.0, num_styles)
    posterior = np.asarray(em.posterior(params, *unlabeled)["label"])
    return float((posterior.argmax(1) == digits.truth).mean())


def start(em: EM, digits: Digits, labels: np.ndarray, num_styles: int, seed: int) -> dict:
    """Return a start: what naive Bayes learns from the labels alone.

    Of several styles, each is a quarter of the way to pixels drawn at random.
    """
    key, num_pixels = jax.random.key(seed), digits.counts.shape[1]
    flat = styles.start(key, NUM_DIGITS, 1, num_pixels)
    bayes = em.run(key, *arguments(digits, labels, 0.0, 1), init_params=flat).params
    away = 0.25 if num_styles > 1 else 0.0
    drawn = jax.random.uniform(key, (NUM_DIGITS, num_styles, num_pixels))
    return {
        "prevalence": bayes["prevalence"],
        "styles": jnp.full((NUM_DIGITS, num_styles), 1 / num_styles),
        "probs": (1 - away) * bayes["probs"] + away * drawn,
    }


def fits(em: EM, digits: Digits, labels: np.ndarray, num_styles: int, seed: int) -> dict[str, dict]:
    """Return the parameters by method, from one start."""
    begin = start(em, digits, labels, num_styles, seed)
    params_of = {}
    for method, weight in WEIGHTS.items():
        data = arguments(digits, labels, weight, num_styles)
        params_of[method] = em.run(jax.random.key(0), *data, init_params=begin).params
    return params_of


def accuracies(
    em: EM,
    num_seeds: int,
    nums_labels: Sequence[int] = NUMS_LABELS,
    nums_styles: Sequence[int] = NUMS_STYLES,
) -> Accuracies:
    """Return the accuracy on held-out digits for each draw of labels, (seed,).

    Keys are the number of styles, the number of labels, and the method.
    """
    learned, held_out = split()
    values: dict[tuple[int, int, str], list[float]] = {}
    for num_styles in nums_styles:
        for num_labels in nums_labels:
            for seed in range(num_seeds):
                labels = some_labels(learned.truth, num_labels, seed)
                for method, params in fits(em, learned, labels, num_styles, seed).items():
                    of_draws = values.setdefault((num_styles, num_labels, method), [])
                    of_draws.append(accuracy(em, params, held_out, num_styles))
    return {key: np.array(of_draws) for key, of_draws in values.items()}


def run(output: Path, quick: bool) -> None:
    """Print the tables, draw the figure."""
    em = semi_supervised_em()
    num_seeds = 2 if quick else 10
    nums_labels = NUMS_LABELS[::6] if quick else NUMS_LABELS
    accuracy_of = accuracies(em, num_seeds, nums_labels)
    for num_styles in NUMS_STYLES:
        print_accuracies(accuracy_of, num_styles, nums_labels, num_seeds)
    draw(output / "accuracy.png", accuracy_of, nums_labels, num_seeds)
    report.heading("Generic EM against the update derived by hand (experiments/styles.py)")
    learned, _ = split()
    begin = styles.start(jax.random.key(0), NUM_DIGITS, 4, learned.counts.shape[1])
    data = arguments(learned, some_labels(learned.truth, 80, 0), 1.0, 4)
    print(compare_updates(em, styles.hand_derived_step, begin, *data, num_steps=20))


def print_accuracies(
    accuracy_of: Accuracies, num_styles: int, nums_labels: tuple, num_seeds: int
) -> None:
    """Print the mean accuracies of one model, and where the digits without a label help."""
    report.heading(f"{num_styles} style{'s' * (num_styles > 1)} for each digit")
    rows = []
    for num_labels in nums_labels:
        means = [accuracy_of[num_styles, num_labels, method].mean() for method in WEIGHTS]
        rows.append([num_labels, *(f"{100 * mean:.1f}%" for mean in means)])
    report.table(
        ["labels", *WEIGHTS],
        rows,
        caption=f"""Held-out digits put right, mean of {num_seeds} draws of labels. "EM" also learns
            from the digits without a label; in "EM, a tenth" each of these counts a tenth of a
            digit.""",
    )
    gains = [gain(accuracy_of, num_styles, num_labels) for num_labels in nums_labels]
    helps = [num for num, value in zip(nums_labels, gains, strict=True) if value > 0]
    hurts = [num for num, value in zip(nums_labels, gains, strict=True) if value < 0]
    report.remark(
        f"""EM on all digits beats labels alone with {listed(helps)} labels, and is beaten with
            {listed(hurts)}."""
    )


def gain(accuracy_of: Accuracies, num_styles: int, num_labels: int, method: str = "EM") -> float:
    """Return by how much the mean accuracy of a method exceeds that of labels alone."""
    alone = accuracy_of[num_styles, num_labels, ALONE]
    return accuracy_of[num_styles, num_labels, method].mean() - alone.mean()


def listed(numbers: list[int]) -> str:
    """Return the numbers in words."""
    return ", ".join(map(str, numbers)) or "no number of"


def draw(path: Path, accuracy_of: Accuracies, nums_labels: tuple, num_seeds: int) -> None:
    """Draw what digits without labels add: mean of draws of labels, and its standard error."""
    with canvas.figure(
        path,
        "Digits without labels help where labels are few",
        f"""By how much EM, which also learns from the digits without a label, puts more held-out
        digits right than the labels alone, against the number of digits with a label, of 1,297. In
        "EM, a tenth" one without a label counts a tenth. Lines: mean of {num_seeds} draws of
        labels; bars: its standard error, twice.""",
        height=3.4,
    ) as figure:
        panels = figure.subplots(1, len(NUMS_STYLES), sharey=True)
        for axes, num_styles in zip(panels, NUMS_STYLES, strict=True):
            draw_gains(axes, accuracy_of, num_styles, nums_labels)
        panels[0].set_ylabel("more put right than by labels alone, %")
        panels[-1].legend(loc="upper right")


def draw_gains(axes: Axes, accuracy_of: Accuracies, num_styles: int, nums_labels: tuple) -> None:
    """Draw the gain of each method over labels alone, on the same draws of labels."""
    for method, aside in (("EM", 0.97), ("EM, a tenth", 1.03)):
        gains = [
            100 * (accuracy_of[num_styles, num, method] - accuracy_of[num_styles, num, ALONE])
            for num in nums_labels
        ]
        values = np.array(gains)  # (number of labels, draw)
        mean, error = values.mean(1), values.std(1, ddof=1) / np.sqrt(values.shape[1])
        # side by side, so that neither's error hides the other's
        places = aside * np.array(nums_labels)
        style = {"color": COLORS[method], "markersize": 4, "elinewidth": 1}
        axes.errorbar(places, mean, 2 * error, fmt="o-", label=method, **style)
    axes.axhline(0, color=canvas.GREY, linewidth=0.8)
    several = f"{num_styles} styles for each digit"
    axes.set(xscale="log", xlabel="labels")
    axes.set_title("one style: naive Bayes" if num_styles == 1 else several)
    axes.set_xticks(nums_labels, [str(number) for number in nums_labels])
    axes.minorticks_off()
    canvas.light_grid(axes)
