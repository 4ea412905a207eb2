"""How many components? Is BIC bad, and cross-validation what one should use?

So says the lecture. Here AIC, BIC, ICL and 5-fold cross-validation choose the number of components:
of the chemistry of 178 wines, of earthquakes, and of counts whose truth is known, from 30 samples
to 10,000. Which is right depends on what one asks for: a good prediction (cross-validation), the
clusters (ICL), or the truth where it is among the models and the samples are many (BIC).
"""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import logsumexp
from matplotlib.axes import Axes
from numpyro.distributions import constraints
from numpyro.handlers import scale
from sklearn.datasets import load_wine
from sklearn.metrics import adjusted_rand_score

from emjax import EM, Candidate, Choice, choose, criteria
from emjax.models import gaussian_mixture, hidden_markov
from experiments import canvas, report
from experiments.hidden_markov import data as earthquakes

NAMES = ("AIC", "BIC", "ICL", "CV")
COLORS = dict(
    zip(NAMES, (canvas.ORANGE, canvas.BLUE, canvas.GREEN, canvas.VERMILLION), strict=True)
)
NUM_FOLDS = 5
VALUES = np.arange(80)  # counts beyond have a probability below 1e-9 in every truth
LARGEST = 6
SIZES = (30, 100, 300, 1_000, 3_000, 10_000)
NUM_STEPS = 400


# ── wines ─────────────────────────────────────────────────────────────────────────────────────────


@cache
def wines() -> tuple[np.ndarray, np.ndarray]:
    """Return 13 measurements of each wine, standardized, and which of three cultivars it is."""
    found = load_wine()
    return (found.data - found.data.mean(axis=0)) / found.data.std(axis=0), found.target


def mixture(covariance: str, num_components: int, num_restarts: int) -> EM:
    """Return EM on a Gaussian mixture."""
    program = partial(
        gaussian_mixture.program, num_components=num_components, covariance=covariance
    )
    return EM(program, num_restarts=num_restarts, tol=1e-7)


def chosen_mixture(
    covariance: str, nums_components: tuple[int, ...], num_restarts: int = 20
) -> Choice:
    """Return the mixtures of the wines side by side, by their number of components."""
    candidates = {k: mixture(covariance, k, num_restarts) for k in nums_components}
    return choose(candidates, jax.random.key(0), wines()[0], num_folds=NUM_FOLDS)


def agreement(choice: Choice, covariance: str, num_components: int) -> float:
    """Return the adjusted Rand index of a mixture's components and the cultivars: 1 is the same, 0
    is chance.
    """
    points, cultivars = wines()
    params = choice.candidates[num_components].result.params
    decoded = mixture(covariance, num_components, 1).decode(params, points)["component"]
    return float(adjusted_rand_score(cultivars, np.asarray(decoded)))


# ── counts ────────────────────────────────────────────────────────────────────────────────────────


class Truth(NamedTuple):
    """Where counts come from: the probability of each of `VALUES`, and how many clusters
    there are.
    """

    name: str
    probs: np.ndarray
    num_clusters: int


def poisson_probs(rate: float) -> np.ndarray:
    """Return the probability of each value."""
    return np.exp(np.asarray(dist.Poisson(rate).log_prob(VALUES)))


def spread_probs(mean: float, concentration: float) -> np.ndarray:
    """Return the probability of each value if rates vary within the cluster: a negative
    binomial.
    """
    return np.exp(np.asarray(dist.NegativeBinomial2(mean, concentration).log_prob(VALUES)))


def truths() -> tuple[Truth, Truth]:
    """Return a truth that is among the models, and one that is not: clusters wider than a
    Poisson's.
    """
    poisson = 0.4 * poisson_probs(3.0) + 0.35 * poisson_probs(9.0) + 0.25 * poisson_probs(18.0)
    spread = 0.6 * spread_probs(3.0, 8.0) + 0.4 * spread_probs(26.0, 40.0)
    return (
        Truth("three Poissons", poisson / poisson.sum(), 3),
        Truth("two clusters that are no Poissons", spread / spread.sum(), 2),
    )


def poisson_mixture(values: np.ndarray, count: np.ndarray, num_components: int) -> None:
    """A mixture of Poissons of a histogram: `values[i]` was seen `count[i]` times. Rates start at
    its quantiles.
    """
    share = jnp.cumsum(count) / jnp.sum(count)
    start = (
        jnp.interp(
            (jnp.arange(num_components) + 0.5) / num_components, share, jnp.asarray(values, float)
        )
        + 0.1
    )
    weights = numpyro.param(
        "weights", jnp.full(num_components, 1 / num_components), constraint=constraints.simplex
    )
    rate = numpyro.param(
        "rate", start + 0.01 * jnp.arange(num_components), constraint=constraints.positive
    )
    with numpyro.plate("values", len(values)), scale(scale=count):
        component = numpyro.sample("component", dist.Categorical(weights))
        numpyro.sample("value", dist.Poisson(rate[component]), obs=values)


@cache
def log_densities(num_components: int) -> Callable:
    """Return a function that fits histograms (…, value) by EM, to log p(value) and max_z log
    p(value, z) of each.
    """
    em = EM(partial(poisson_mixture, num_components=num_components))

    def fitted(count):
        state = em.init(jax.random.key(0), VALUES, count)
        state, _ = jax.lax.scan(
            lambda state, _: em.update(state, VALUES, count), state, length=NUM_STEPS
        )
        joint = jnp.log(state.params["weights"]) + dist.Poisson(state.params["rate"]).log_prob(
            VALUES[:, None]
        )
        return logsumexp(joint, axis=1), joint.max(axis=1)

    return jax.jit(jnp.vectorize(fitted, signature="(v)->(v),(v)"))


class Scores(NamedTuple):
    """What each criterion says of each model, {name: (data set, size, model)}, the lower the
    better; and the log-likelihood that new samples truly have, in nats a sample (data set, size,
    model).
    """

    losses: dict[str, np.ndarray]
    prediction: np.ndarray

    def chosen(self, name: str) -> np.ndarray:
        """Return how many components a criterion chooses, (data set, size)."""
        return self.losses[name].argmin(axis=-1) + 1

    def regret(self, name: str) -> np.ndarray:
        """Return what a choice loses to the best of the models, in nats a sample, (data
        set, size).
        """
        taken = np.take_along_axis(self.prediction, self.chosen(name)[..., None] - 1, axis=-1)[
            ..., 0
        ]
        return self.prediction.max(axis=-1) - taken


def simulated(truth: Truth, sizes: tuple[int, ...], num_data_sets: int) -> Scores:
    """Return the scores of mixtures of 1 … LARGEST Poissons on data sets of each size.

    A data set is a histogram, and so is what is left of it without a fold: all fits of a model are
    one call.
    """
    rng = np.random.default_rng(0)
    folds = np.array(
        [
            [rng.multinomial(n // NUM_FOLDS, truth.probs, size=NUM_FOLDS) for n in sizes]
            for _ in range(num_data_sets)
        ],
        dtype=float,
    )  # (data set, size, fold, value)
    whole = folds.sum(axis=2, keepdims=True)
    histograms = jnp.asarray(np.concatenate([whole, whole - folds], axis=2))
    losses: dict[str, list] = {name: [] for name in NAMES}
    prediction = []
    for num_components in range(1, LARGEST + 1):
        soft, hard = (np.asarray(table) for table in log_densities(num_components)(histograms))
        num_parameters, whole_count = 2 * num_components - 1, whole[:, :, 0]
        fit, log_size = (
            -2 * (whole_count * soft[:, :, 0]).sum(axis=-1),
            np.log(whole_count.sum(axis=-1)),
        )
        losses["AIC"].append(fit + 2 * num_parameters)
        losses["BIC"].append(fit + num_parameters * log_size)
        losses["ICL"].append(
            -2 * (whole_count * hard[:, :, 0]).sum(axis=-1) + num_parameters * log_size
        )
        losses["CV"].append(-2 * (folds * soft[:, :, 1:]).sum(axis=(-2, -1)))
        prediction.append((truth.probs * soft[:, :, 0]).sum(axis=-1))
    return Scores(
        {name: np.stack(own, axis=-1) for name, own in losses.items()},
        np.stack(prediction, axis=-1),
    )


# ── the experiment ────────────────────────────────────────────────────────────────────────────────


def run(figures: Path, quick: bool) -> None:
    """Print the tables, draw the figures."""
    choices = {"full": chosen_mixture("full", (1, 3) if quick else (1, 2, 3))}
    if not quick:
        choices["diagonal"] = chosen_mixture("diagonal", (3, 4, 5))
    print_wines(choices)
    draw_wines(figures / "wines.png", choices)
    if not quick:
        print_earthquakes()
    sizes = SIZES[:4] if quick else SIZES
    found = [(truth, simulated(truth, sizes, 20 if quick else 100)) for truth in truths()]
    for truth, scores in found:
        print_simulated(truth, scores, sizes)
    draw_simulated(figures / "simulated.png", found, sizes)


def print_wines(choices: dict[str, Choice]) -> None:
    """Print the mixtures of the wines side by side."""
    points, _ = wines()
    report.heading(
        f"{len(points)} wines of three cultivars, {points.shape[1]} measurements: how many "
        "Gaussians?"
    )
    for covariance, choice in choices.items():
        print(f"{covariance} covariance\n{choice}\n")
        chosen = {name: choice.chosen[name] for name in NAMES if name in choice.chosen}
        rows = [
            [name, k, held_out(choice.candidates[k]), f"{agreement(choice, covariance, k):.2f}"]
            for name, k in chosen.items()
        ]
        report.table(
            ["criterion", "components", "held-out (nats a wine)", "agreement with cultivars"],
            rows,
            caption="Agreement: the adjusted Rand index of components and cultivars; 1 is the "
            "same, 0 is chance.",
        )


def held_out(candidate: Candidate) -> str:
    """Return the held-out log-likelihood of a wine in nats, or a dash where the EM of a fold
    failed.
    """
    found = candidate.cross_validation
    return "–" if found.has_failed else f"{found.mean:.3f}"


def print_earthquakes() -> None:
    """Print the criteria of hidden Markov models of the yearly number of earthquakes."""
    report.heading("107 years of earthquakes: how many states?")
    rows = []
    for num_states in (1, 2, 3, 4):
        em = EM(
            partial(hidden_markov.poisson_program, num_states=num_states), num_restarts=5, tol=1e-10
        )
        result = em.run(jax.random.key(0), *earthquakes())
        values = criteria(em, result.params, *earthquakes(), num_samples=len(earthquakes()[0]))
        scores = (f"{value:.1f}" for value in (values.aic, values.bic, values.icl))
        rows.append(
            [num_states, f"{float(result.log_likelihood):.3f}", values.num_free_parameters, *scores]
        )
    report.table(
        ["states", "log-likelihood (nats)", "parameters", "AIC", "BIC", "ICL"],
        rows,
        caption="""One sequence is one element of its plate, so that nothing can be held out and
            what n is in BIC must be said: criteria(..., num_samples=107), the years.""",
    )


def print_simulated(truth: Truth, scores: Scores, sizes: tuple[int, ...]) -> None:
    """Print what each criterion chooses and loses, by the number of samples."""
    report.heading(f"Counts of {truth.name}: what is chosen, and what it costs")
    rows = []
    for i, n in enumerate(sizes):
        best = scores.prediction[:, i].argmax(axis=-1) + 1
        chosen = [f"{scores.chosen(name)[:, i].mean():.2f}" for name in NAMES]
        regrets = [f"{1000 * scores.regret(name)[:, i].mean():.2f}" for name in NAMES]
        rows.append([f"{n:,}", f"{best.mean():.2f}", *chosen, *regrets])
    report.table(
        ["samples", "predicts best", *NAMES, *(f"{name} loses" for name in NAMES)],
        rows,
        caption=f"""Mixtures of 1 to {LARGEST} Poissons, {len(scores.prediction)} data sets of each
            size, {truth.num_clusters} clusters in truth. The mean number of components that
            predicts new samples best, that each criterion chooses, and what its choice loses to the
            best, in nats for 1,000 new samples.""",
    )
    report.remark(verdict(scores, sizes))


def verdict(scores: Scores, sizes: tuple[int, ...]) -> str:
    """Return at which sizes BIC's choice predicts worse than that of cross-validation."""
    loses = {name: scores.regret(name).mean(axis=0) for name in NAMES}
    worse = [
        f"{n:,}" for n, bic, cv in zip(sizes, loses["BIC"], loses["CV"], strict=True) if bic > cv
    ]
    if len(worse) == len(sizes):
        return (
            "BIC predicts worse than cross-validation at every size: it stops before the density "
            "is right."
        )
    if not worse:
        return "BIC predicts at least as well as cross-validation at every size."
    return (
        f"BIC predicts worse than cross-validation only at {', '.join(worse)} samples, where it "
        "stops too early."
    )


def draw_wines(path: Path, choices: dict[str, Choice]) -> None:
    """Draw each criterion over the number of components."""
    points, _ = wines()
    with canvas.figure(
        path,
        "Where each component has 105 parameters for 178 wines, AIC takes all that it is offered",
        """Wines: the criteria of Gaussian mixtures in nats a wine, AIC, BIC and ICL divided by 2n,
        the lower the better; CV is minus the held-out log-likelihood, ± one standard error. Dots:
        each choice.
        """,
        height=3.4,
    ) as figure:
        for axes, (covariance, choice) in zip(
            np.atleast_1d(figure.subplots(1, len(choices))), choices.items(), strict=True
        ):
            draw_criteria(axes, choice, len(points))
            axes.set(
                title=f"{covariance} covariance",
                xlabel="components",
                xticks=list(choice.candidates),
            )
            axes.set_ylabel("nats a wine")


def draw_criteria(axes: Axes, choice: Choice, num_samples: int) -> None:
    """Draw the criteria of one family of models, and a dot on each choice."""
    for name in NAMES:
        losses = {
            k: own.losses[name] / (2 * num_samples)
            for k, own in choice.candidates.items()
            if name in own.losses
        }
        style = {"linewidth": 4, "alpha": 0.5} if name == "BIC" else {}  # ICL often lies on it
        axes.plot(list(losses), list(losses.values()), color=COLORS[name], label=name, **style)
        if name == "CV":
            errors = [
                choice.candidates[k].cross_validation.standard_error / num_samples for k in losses
            ]
            axes.errorbar(
                list(losses),
                list(losses.values()),
                errors,
                fmt="none",
                color=COLORS[name],
                linewidth=1,
            )
        if name in choice.chosen:
            size = 11 if name == "BIC" else 7
            axes.plot(
                choice.chosen[name],
                losses[choice.chosen[name]],
                "o",
                color=COLORS[name],
                markersize=size,
            )
    canvas.light_grid(axes)
    axes.legend()


def draw_simulated(path: Path, found: list[tuple[Truth, Scores]], sizes: tuple[int, ...]) -> None:
    """Draw the mean choice and the mean loss of each criterion over the number of samples."""
    with canvas.figure(
        path,
        "BIC finds the truth where it is a model; where none is true, it predicts worse than "
        "cross-validation",
        """Mixtures of Poissons. Left: how many components each criterion chooses on average;
        dashed, how many clusters there are; grey, how many predict best. Right: what the choice
        loses to the best. A spare component of little weight loses next to nothing.
        """,
        height=6.2,
    ) as figure:
        for (left, right), (truth, scores) in zip(figure.subplots(2, 2), found, strict=True):
            best = scores.prediction.argmax(axis=-1) + 1
            left.plot(
                sizes,
                best.mean(axis=0),
                color=canvas.GREY,
                linewidth=5,
                alpha=0.4,
                label="predicts best",
            )
            left.axhline(truth.num_clusters, color=canvas.GREY, linestyle="--", linewidth=1)
            for name in NAMES:
                left.plot(
                    sizes,
                    scores.chosen(name).mean(axis=0),
                    "o-",
                    color=COLORS[name],
                    markersize=4,
                    label=name,
                )
                loss = 1000 * scores.regret(name).mean(axis=0)
                right.plot(sizes, loss, "o-", color=COLORS[name], markersize=4, label=name)
            left.set(xscale="log", ylabel="components", title=f"{truth.name}: the choice")
            right.set(
                xscale="log", yscale="log", ylabel="nats for 1,000 samples", title="what it loses"
            )
            for axes in (left, right):
                axes.set_xlabel("samples")
                canvas.light_grid(axes)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5)
