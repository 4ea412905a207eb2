"""Which optima do two hundred starts find, how often, and does it matter how one starts?

The annotators' table of three images, whose likelihood has several optima and no bound, and five
Gaussians in the plane, whose likelihood has dozens. From each kind of start: how many starts end
where.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse
from numpyro import handlers

from emjax import EM, Optimum, Restarts
from emjax.models import annotators, gaussian_mixture
from experiments import canvas, report
from experiments.annotators import NUM_ANNOTATORS, SCORES

OWN, RANDOM, DATA, FAR, SPLIT, PRIORS = (
    "the program's own", "responsibilities", "data points", "k-means++", "splitting", "priors"
)  # fmt: skip
INIT = {
    OWN: None,
    RANDOM: "responsibilities",
    DATA: "data",
    FAR: "k-means++",
    SPLIT: "splitting",
    PRIORS: None,
}
DETERMINISTIC = (OWN, SPLIT)  # of the annotators' program; one start says it all
SIGMA_MAX = 0.5
NUM_COMPONENTS = 5
CENTERS = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0], [8.0, 2.0]])
SPREADS = (0.8, 0.8, 0.8, 0.8, 1.5)
POINTS_OF_EACH = 40
MIXTURE_KINDS = (RANDOM, DATA, FAR, SPLIT)
QUICK_KINDS = (OWN, RANDOM, SPLIT, PRIORS)  # each kind is compiled on its own
COLORS = {
    RANDOM: canvas.VERMILLION, DATA: canvas.BLUE, FAR: canvas.GREEN, SPLIT: canvas.PURPLE, OWN: canvas.SKY, PRIORS: canvas.ORANGE
}  # fmt: skip


class Landscape(NamedTuple):
    """Where starts of several kinds came to: `restarts`, all of them one after another, and the
    `kinds` (start,) of each.
    """

    kinds: np.ndarray
    restarts: Restarts

    @property
    def names(self) -> list[str]:
        """The kinds of starts, each once."""
        return list(dict.fromkeys(self.kinds.tolist()))

    @property
    def optima(self) -> list[Optimum]:
        """The distinct optima, the best first, then all that is degenerate as one."""
        return self.restarts.optima()

    def counts(self, optimum: Optimum) -> Counter:
        """Return how many starts of each kind came to an optimum."""
        return Counter(self.kinds[optimum.starts].tolist())

    def total(self, kind: str) -> int:
        """Return the number of starts of a kind."""
        return int((self.kinds == kind).sum())


def landscape(found: Mapping[str, Restarts]) -> Landscape:
    """Return one landscape from the restarts of each kind."""
    kinds = np.concatenate(
        [np.repeat(kind, len(restarts.objective)) for kind, restarts in found.items()]
    )
    return Landscape(kinds, jax.tree.map(lambda *parts: np.concatenate(parts), *found.values()))


def part(restarts: Restarts, which: slice) -> Restarts:
    """Return some of several starts."""
    return jax.tree.map(lambda values: np.asarray(values)[which], restarts)


# ── annotators ────────────────────────────────────────────────────────────────────────────────────


def with_priors() -> Callable:
    """Return the annotators' program with a flat prior on each parameter, from which starts are
    drawn.

    μ and π are uniform on [0, 1], σ on [0, SIGMA_MAX]; the objective is the log-likelihood plus log
    1 / SIGMA_MAX.
    """
    flat = {
        "mu": dist.Uniform(0.0, 1.0).expand([len(SCORES)]).to_event(1),
        "sigma": dist.Uniform(0.0, SIGMA_MAX),
        "pi": dist.Uniform(0.0, 1.0),
    }
    return handlers.lift(annotators.program, prior=flat)


def annotators_landscape(num_starts: int, kinds: Sequence[str] = tuple(INIT)) -> Landscape:
    """Return where EM ends on the annotators' table from each kind of start (the program's own and
    random ones always).
    """
    found = {}
    for kind in kinds:
        program = with_priors() if kind == PRIORS else annotators.program
        em = EM(
            program,
            init=INIT[kind],
            num_restarts=2 if kind in DETERMINISTIC else num_starts,
            short_steps=None,
            tol=1e-10,
            max_steps=2000,
        )
        restarts = em.run(jax.random.key(0), SCORES).restarts
        found[kind] = part(restarts, slice(1) if kind in DETERMINISTIC else slice(None))
    drawn = found[PRIORS]
    found[PRIORS] = eqx.tree_at(
        lambda restarts: restarts.objective, drawn, drawn.objective + np.log(SIGMA_MAX)
    )
    return landscape({kind: found[kind] for kind in kinds})


def end_name(optimum: Optimum) -> str:
    """Return an optimum of the annotators' table in words."""
    if optimum.degenerate:
        return "σ → 0"
    share = optimum.params["pi"]
    return (
        "all good"
        if share > 1 - 1e-6
        else "none good"
        if share < 1e-6
        else f"{share * NUM_ANNOTATORS:.0f} good"
    )


def explained(found: Landscape, text: str, starts: Mapping[str, str]) -> None:
    """Print a paragraph that ends with what each kind of start is."""
    report.remark(text + " " + "; ".join(f"{kind}: {starts[kind]}" for kind in found.names) + ".")


def print_annotators(found: Landscape) -> None:
    """Print how many starts of each kind end where."""
    report.heading("Three images, five annotators: where do starts end?")
    explained(
        found,
        """The parameters are the images' values μ, the noise σ of a good annotator, and the share π
            of good ones. The starts:""",
        {
            OWN: "everyone is good",
            RANDOM: "each annotator is good with a probability drawn at random, then one M-step",
            DATA: "μ repeats the scores of one annotator, σ and π are the program's own",
            FAR: "likewise, of one of two annotators far apart",
            SPLIT: "the annotators in two clusters",
            PRIORS: "μ, σ and π are uniform",
        },
    )
    optima = found.optima
    columns = [f"{end_name(o)} ({'∞' if o.degenerate else f'{o.objective:.3f}'})" for o in optima]
    rows = [
        [
            kind,
            str(found.total(kind)),
            *(str(found.counts(optimum)[kind] or "–") for optimum in optima),
        ]
        for kind in found.names
    ]
    report.table(
        ["start", "starts", *columns],
        rows,
        caption="Columns: where they end (log-likelihood in nats).",
    )
    print(f"  {conclusion(found)}\n")


def conclusion(found: Landscape) -> str:
    """Return what the table says of degenerate ends."""
    degenerate = {
        kind: share_of(found, kind, [o for o in found.optima if o.degenerate])
        for kind in found.names
    }
    others = max(share for kind, share in degenerate.items() if kind != PRIORS)
    return (f"Starts drawn from priors end without a bound in {100 * degenerate[PRIORS]:.0f}% of "
            f"the cases; starts that look at the data, in {100 * others:.0f}%.")  # fmt: skip


def share_of(found: Landscape, kind: str, optima: list[Optimum]) -> float:
    """Return the share of the starts of a kind that came to one of these optima."""
    return sum(found.counts(optimum)[kind] for optimum in optima) / found.total(kind)


def draw_annotators(path: Path, found: Landscape) -> None:
    """Draw, for each kind of start, the share of starts that end at each optimum."""
    optima = found.optima
    bounded = (
        canvas.BLUE,
        canvas.SKY,
        canvas.GREEN,
        canvas.ORANGE,
        canvas.PURPLE,
        canvas.VERMILLION,
    )
    colors = [
        canvas.PALE if o.degenerate else bounded[i % len(bounded)] for i, o in enumerate(optima)
    ]
    unbounded = f"{100 * share_of(found, PRIORS, [o for o in optima if o.degenerate]):.0f}%"
    with canvas.figure(
        path,
        f"The start decides where EM ends: of those drawn from priors, {unbounded} end where the "
        "likelihood has no bound",
        """The annotators' table: shares of the starts of each kind that end at each optimum, with
        its log-likelihood in nats. σ → 0: one annotator is left to be good, μ repeats the scores,
        and the likelihood grows without bound.
        """,
        height=3.2,
    ) as figure:
        axes = figure.subplots()
        for row, kind in enumerate(found.names):
            left = 0.0
            for optimum, color in zip(optima, colors, strict=True):
                share = share_of(found, kind, [optimum])
                axes.barh(row, share, left=left, color=color, height=0.72)
                if share > 0.04:
                    ink = (
                        "white"
                        if color in (canvas.BLUE, canvas.GREEN, canvas.PURPLE)
                        else canvas.INK
                    )
                    axes.text(
                        left + share / 2,
                        row,
                        f"{100 * share:.0f}%",
                        ha="center",
                        va="center",
                        fontsize=8.5,
                        color=ink,
                    )
                left += share
        for optimum, color in zip(optima, colors, strict=True):
            value = "∞" if optimum.degenerate else f"{optimum.objective:.3f}"
            axes.barh(0, 0, color=color, label=f"{end_name(optimum)}: {value}")
        labels = [f"{kind} ({found.total(kind)})" for kind in found.names]
        axes.set(yticks=range(len(labels)), yticklabels=labels, xticks=[], xlim=(0, 1))
        axes.invert_yaxis()
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        figure.legend(loc="outside lower center", ncols=len(optima), fontsize=8.5)


# ── five Gaussians ────────────────────────────────────────────────────────────────────────────────


def five_gaussians(seed: int) -> np.ndarray:
    """Return 200 points (sample, 2) of five round Gaussians, one of them wide."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [
            rng.normal(center, spread, (POINTS_OF_EACH, 2))
            for center, spread in zip(CENTERS, SPREADS, strict=True)
        ]
    )


def mixture_ems(num_starts: int, kinds: Sequence[str] = MIXTURE_KINDS) -> dict[str, EM]:
    """Return EM with each kind of start; of splitting, which draws nothing, two starts are compiled
    and one is counted.
    """
    return {
        kind: EM(
            gaussian_mixture.program,
            init=INIT[kind],
            num_restarts=2 if kind == SPLIT else num_starts,
            short_steps=None,
        )
        for kind in kinds
    }


def mixture_landscape(ems: Mapping[str, EM], points: np.ndarray) -> Landscape:
    """Return where EM ends on these points from each kind of start."""
    found = {}
    for kind, em in ems.items():
        restarts = em.run(
            jax.random.key(1), jnp.asarray(points), NUM_COMPONENTS, "diagonal"
        ).restarts
        found[kind] = part(restarts, slice(1 if kind == SPLIT else None))
    return landscape(found)


def starts_needed(share: float) -> str:
    """Return how many starts find the best optimum with probability 95%, if each does with this
    one.
    """
    if share in (0.0, 1.0):
        return "1" if share else "–"
    return str(int(np.ceil(np.log(0.05) / np.log1p(-share))))


def print_mixture(found: Landscape) -> None:
    """Print what the starts of each kind come to on one data set."""
    report.heading("Five Gaussians, 200 points: how many optima are there?")
    bounded = [optimum for optimum in found.optima if not optimum.degenerate]
    best = bounded[0].objective
    explained(
        found,
        f"{len(bounded)} distinct optima of the likelihood were found; the best has log-likelihood "
        f"{best:.3f} nats. The starts:",
        {
            RANDOM: "drawn for each point, then one M-step",
            DATA: "five points at random are the means",
            FAR: "five points far from one another",
            SPLIT: "one cluster is split until there are five",
        },
    )
    rows = []
    for kind in found.names:
        of_kind = found.kinds == kind
        share = share_of(found, kind, bounded[:1])
        ends = found.restarts.objective[of_kind & ~found.restarts.degenerate]
        rows.append([
            kind, str(of_kind.sum()), str(sum(found.counts(optimum)[kind] > 0 for optimum in bounded)), f"{100 * share:.0f}%",
            starts_needed(share), f"{best - np.median(ends):.2f}", f"{found.restarts.num_steps[of_kind].mean():.0f}",
            f"{100 * found.restarts.degenerate[of_kind].mean():.0f}%",
        ])  # fmt: skip
    columns = [
        "start",
        "starts",
        "optima found",
        "at the best",
        "starts for 95%",
        "median gap (nats)",
        "mean steps",
        "degenerate",
    ]
    report.table(
        columns,
        rows,
        caption="Gap: log-likelihood below the best. Starts for 95%: so many find the best one "
        "with that probability.",
    )


def shares_at_best(landscapes: list[Landscape]) -> dict[str, np.ndarray]:
    """Return, for each kind of start, the share of its starts that end at the best optimum of each
    data set.
    """
    best = [
        next(optimum for optimum in found.optima if not optimum.degenerate) for found in landscapes
    ]
    return {
        kind: np.array(
            [
                share_of(found, kind, [optimum])
                for found, optimum in zip(landscapes, best, strict=True)
            ]
        )
        for kind in landscapes[0].names
    }


def print_shares(shares: Mapping[str, np.ndarray]) -> None:
    """Print how often each kind of start finds the best optimum, over data sets."""
    number = len(next(iter(shares.values())))
    report.heading(f"{number} such data sets")
    rows = [
        [
            kind,
            f"{100 * share.mean():.0f}%",
            f"{100 * share.min():.0f}%",
            f"{100 * share.max():.0f}%",
            str((share > 0).sum()),
        ]
        for kind, share in shares.items()
    ]
    columns = ["start", "starts at the best, mean", "least", "most", "data sets where any is"]
    report.table(
        columns,
        rows,
        caption="The best optimum of a data set is the best that any start of any kind found.",
    )


def draw_mixture(path: Path, found: Landscape, shares: Mapping[str, np.ndarray]) -> None:
    """Draw the optima that each kind of start finds, and how often it finds the best of each data
    set.
    """
    count = sum(not optimum.degenerate for optimum in found.optima)
    low, high = (100 * of(share.mean() for share in shares.values()) for of in (min, max))
    with canvas.figure(
        path,
        f"{count} optima on one data set; of the starts of a kind, {low:.0f}% to {high:.0f}% find "
        "the best",
        """Five Gaussians, 200 points. Left: the optima of one data set that each kind of start
        finds; a dot's area is the share of starts that end there. Right: share of starts that end
        at the best optimum, a dot for each data set, and their mean (bar).
        """,
        height=3.1,
    ) as figure:
        left, right = figure.subplots(1, 2, width_ratios=[1.6, 1], sharey=True)
        draw_optima_found(left, found)
        for row, (kind, share) in enumerate(shares.items()):
            spread = row + np.linspace(-0.16, 0.16, len(share))
            right.plot(
                share, spread, "o", color=COLORS[kind], markersize=4.5, alpha=0.6, markeredgewidth=0
            )
            right.plot(
                [share.mean()] * 2, [row - 0.3, row + 0.3], color=COLORS[kind], linewidth=2.5
            )
            canvas.label(
                right,
                share.mean(),
                row - 0.36,
                f"{100 * share.mean():.0f}%",
                COLORS[kind],
                ha="center",
                va="bottom",
            )
        right.set(
            xlim=(-0.05, 1.05),
            xticks=[0, 0.5, 1],
            xticklabels=["0%", "50%", "100%"],
            xlabel="starts at the best optimum",
        )
        right.set_title(f"{len(share)} data sets")
        right.tick_params(axis="y", length=0)


def draw_optima_found(axes: Axes, found: Landscape) -> None:
    """Draw a dot for each optimum and kind of start."""
    bounded = [optimum for optimum in found.optima if not optimum.degenerate]
    for row, kind in enumerate(found.names):
        gaps = np.array([optimum.objective - bounded[0].objective for optimum in bounded])
        share = np.array([share_of(found, kind, [optimum]) for optimum in bounded])
        axes.axhline(row, color=canvas.PALE, linewidth=0.8, zorder=0)
        axes.scatter(
            gaps,
            np.full(len(gaps), row),
            s=900 * share,
            color=COLORS[kind],
            alpha=0.55,
            linewidths=0,
            clip_on=False,
        )
    axes.set(
        yticks=range(len(found.names)),
        yticklabels=[f"{kind} ({found.total(kind)})" for kind in found.names],
        ylim=(len(found.names) - 0.45, -0.75),
        xlabel="log-likelihood minus that of the best optimum, nats",
        title="One data set",
    )
    axes.tick_params(axis="y", length=0)


def draw_optima(path: Path, points: np.ndarray, found: Landscape) -> None:
    """Draw the components of the best optimum, and of the most frequent others."""
    bounded = [optimum for optimum in found.optima if not optimum.degenerate]
    best = bounded[0]
    frequent = sorted(bounded[1:], key=lambda optimum: -len(optimum.starts))[:2]
    shown = [best, *sorted(frequent, key=lambda optimum: -optimum.objective), bounded[-1]]
    with canvas.figure(
        path,
        "What a local optimum looks like: two clusters under one ellipse, and one cluster under "
        "two",
        """Ellipses of two standard deviations: the best optimum, the two others in which most
        starts end, and the worst. Percentages: starts of all kinds that end there.
        """,
        height=2.15,
        width=10.5,
    ) as figure:
        for axes, optimum in zip(
            figure.subplots(1, len(shown), sharex=True, sharey=True), shown, strict=True
        ):
            axes.scatter(*points.T, s=6, color=canvas.GREY, linewidths=0)
            draw_components(axes, optimum)
            share = 100 * len(optimum.starts) / len(found.kinds)
            gap = (
                "best"
                if optimum is best
                else f"{optimum.objective - best.objective:.1f} nats".replace("-", "−")
            )
            axes.set_title(
                f"{gap}, {share:.0f}% of the starts"
                if share >= 1
                else f"{gap}, {len(optimum.starts)} of {len(found.kinds)}"
            )
            axes.set_aspect("equal")
            canvas.bare(axes)


def draw_components(axes: Axes, optimum: Optimum) -> None:
    """Draw an ellipse of two standard deviations for each component."""
    for mean, scale, color in zip(
        optimum.params["loc"], optimum.params["scale"], canvas.PALETTE, strict=False
    ):
        axes.add_patch(Ellipse(mean, *4 * scale, fill=False, color=color, linewidth=1.8))


def run(figures: Path, quick: bool) -> None:
    """Print the tables, draw the figures."""
    num_starts, num_data_sets = (40, 2) if quick else (200, 6)
    found = annotators_landscape(num_starts, QUICK_KINDS if quick else tuple(INIT))
    print_annotators(found)
    draw_annotators(figures / "annotators.png", found)
    ems = mixture_ems(num_starts, (RANDOM, FAR, SPLIT) if quick else MIXTURE_KINDS)
    data = [five_gaussians(seed) for seed in range(num_data_sets)]
    landscapes = [mixture_landscape(ems, points) for points in data]
    shares = shares_at_best(landscapes)
    print_mixture(landscapes[0])
    print_shares(shares)
    draw_mixture(figures / "mixture.png", landscapes[0], shares)
    draw_optima(figures / "optima.png", data[0], landscapes[0])
