"""The programs, in the form that NumPyro enumerates, with their data and starts."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.ops.indexing import Vindex

from experiments.benchmarks.programs_gradients import poisson_chain
from experiments.hidden_markov import earthquakes as century


class Case(NamedTuple):
    """A program on data.

    - `start`: where EM starts, from whose end both chains of NUTS do.
    - `num_warmup`: how many chunks of draws adapt the kernel.
    - `num_rounds`: how many are kept.
    - `enumerated`: the program and its data in the form that NumPyro takes, where it takes another.
    - `chunk`: draws in one call.
    - `max_tree_depth`: a draw has 2^depth gradients at most.
    """

    name: str
    program: Callable
    data: tuple
    start: dict[str, Any]
    num_warmup: int
    num_rounds: int
    enumerated: tuple[Callable, tuple] | None = None
    chunk: int = 100
    max_tree_depth: int = 10


def markov_chain(counts, expected, least=1.0) -> None:
    """Counts (time, sequence), Poisson with the rate of a hidden state.

    `expected`: what the prior expects of each rate, give or take 5, so that labels do not switch:
    a chain that does has no effective draws to count. `least`: of Dirichlet's concentrations; above
    one, EM ends where no probability is zero, and NUTS can start there.
    """
    num_states = len(expected)
    states = np.ones(num_states)
    initial = numpyro.sample("initial", dist.Dirichlet(2 * states))
    concentration = least * states + np.diag(states)
    transition = numpyro.sample("transition", dist.Dirichlet(concentration).to_event(1))
    rate = numpyro.sample("rate", dist.Gamma(expected**2 / 25, expected / 25).to_event(1))
    poisson_chain(counts, initial, transition, rate)


def annotator_priors(num_annotators, num_classes):
    """Return confusion (annotator, class, class) and prevalence; annotators are mostly right."""
    mostly_right = np.ones((num_annotators, num_classes, num_classes)) + 2 * np.eye(num_classes)
    confusion = numpyro.sample("confusion", dist.Dirichlet(mostly_right).to_event(2))
    return confusion, numpyro.sample("prevalence", dist.Dirichlet(2 * np.ones(num_classes)))


def annotators(position, labels) -> None:
    """Dawid & Skene's model: labels (item, position), of the annotator at each position."""
    confusion, prevalence = annotator_priors(num_annotators=5, num_classes=4)
    with numpyro.plate("items", len(labels), dim=-2):
        truth = numpyro.sample(
            "truth", dist.Categorical(prevalence), infer={"enumerate": "parallel"}
        )
        with numpyro.plate("positions", len(position), dim=-1):
            probs = Vindex(confusion)[position, truth, :]
            numpyro.sample("label", dist.Categorical(probs), obs=labels)


def earthquakes() -> Case:
    """Return three states on the yearly counts of 1900–2006."""
    counts, _ = century.data()
    program = partial(markov_chain, expected=century.start(3)["rate"])
    return Case("earthquakes", program, (counts,), century.start(3), 5, 20)


def long_chain() -> Case:
    """Return sixteen states on eight simulated sequences of 500 steps.

    Trees of 31 gradients: NumPyro would take hours for 1,500 draws.
    """
    rng, num_states = np.random.default_rng(0), 16
    rate = np.linspace(5, 155, num_states)
    states = (
        np.arange(500)[:, None] // 5 + rng.integers(0, num_states, (100, 8)).repeat(5, 0)
    ) % 16
    program = partial(markov_chain, expected=rate, least=1.1)
    start = {
        "initial": np.full(num_states, 1 / num_states),
        "transition": (np.eye(num_states) + 1 / num_states) / 2,
        "rate": rate,
    }
    data = (rng.poisson(rate[states]),)
    return Case("16 states × 500 × 8", program, data, start, 4, 5, chunk=10, max_tree_depth=5)


def annotations() -> Case:
    """Return 45 items, labeled seven times by five annotators, who are right in 70 to 90 %.

    Simulated, of the size of the anesthetists' in Dawid & Skene (1979).
    """
    rng, position = np.random.default_rng(0), np.array([0, 0, 0, 1, 2, 3, 4])
    right = np.linspace(0.7, 0.9, 5)[:, None, None]
    confusion = right * np.eye(4) + (1 - right) / 3 * (1 - np.eye(4))
    truth = rng.choice(4, 45, p=[0.4, 0.4, 0.1, 0.1])
    gumbel = rng.gumbel(size=(45, 7, 4))
    labels = np.argmax(np.log(confusion[position[None], truth[:, None]]) + gumbel, -1)
    start = {"prevalence": np.full(4, 0.25), "confusion": (confusion + 0.25) / 2}
    return Case("annotators", annotators, (position, labels), start, 5, 20)
