"""Which annotators scored the images, and which drew random numbers?

Three images scored by five annotators are too few: EM ends with all five good, other starts end
elsewhere, and the likelihood has no bound. Then scores are simulated, with annotators 2 and 4
random, to see how many images it takes.
"""

from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from numpyro import handlers

from emjax import EM, Status, compare_updates
from emjax.models import annotators
from experiments import canvas, report

SCORES = np.array(  # image, annotator
    [
        [0.59, 0.52, 0.50, 0.39, 0.65],
        [0.88, 0.96, 0.88, 0.94, 0.69],
        [0.70, 0.71, 0.52, 0.65, 0.46],
    ]
)
NUM_ANNOTATORS = SCORES.shape[1]
ALL_GOOD = tuple(range(NUM_ANNOTATORS))
LECTURE = (0, 1, 3)  # the good annotators of the lecture's answer
SIGMAS = (0.05, 0.095, 0.15)  # noise of a good annotator, in units of the score
NUMS_IMAGES = (3, 5, 8, 10, 15, 20, 30, 50)
# a noise below this is on its way to zero: at every bounded optimum σ is three times as large
COLLAPSED = 0.01


class End(NamedTuple):
    """Where EM ended: `posterior` of being good by annotator; `log_likelihood` in nats, inf if it
    has no bound.
    """

    posterior: np.ndarray
    sigma: float
    pi: float
    log_likelihood: float

    @property
    def name(self) -> str:
        """Return the end in words."""
        if np.isinf(self.log_likelihood):
            return "σ → 0"
        good = np.flatnonzero(self.posterior > 0.5)
        return {NUM_ANNOTATORS: "all good", 0: "none good"}.get(
            len(good), ", ".join(map(str, good)) + " good"
        )


def lecture_em() -> EM:
    """Return EM on the annotators, patient and precise enough to tell the optima apart."""
    return EM(annotators.program, tol=1e-10, max_steps=2000)


def start_from(good: tuple[int, ...]) -> dict:
    """Return the M-step's answer if exactly these annotators were good; σ and π kept away from
    their bounds.
    """
    scores = SCORES[:, list(good)]
    spread = np.sqrt(scores.var(axis=1).mean())
    share = np.clip(len(good) / NUM_ANNOTATORS, 0.05, 0.95)
    return {"mu": scores.mean(axis=1), "sigma": np.maximum(spread, 0.03), "pi": share}


def random_start(key: jax.Array) -> dict:
    """Return values and π uniform on [0, 1], and σ log-uniform between 0.02 and 0.5."""
    values, noise, share = jax.random.split(key, 3)
    sigma = jnp.exp(jax.random.uniform(noise, (), minval=jnp.log(0.02), maxval=jnp.log(0.5)))
    return {
        "mu": jax.random.uniform(values, (len(SCORES),)),
        "sigma": sigma,
        "pi": jax.random.uniform(share),
    }


def end_of(em: EM, start: dict) -> End:
    """Return where EM ends from this start."""
    result = em.run(jax.random.key(0), SCORES, init_params=start)
    sigma, pi = float(result.params["sigma"]), float(result.params["pi"])
    if result.status == Status.NOT_FINITE or sigma < COLLAPSED:
        return End(np.full(NUM_ANNOTATORS, np.nan), 0.0, pi, np.inf)
    posterior = np.asarray(em.posterior(result.params, SCORES)["good"])[..., 1].reshape(
        NUM_ANNOTATORS
    )
    return End(posterior, sigma, pi, float(result.log_likelihood))


def subset_ends(em: EM) -> dict[tuple[int, ...], End]:
    """Return the end from each of the 31 non-empty sets of annotators taken for good."""
    subsets = [
        good for size in range(NUM_ANNOTATORS, 0, -1) for good in combinations(ALL_GOOD, size)
    ]
    return {good: end_of(em, start_from(good)) for good in subsets}


def random_ends(em: EM, num_starts: int) -> list[End]:
    """Return the ends from random starts."""
    return [
        end_of(em, random_start(key)) for key in jax.random.split(jax.random.key(1), num_starts)
    ]


def along_sigma(em: EM, good: tuple[int, ...], sigmas: np.ndarray) -> np.ndarray:
    """Return the log-likelihood in nats for each σ, with μ and π as if exactly these annotators
    were good.
    """
    start = start_from(good) | {"pi": np.array(len(good) / NUM_ANNOTATORS)}
    log_likelihood = jax.vmap(lambda sigma: em.log_likelihood(start | {"sigma": sigma}, SCORES))
    return np.asarray(log_likelihood(jnp.asarray(sigmas)))


def simulated(key: jax.Array, num_images: int, sigma: float) -> jax.Array:
    """Return scores (image, annotator) drawn by the program itself, with annotators 0, 1 and 3
    good.

    The images' values are uniform between 0.2 and 0.8; a score beyond 0 or 1 is recorded as 0 or 1.
    """
    values, draws = jax.random.split(key)
    mu = jax.random.uniform(values, (num_images,), minval=0.2, maxval=0.8)
    good = jnp.isin(jnp.arange(NUM_ANNOTATORS), jnp.array(LECTURE)).astype(int)
    params = {"mu": mu, "sigma": sigma, "pi": 0.6}
    program = handlers.uncondition(handlers.substitute(annotators.program, data=params))
    program = handlers.seed(handlers.condition(program, data={"good": good}), draws)
    drawn = handlers.trace(program).get_trace(jnp.zeros((num_images, NUM_ANNOTATORS)))
    return jnp.clip(drawn["scores"]["value"], 0.0, 1.0)


def simulated_posteriors(num_images: int, num_tables: int, num_steps: int = 200) -> np.ndarray:
    """Return p(good | scores), shape (noise, table, annotator), after EM from the lecture's start
    on simulated tables.
    """
    em = EM(annotators.program)
    em.init(
        jax.random.key(0), jnp.zeros((num_images, NUM_ANNOTATORS))
    )  # trace the program before vmap does

    def posterior(key: jax.Array, sigma: jax.Array) -> jax.Array:
        scores = simulated(key, num_images, sigma)
        state = em.init(key, scores)
        state = jax.lax.fori_loop(0, num_steps, lambda _, state: em.update(state, scores)[0], state)
        return em.posterior(state.params, scores)["good"][..., 1].reshape(NUM_ANNOTATORS)

    keys = jax.random.split(jax.random.key(num_images), num_tables)
    return np.asarray(
        jax.jit(jax.vmap(jax.vmap(posterior, (0, None)), (None, 0)))(keys, jnp.array(SIGMAS))
    )


def share_found(posteriors: np.ndarray) -> np.ndarray:
    """Return the share of tables, by noise, in which exactly the lecture's annotators are found
    good.
    """
    found = (posteriors > 0.5) == np.isin(ALL_GOOD, LECTURE)
    return found.all(axis=-1).mean(axis=-1)


def run(figures: Path, quick: bool) -> None:
    """Print the tables, draw the figures."""
    em = lecture_em()
    print_scores(em)
    ends = subset_ends(em)
    print_landscape(em, ends, num_random=40 if quick else 200)
    draw_landscape(figures / "landscape.png", em, ends)
    nums_images, num_tables = ((3, 10, 20), 40) if quick else (NUMS_IMAGES, 200)
    posteriors = {num: simulated_posteriors(num, num_tables) for num in nums_images}
    print_simulated(posteriors)
    draw_simulated(figures / "images_needed.png", posteriors)
    report.heading("Generic EM against the update derived by hand (models/annotators.py)")
    print(compare_updates(em, annotators.hand_derived_step, start_from(LECTURE), SCORES))


def print_scores(em: EM) -> None:
    """Print the data, and what EM makes of them from the lecture's start."""
    report.heading("Three images, five annotators; scores between 0 and 1")
    report.table(
        ["image", *(f"annotator {a}" for a in ALL_GOOD)],
        [[str(i), *(f"{s:.2f}" for s in row)] for i, row in enumerate(SCORES)],
    )
    report.remark("""A good annotator's score is the image's value μ plus noise of standard
        deviation σ; a bad one's is a random number. π is the share of good annotators. The
        lecture's start takes everyone for good, and its answer is that 0, 1 and 3 are.""")
    end = end_of(em, start_from(ALL_GOOD))
    print(
        f"\n  EM from the lecture's start ends with {end.name}: σ = {end.sigma:.4f}, π = "
        f"{end.pi:.3f},"
    )
    print(f"  log-likelihood {end.log_likelihood:.3f} nats.\n")


def print_landscape(em: EM, ends: dict, num_random: int) -> None:
    """Print how many starts lead to which end."""
    report.heading("Where other starts end")
    scattered = random_ends(em, num_random)
    by_name = {end.name: end for end in [*scattered, *ends.values()]}
    systematic, at_random = (
        Counter(end.name for end in group) for group in (ends.values(), scattered)
    )
    rows = [
        [name, *shown(end), str(systematic[name]), str(at_random[name])]
        for name, end in sorted(by_name.items(), key=lambda item: item[1].log_likelihood)
    ]
    columns = ["end", "σ", "π", "log-likelihood (nats)", "p(good) of annotators 0 … 4"]
    report.table(
        [*columns, "of 31 starts", f"of {num_random} random"],
        rows,
        caption="""The 31 starts take each set of annotators for good; the random ones draw μ, σ and
            π. Where one annotator is left to be good, μ repeats the scores, σ → 0, and the
            likelihood grows without bound: a maximum that says nothing. Where nobody is, π → 0 and
            every score has density 1: 0 nats.""",
    )


def shown(end: End) -> list[str]:
    """Return σ, π, the log-likelihood and the posterior as text."""
    if np.isinf(end.log_likelihood):
        return ["0", "–", "∞", "one annotator good"]
    return [
        f"{end.sigma:.4f}",
        f"{end.pi:.3f}",
        f"{end.log_likelihood:.3f}",
        report.numbers(end.posterior),
    ]


def print_simulated(posteriors: dict[int, np.ndarray]) -> None:
    """Print how often the good annotators are found, by the number of images."""
    report.heading("How many images does it take?")
    num_tables = next(iter(posteriors.values())).shape[1]
    rows = [
        [str(num), *(f"{100 * share:.0f}%" for share in share_found(p))]
        for num, p in posteriors.items()
    ]
    report.table(
        ["images", *(f"found, σ = {sigma:g}" for sigma in SIGMAS)],
        rows,
        caption=f"""Scores simulated by the program with annotators 2 and 4 random; how often EM
            from the lecture's start finds exactly 0, 1 and 3 good, in {num_tables} simulated
            tables. σ is the noise of a good annotator.""",
    )
    needed = [
        f"{images_needed(posteriors, noise)} images at σ = {sigma:g}"
        for noise, sigma in enumerate(SIGMAS)
    ]
    print(f"  To find them in 95% of the tables takes {', '.join(needed)}.")


def images_needed(posteriors: dict[int, np.ndarray], noise: int) -> str:
    """Return the first number of images from which on 95% of the tables are read correctly."""
    nums = list(posteriors)
    enough = [share_found(posteriors[num])[noise] >= 0.95 for num in nums]
    first = len(enough) - next((i for i, ok in enumerate(reversed(enough)) if not ok), len(enough))
    return str(nums[first]) if first < len(nums) else f"more than {nums[-1]}"


def draw_landscape(path: Path, em: EM, ends: dict) -> None:
    """Draw the end of each start, and the likelihood along σ."""
    with canvas.figure(
        path,
        "Three images cannot tell who is good: the answer depends on the start",
        """Left: EM from each of the 31 sets of annotators (dots) that one may take for good at the
        start. Colors are the posterior of being good at the end, from 0 (blue) to 1 (yellow); grey:
        σ → 0. Right: the log-likelihood as σ varies, with μ the mean score of those taken for good.
        Any single annotator makes it grow without bound.
        """,
        height=5.0,
    ) as figure:
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.1])
        draw_ends(left, ends)
        draw_slices(right, em, ends)


def draw_ends(axes: Axes, ends: dict) -> None:
    """Draw the posterior at the end, a row for each start, in groups of the same end."""
    order = sorted(
        ends,
        key=lambda good: (sum(end.name == ends[good].name for end in ends.values()), len(good)),
        reverse=True,
    )
    colors = matplotlib.colormaps[canvas.PROBABILITY].with_extremes(bad=canvas.PALE)
    axes.imshow(
        np.array([ends[good].posterior for good in order]),
        aspect="auto",
        cmap=colors,
        vmin=0,
        vmax=1,
    )
    for row, good in enumerate(order):
        axes.plot(
            good,
            [row] * len(good),
            "o",
            markersize=5,
            color=canvas.INK,
            markeredgecolor="white",
            markeredgewidth=0.8,
        )
    bottom = -0.5
    for name, size in Counter(ends[good].name for good in order).items():
        axes.axhline(bottom + size, color="white", linewidth=4)
        log_likelihood = next(end.log_likelihood for end in ends.values() if end.name == name)
        axes.text(
            4.65,
            bottom + size / 2,
            f"{name}\n{log_likelihood:.3f} nats".replace("inf", "∞"),
            va="center",
            fontsize=8.5,
        )
        bottom += size
    axes.set(
        xlim=(-0.5, 6.2),
        xticks=ALL_GOOD,
        yticks=[],
        xlabel="annotator",
        title="31 starts, and where they end",
    )
    axes.xaxis.set_label_coords(2.5 / 6.7, -0.07)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def draw_slices(axes: Axes, em: EM, ends: dict) -> None:
    """Draw the log-likelihood along σ for several sets of good annotators, and mark the optima."""
    sigmas = np.geomspace(6e-4, 0.5, 300)
    slices = {
        ALL_GOOD: ("all good", canvas.BLUE),
        (0, 1, 2, 3): ("0, 1, 2, 3 good", canvas.GREEN),
        (0, 1): ("0, 1 good", canvas.PURPLE),
        (4,): ("only 4 good", canvas.VERMILLION),
    }
    for good, (name, color) in slices.items():
        heights = along_sigma(em, good, sigmas)
        axes.semilogx(sigmas, heights, color=color)
        bounded = len(good) > 1
        sigma, height = (
            (ends[good].sigma, ends[good].log_likelihood) if bounded else (sigmas[0], heights[0])
        )
        axes.plot(sigma, height, "o", color=color, markersize=5 if bounded else 0)
        side = (
            {"ha": "right", "x": sigma * 0.85}
            if len(good) in (2, 4)
            else {"ha": "left", "x": sigma * 1.15}
        )
        canvas.label(axes, y=height + 0.35, text=name, color=color, **side)
    axes.set(
        xlabel="σ, noise of a good annotator (units of the score)",
        ylabel="log-likelihood, nats",
        xticks=[0.001, 0.01, 0.1],
        xticklabels=["0.001", "0.01", "0.1"],
        title="The likelihood along σ",
        ylim=(0, 18.5),
        yticks=[0, 5, 10, 15],
    )
    axes.minorticks_off()
    canvas.light_grid(axes)


def draw_simulated(path: Path, posteriors: dict[int, np.ndarray]) -> None:
    """Draw the mean posterior at the noise of the data, and how often the good annotators are
    found.
    """
    typical = SIGMAS.index(0.095)
    needed = images_needed(posteriors, typical)
    with canvas.figure(
        path,
        f"{needed} images suffice to tell the good annotators at the noise of the data",
        """Scores simulated by the program; annotators 2 and 4 drew random numbers. Left: posterior
        of being good, averaged over the simulated tables, σ = 0.095. Right: how often EM finds
        exactly 0, 1 and 3 good, from the lecture's start.
        """,
    ) as figure:
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.4])
        draw_mean_posteriors(left, {num: p[typical].mean(axis=0) for num, p in posteriors.items()})
        nums = list(posteriors)
        for noise, (sigma, color) in enumerate(zip(SIGMAS, canvas.PALETTE, strict=False)):
            shares = [share_found(p)[noise] for p in posteriors.values()]
            right.semilogx(nums, shares, "o-", color=color, markersize=4.5)
            canvas.label(
                right, nums[0] * 0.94, shares[0], f"σ = {sigma:g}", color, ha="right", va="center"
            )
        right.axhline(0.95, color=canvas.GREY, linewidth=0.9, linestyle=":")
        right.set(
            xticks=nums,
            xticklabels=map(str, nums),
            ylim=(0, 1.03),
            xlim=(1.7, nums[-1] * 1.1),
            yticks=[0, 0.25, 0.5, 0.75, 0.95],
            yticklabels=["0%", "25%", "50%", "75%", "95%"],
            xlabel="images",
            title="Tables in which 0, 1 and 3 are found",
        )
        right.minorticks_off()


def draw_mean_posteriors(axes: Axes, means: dict[int, np.ndarray]) -> None:
    """Draw a heat map, number of images by annotator, with its numbers."""
    image = np.array(list(means.values()))
    axes.imshow(image, aspect="auto", cmap=canvas.PROBABILITY, vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(image):
        axes.text(
            column,
            row,
            f"{value:.2f}",
            ha="center",
            va="center",
            fontsize=8.5,
            color=canvas.INK if value > 0.5 else "white",
        )
    axes.set(
        xticks=ALL_GOOD,
        yticks=range(len(means)),
        yticklabels=map(str, means),
        xlabel="annotator",
        ylabel="images",
        title="Mean posterior of being good",
    )
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
