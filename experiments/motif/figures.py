"""The figures: motifs read early and late, and where occurrences are found."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from experiments import canvas
from experiments.logo import draw_logo, information
from experiments.motif.search import End, Ends, by_shift, in_place, most_likely
from experiments.motif.sequences import WIDTH, Sequences, planted_motif
from experiments.motif.tables import shift_name

SHOWN_SEQUENCES = 10
SHOWN_SHIFTS = 4


def draw_shifts(path: Path, sequences: Sequences, ends: Ends) -> None:
    """Draw the motif as it is read in place, early and late."""
    groups = by_shift(ends.words, sequences)
    shown = [by for by in groups if by is not None][:SHOWN_SHIFTS]
    with canvas.figure(
        path,
        "The likelihood has a maximum for each place at which the motif may be read",
        """The planted motif, and local maxima of the likelihood: the same motif read at another
        place, in which the columns that are lost at one end come in as background at the other. The
        height of a column is its information, at most 2 bits.""",
        width=7.5,
        height=1.0 * (len(shown) + 1),
    ) as figure:
        panels = figure.subplots(len(shown) + 1, 1, sharex=True, sharey=True)
        draw_alignment(panels, ends, groups, shown)
        figure.supylabel("information (bits)", fontsize=9.5)


def draw_realigned(path: Path, sequences: Sequences, ends: Ends) -> None:
    """Draw how often EM ends in place, early and late, and where it ends once realigned."""
    before, after = (shifts[0] for shifts in ends.shifts(sequences))
    with canvas.figure(
        path,
        f"EM reads the motif in place from {before} of {len(ends.words)} starts, and from "
        f"{after} once it is realigned",
        """Where EM from words of the data comes to rest, and where after it is told to try its
        occurrences moved by some letters.""",
        width=7.5,
        height=3.4,
    ) as figure:
        draw_counts(figure.subplots(), sequences, ends)


def draw_alignment(panels: np.ndarray, ends: Ends, groups: dict, shown: list[int]) -> None:
    """Draw logos under one another, each where it is read."""
    best = most_likely(ends.realigned).log_likelihood
    draw_logo(panels[0], planted_motif())
    panels[0].set_title("planted")
    for axes, by in zip(panels[1:], shown, strict=True):
        draw_logo(axes, groups[by][0].params["motif"], by)
        below = best - groups[by][0].log_likelihood
        axes.set_title(f"found {shift_name(by)}" + f", {below:.0f} nats less likely" * (below > 1))
    for axes in panels:
        axes.axvspan(-0.5, WIDTH - 0.5, color=canvas.PALE, alpha=0.4, linewidth=0, zorder=0)
        axes.set(
            xlim=(min(shown) - 0.6, WIDTH + max(shown) - 0.4),
            ylim=(0, 2),
            yticks=[0, 1, 2],
            xticks=[],
        )
        axes.spines["bottom"].set_color(canvas.PALE)


def draw_counts(axes: Axes, sequences: Sequences, ends: Ends) -> None:
    """Draw how many starts end at each shift, before they are realigned and after."""
    from_words, realigned = ends.shifts(sequences)
    occurring = {*from_words, *realigned}
    known = occurring - {None}
    shifts = [*range(min(known), max(known) + 1)]
    if None in occurring:
        shifts.append(None)
    draw_bars(axes, [from_words[by] for by in shifts], -0.2, canvas.GREY)
    draw_bars(axes, [realigned[by] for by in shifts], 0.2, canvas.BLUE)
    axes.set(
        xticks=range(len(shifts)),
        xticklabels=[tick_label(by) for by in shifts],
        xlabel="letters by which the motif is read late",
        ylabel="starts",
    )
    x, y = shifts.index(0), 0.97 * realigned[0]
    canvas.label(axes, x + 0.5, y, "realigned", canvas.BLUE, va="top")
    y = 0.97 * from_words[0]
    canvas.label(axes, x - 0.5, y, "EM alone", canvas.GREY, ha="right", va="top")


def draw_bars(axes: Axes, heights: list[int], side: float, color: str) -> None:
    """Draw a bar at each place, moved to a side of it, with its height above."""
    axes.bar(np.arange(len(heights)) + side, heights, color=color, width=0.4)
    style = {"ha": "center", "va": "bottom", "fontsize": 8.5, "color": color}
    for place, height in enumerate(heights):
        if height:
            axes.text(place + side, height, str(height), **style)


def tick_label(by: int | None) -> str:
    """Return a shift with its sign."""
    if by is None:
        return "else-\nwhere"
    return f"{by:+d}".replace("-", "−") if by else "0"


def draw_found(path: Path, sequences: Sequences, end: End) -> None:
    """Draw the motif that is found under what was planted."""
    share = 100 * end.params["occurrence"]
    with canvas.figure(
        path,
        f"Planted in {100 * sequences.has_one.mean():.0f}% of the sequences, the motif is found in "
        f"{share:.0f}%",
        """Zero or one occurrence in each sequence. Columns are as high as their information.""",
        width=7,
        height=3.4,
    ) as figure:
        draw_both_logos(figure.subplots(2, 1, sharex=True, sharey=True), end)


def draw_occurrences(path: Path, sequences: Sequences, end: End) -> None:
    """Draw where the motif is found in some sequences."""
    right = in_place(end, sequences)
    with canvas.figure(
        path,
        f"{100 * right:.0f}% of all occurrences are found where they were planted",
        f"""How probable it is that the occurrence begins there, in the first {SHOWN_SEQUENCES}
        sequences (of {len(sequences.letters)}); triangles are where it was planted.""",
        width=7.5,
        height=3.6,
    ) as figure:
        draw_posterior(figure.subplots(), sequences, end)


def draw_both_logos(panels: np.ndarray, end: End) -> None:
    """Draw the planted motif above the one found."""
    motifs = {"planted": planted_motif(), "found": end.params["motif"]}
    for axes, (name, probs) in zip(panels, motifs.items(), strict=True):
        draw_logo(axes, probs, first=1)
        axes.set(xlim=(0.4, WIDTH + 0.6), xticks=range(1, WIDTH + 1))
        axes.set(ylim=(0, 2), yticks=[0, 1, 2], ylabel="bits")
        axes.set_title(f"{name}, {information(probs).sum():.1f} bits")
        axes.tick_params(axis="x", length=0)


def draw_posterior(axes: Axes, sequences: Sequences, end: End) -> None:
    """Draw p(start | letters) over each sequence, and beside it the probability of none."""
    longest = sequences.letters.shape[1]
    num_starts = longest - WIDTH + 1
    bar = {"width": 1.4, "color": canvas.BLUE, "zorder": 2}
    for row in range(SHOWN_SEQUENCES):
        length, start = (sequences.letters[row] >= 0).sum(), sequences.starts[row]
        somewhere, nowhere = end.starts[row, :num_starts], end.starts[row, num_starts:].sum()
        axes.plot([0, length], [row, row], color=canvas.PALE, linewidth=1.5, zorder=1)
        axes.bar(np.arange(num_starts), -0.72 * somewhere, bottom=row, **bar)
        if start >= 0:
            axes.plot(start, row + 0.15, "^", color=canvas.VERMILLION, markersize=5)
        axes.text(longest + 9, row, f"{nowhere:.2f}", ha="right", va="center", color=canvas.INK)
    axes.text(longest + 9, -1.0, "p(none)", ha="right", va="center", weight="bold")
    axes.set(
        xlim=(-1, longest + 10),
        ylim=(SHOWN_SEQUENCES - 0.5, -1.3),
        yticks=range(SHOWN_SEQUENCES),
        yticklabels=range(1, SHOWN_SEQUENCES + 1),
        xlabel="position in the sequence",
        ylabel="sequence",
    )
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
