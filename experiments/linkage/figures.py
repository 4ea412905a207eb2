"""The figures: what each level weighs, how one pair gets its weight, what thresholds accept."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from emjax import Fit
from emjax.models import record_linkage
from experiments import canvas
from experiments.linkage.fits import Patterns, accepted, expected_matches
from experiments.linkage.simulation import FIELDS, true_params

FOR, AGAINST = canvas.BLUE, canvas.VERMILLION
# the pair of the waterfall: the level of each field, −1 where it is missing
PAIR = {"forename": 2, "surname": 3, "birth": 3, "street": 0, "town": 1, "email": -1}


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
        axes = figure.subplots()
        bottom, places, names = 0.0, [], []
        for name, field in FIELDS.items():
            rows = bottom + np.arange(len(field.levels))
            draw_field(axes, rows, found[name][::-1], true[name][::-1])
            places += rows.tolist()
            names += field.levels[::-1]
            label = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
            axes.text(-0.155, rows.mean(), name, weight="bold", **label)
            bottom = rows[-1] + 1.8
        axes.set(yticks=places, yticklabels=names, xlabel="match weight (bits)")
        axes.invert_yaxis()
        axes.margins(x=0.07, y=0.02)
        axes.tick_params(axis="y", length=0)
        axes.axvline(0, color=canvas.GREY, linewidth=0.8)
        canvas.light_grid(axes, "x")


def draw_field(axes: Axes, rows: np.ndarray, found: np.ndarray, true: np.ndarray) -> None:
    """Draw the bars of a field and their truths."""
    axes.barh(rows, found, height=0.78, color=np.where(found > 0, FOR, AGAINST))
    axes.vlines(true, rows - 0.39, rows + 0.39, color=canvas.INK, linewidth=2)
    for row, weight, truth in zip(rows, found, true, strict=True):
        side = 1 if weight > 0 else -1
        # beyond the bar and the tick
        end = side * max(side * weight, side * truth)
        canvas.label(
            axes,
            end + 0.2 * side,
            row,
            signed(weight),
            ha="left" if side > 0 else "right",
            va="center",
            weight="normal",
        )


def signed(weight: float) -> str:
    """Return a weight with its sign, a true minus."""
    return f"{weight:+.1f}".replace("-", "−") if weight else "0"


def draw_waterfall(file: Path, fit: Fit) -> None:
    """Draw how the weight of one pair adds up, from the prior to the total."""
    weights = record_linkage.match_weights(fit.params)
    names = ["before\ncomparing"]
    steps = [record_linkage.prior_weight(fit.params)]
    for name, level in PAIR.items():
        names.append(f"{name}\n{FIELDS[name].levels[level] if level >= 0 else 'missing'}")
        steps.append(weights[name][level] if level >= 0 else 0.0)
    ends = np.cumsum(steps)
    total = ends[-1]
    with canvas.figure(
        file,
        f"Five fields turn odds of 1 to {odds(-ends[0])} into {odds(total)} to 1",
        """From the left: the weight of a match before two records are compared, then what each
        field of this pair says; one that is missing says nothing. Weights are logarithms of odds to
        base 2, and add up. On the right: the probability that a weight stands for.""",
        height=3.9,
    ) as figure:
        axes = figure.subplots()
        starts = np.concatenate([[0.0], ends[:-1]])
        colors = np.where(np.array(steps) >= 0, FOR, AGAINST)
        axes.bar(range(len(steps)), steps, bottom=starts, color=colors, width=0.66)
        axes.bar(len(steps), total, color=canvas.GREY, width=0.66)
        for k, end in enumerate(ends):
            axes.plot([k - 0.33, k + 1.33], [end, end], color=canvas.INK, linewidth=0.8)
        for k, (start, step) in enumerate(zip([*starts, 0.0], [*steps, total], strict=True)):
            top = max(start, start + step) + 0.35
            canvas.label(axes, k, top, signed(step), ha="center", va="bottom")
        axes.set_xticks(range(len(steps) + 1), [*names, "in all"])
        axes.set(ylabel="match weight (bits)")
        axes.set_ylim(min(ends) - 1.0, max(ends) + 2.0)
        axes.axhline(0, color=canvas.GREY, linewidth=0.8)
        axes.tick_params(axis="x", length=0)
        draw_probabilities(axes)
        canvas.light_grid(axes)


def odds(weight: float) -> str:
    """Return the odds of a weight, to two digits."""
    return f"{float(f'{2**weight:.1e}'):,.0f}"


PROBABILITIES = {
    "1%": 0.01,
    "10%": 0.1,
    "50%": 0.5,
    "90%": 0.9,
    "99%": 0.99,
    "99.9%": 0.999,
    "99.99%": 0.9999,
    "99.999%": 0.99999,
}


def draw_probabilities(axes: Axes) -> None:
    """Draw a second scale on the right: the probabilities of the weights."""
    right = axes.secondary_yaxis("right")
    weights = [np.log2(p / (1 - p)) for p in PROBABILITIES.values()]
    right.set_yticks(weights, list(PROBABILITIES))
    right.set_ylabel("probability of a match")
    right.spines["right"].set_visible(True)


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
