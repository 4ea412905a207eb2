"""The figures: what each level weighs, how one pair gets its weight, what thresholds accept."""

from pathlib import Path

import numpy as np
from matplotlib.ticker import FuncFormatter

from emjax import Fit, plot
from emjax.models import record_linkage
from experiments import canvas
from experiments.linkage.fits import Patterns, accepted, expected_matches
from experiments.linkage.simulation import FIELDS, NUM_LEVELS, true_params

FOR, AGAINST = canvas.BLUE, canvas.VERMILLION
# the pair of the waterfall: the level of each field, −1 where it is missing
PAIR = {"forename": 2, "surname": 3, "birth": 3, "street": 0, "town": 1, "email": -1}
# JAX sorts the keys of the dictionary of levels, and so the program states its sites
SITES = sorted(FIELDS)


def draw_match_weights(file: Path, fit: Fit) -> None:
    """Draw the weight of each level as a bar, field by field, and the truth as a tick."""
    found, true = (record_linkage.match_weights(params) for params in (fit.params, true_params()))
    best = max(FIELDS, key=lambda name: found[name][-1])
    with canvas.figure(
        file,
        f"The same {best} says most for a match; no difference says as much against",
        """The match weight of each level of agreement, log₂ m / u: each bit doubles the odds of a
        match, or halves them. Bars: as EM estimates them, from comparisons without any label. Black
        ticks: the truth that the comparisons were drawn from.""",
        height=5.4,
    ) as figure:
        axes = plot.match_weights(fit, ax=figure.subplots())
        places, names = axes.get_yticks(), []
        for name in SITES:
            first, *others = FIELDS[name].levels[::-1]
            names += [f"{name}: {first}", *others]
        axes.set_yticks(places, names)
        truth = np.concatenate([true[name][::-1] for name in SITES])
        axes.vlines(truth, places - 0.39, places + 0.39, color=canvas.INK, linewidth=2)
        for number, weight in zip(axes.texts, truth, strict=True):
            # beyond the bar and the tick
            farther = max if number.get_horizontalalignment() == "left" else min
            number.set_x(farther(number.get_position()[0], weight))


def draw_waterfall(file: Path, fit: Fit) -> None:
    """Draw how the weight of one pair adds up, from the prior to the total."""
    pair = {name: np.array([level]) for name, level in PAIR.items()}
    of_pair = Fit.of(fit.em, fit.em.on(pair, NUM_LEVELS, np.ones(1)), fit)
    before = record_linkage.prior_weight(fit.params)
    total = record_linkage.total_weight(fit.params, pair)[0]
    with canvas.figure(
        file,
        f"Five fields turn odds of 1 to {odds(-before)} into {odds(total)} to 1",
        """From the left: the weight of a match before two records are compared, then what each
        field of this pair says; one that is missing says nothing. Weights are logarithms of odds to
        base 2, and add up. On the right: the probability that a weight stands for.""",
        height=3.9,
    ) as figure:
        axes = plot.match_weights(of_pair, row=0, ax=figure.subplots())
        names = ["before\ncomparing"]
        for name, level in sorted(PAIR.items()):
            names.append(f"{name}\n{FIELDS[name].levels[level] if level >= 0 else 'missing'}")
        axes.set_xticks(range(len(names) + 1), [*names, "in all"])


def odds(weight: float) -> str:
    """Return the odds of a weight, to two digits."""
    return f"{float(f'{2**weight:.1e}'):,.0f}"


def draw_accepted(file: Path, fit: Fit, truth: Patterns) -> None:
    """Draw precision and recall by threshold, in truth and as EM expects them."""
    weight = record_linkage.total_weight(fit.params, truth.levels)
    in_truth = accepted(weight, truth.count, truth.matches)
    expected = accepted(weight, truth.count, expected_matches(fit, truth))
    with canvas.figure(
        file,
        "How many pairs are called right, EM knows without a single label",
        """Calling every pair a match whose weight is at least a threshold. Lines: precision (how
        many of those are matches) and recall (how many of the matches are among those) as the
        posterior expects them. Dots: in truth.""",
        height=3.6,
    ) as figure:
        axes = figure.subplots()
        thresholds = np.arange(-14, 25)
        for name, color in (("precision", FOR), ("recall", AGAINST)):
            axes.step(expected.weight, getattr(expected, name), where="post", color=color)
            at = np.searchsorted(-in_truth.weight, -thresholds, side="right") - 1
            shown = at >= 0
            dots = getattr(in_truth, name)[at[shown]]
            axes.plot(thresholds[shown], dots, "o", color=color, markersize=3.5)
        canvas.label(axes, -9.2, 0.62, "precision", FOR)
        canvas.label(axes, 14.5, 0.74, "recall", AGAINST)
        axes.set(xlim=(-14.5, 24.5), ylim=(0, 1.03), xlabel="threshold (bits)", ylabel="share")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f}%"))
        canvas.light_grid(axes)
