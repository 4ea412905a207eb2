"""The figures: what is left to gain against passes, and perplexity against seconds."""

from pathlib import Path

import numpy as np

from experiments import canvas
from experiments.online import corpora, mixtures

COLORS = {
    mixtures.PLAIN: canvas.GREY,
    mixtures.ANDERSON: canvas.VERMILLION,
    mixtures.ONLINE: canvas.SKY,
    mixtures.BOTH: canvas.BLUE,
    corpora.BATCH: canvas.GREY,
    corpora.ONLINE: canvas.BLUE,
    corpora.LDA: canvas.ORANGE,
}
LEAST_GAP, MOST_PASSES = 1e-6, 120


def draw_gaps(path: Path, by_kind: dict[str, dict[str, mixtures.Race]]) -> None:
    """Draw what is left to gain against passes over the data."""
    passes = [
        [by_method[name].passes_to(mixtures.NEAR) for name in (mixtures.BOTH, mixtures.PLAIN)]
        for by_method in by_kind.values()
    ]
    shares = sorted(100 * both / plain for both, plain in passes)
    span = " to ".join(dict.fromkeys(f"{share:.0f}%" for share in (shares[0], shares[-1])))
    with canvas.figure(
        path,
        f"Minibatches first, then Anderson's acceleration: {span} of the passes of plain EM",
        "What is left to gain until the run's own end, in nats a row, after each pass over all "
        "data. Dots: online passes, every batch at the estimate that it found; from the square "
        "on, EM on all data. The dashed line is 1e-3 nats.",
        width=12 if len(by_kind) > 1 else 7.5,
        height=3.2,
    ) as figure:
        panels = figure.subplots(1, len(by_kind), sharey=True, squeeze=False)[0]
        for axes, (kind, by_method) in zip(panels, by_kind.items(), strict=True):
            for method, race in by_method.items():
                _draw_race(axes, method, race)
            axes.axhline(mixtures.NEAR, color=canvas.INK, linewidth=0.8, linestyle="--")
            axes.set(title=kind, xlabel="passes", yscale="log", xlim=(0, MOST_PASSES))
            axes.set_ylim(LEAST_GAP, None)
            canvas.light_grid(axes)
        panels[0].set_ylabel("left to gain, nats a row")
        figure.legend(*panels[-1].get_legend_handles_labels(), loc="outside right center")


def _draw_race(axes, method: str, race: mixtures.Race) -> None:
    color, end = COLORS[method], race.objective[-1]
    passes = race.num_batched + 1 + np.arange(len(race.objective))
    gap = np.maximum(end - race.objective, LEAST_GAP)
    axes.plot(passes, gap, color=color, linewidth=1.5, label=method)
    if race.num_batched:
        online = np.arange(1, race.num_batched + 1)
        left = np.maximum(end - race.batched, LEAST_GAP)
        axes.plot(online, left, "o:", color=color, markersize=3, linewidth=1)
        axes.plot(passes[:1], gap[:1], "s", color=color, markersize=5)


def draw_perplexities(path: Path, by_corpus: dict[str, dict[str, list[corpora.Point]]]) -> None:
    """Draw the perplexity of words held out against seconds."""
    best = []
    for name, by_method in by_corpus.items():
        lowest = {method: min(p.perplexity for p in points) for method, points in by_method.items()}
        best.append(f"documents {name} by {min(lowest, key=lambda method: lowest[method])}")
    with canvas.figure(
        path,
        f"Words held out are told best: of {', of '.join(best)}",
        "Perplexity of words held out, given half of the document, against the seconds that the "
        "fit took, with compilation.",
        width=9,
        height=3.2,
    ) as figure:
        panels = figure.subplots(1, len(by_corpus), squeeze=False)[0]
        for axes, (name, by_method) in zip(panels, by_corpus.items(), strict=True):
            for method, points in by_method.items():
                seconds = [point.seconds for point in points]
                perplexities = [point.perplexity for point in points]
                style = {"color": COLORS[method], "markersize": 4, "label": method}
                axes.plot(seconds, perplexities, "o-", **style)
            axes.set(title=f"documents {name}", xlabel="seconds", xscale="log")
            canvas.light_grid(axes)
        panels[0].set_ylabel("perplexity")
        figure.legend(*panels[-1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
