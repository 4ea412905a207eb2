"""The joint table of a NumPyro program, by enumeration: the oracle that every other result answers
to.

Every element of every unobserved discrete site takes every value of its support
(`itertools.product`), the program runs at each joint assignment as it runs in simulation, and
NumPyro's own `log_prob` is summed over its sites. Nothing of emjax is imported. What the words mean
here:

- `handlers.mask`: a masked observation contributes 0; a masked latent element contributes
  -log(support size), so that it sums to one, as if it were not there.
- `handlers.scale` is a multiplicity: c copies of the row, latents included. A table of one copy
  cannot say that, so a scaled latent is refused: repeat the row. Where only observations are
  scaled, c copies given the same latents are c times the log-probability.
- An unobserved continuous site is a parameter. Its density is the prior's and no part of the
  likelihood.
- NumPyro's `scan` is the Python loop that it stands for: entry t of a site's values belongs to
  entry t of `xs`, also under `reverse=True`.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import handlers
from numpyro.distributions import (
    Distribution,
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
)
from numpyro.primitives import Messenger

from tests.oracles.by_numpy import evaluated


@dataclass(frozen=True)
class Latent:
    """An unobserved discrete site.

    - `support`: (support size,), its values in the order of `enumerate_support`.
    - `shape`: its elements: the plate shape, and any batch or event dimension without a plate.
    """

    support: np.ndarray
    shape: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)


def marginals(
    latents: dict[str, Latent], index: dict[str, np.ndarray], probability: np.ndarray
) -> dict[str, np.ndarray]:
    """The probability of each value of each element, of those of joint assignments."""
    found = {}
    for name, latent in latents.items():
        values = range(len(latent.support))
        each = [np.tensordot(probability, index[name] == k, 1) for k in values]
        found[name] = np.stack(each, -1)
    return found


@dataclass(frozen=True)
class JointTable:
    """log p(x, z | params) in nats at every joint assignment z.

    - `latents`: the latent sites, in program order.
    - `index`: for each latent, (assignment, *shape): the place in its support of each element's
      value.
    - `complete_log_likelihood`: (assignment,).
    - `log_prior`: log density of the continuous sample sites, zero where there is none.
    """

    latents: dict[str, Latent]
    index: dict[str, np.ndarray]
    complete_log_likelihood: np.ndarray
    log_prior: float

    @cached_property
    def log_likelihood(self) -> float:
        """log p(x | params), in nats; NaN where the density of any assignment is."""
        if np.isnan(self.complete_log_likelihood).any():
            return math.nan
        return float(np.logaddexp.reduce(self.complete_log_likelihood))

    @cached_property
    def probability(self) -> np.ndarray:
        """p(z | x, params) of each joint assignment."""
        if self.log_likelihood == -np.inf:
            raise ValueError(
                "the data have probability zero under these parameters: there is no posterior"
            )
        return np.exp(self.complete_log_likelihood - self.log_likelihood)

    @property
    def posterior(self) -> dict[str, np.ndarray]:
        """p(z_site = k | x, params) for each element: (*shape, support size)."""
        return marginals(self.latents, self.index, self.probability)

    def pairwise_posterior(self, name: str) -> np.ndarray:
        """p(z_t = i, z_{t+1} = j | x, params) of neighbors along a site's first axis: (T - 1,
        *rest, support, support).
        """
        now, then = self.index[name][:, :-1], self.index[name][:, 1:]
        values = range(len(self.latents[name].support))
        rows = [
            [np.tensordot(self.probability, (now == i) & (then == j), 1) for j in values]
            for i in values
        ]
        return np.moveaxis(np.array(rows), (0, 1), (-2, -1))

    @property
    def mode(self) -> dict[str, np.ndarray]:
        """The most probable joint assignment; the first of several."""
        best = int(np.argmax(self.complete_log_likelihood))
        return {
            name: latent.support[self.index[name][best]] for name, latent in self.latents.items()
        }

    @property
    def mode_log_likelihood(self) -> float:
        """log p(x, z | params) at the mode, in nats."""
        return float(np.max(self.complete_log_likelihood))

    @property
    def mode_gap(self) -> float:
        """By how many nats the mode beats the second best assignment; 0 where they tie."""
        if len(self.complete_log_likelihood) == 1:
            return math.inf
        second, first = np.partition(self.complete_log_likelihood, -2)[-2:]
        return float(first - second)

    def complete_log_likelihood_at(self, values: dict[str, np.ndarray]) -> float:
        """log p(x, z | params) at one assignment, given as site values, in nats."""
        row = np.ones(len(self.complete_log_likelihood), bool)
        for name, latent in self.latents.items():
            value = np.asarray(values[name])
            if value.shape != latent.shape:
                raise ValueError(
                    f"site {name!r} has shape {latent.shape}; the assignment gives it {value.shape}"
                )
            row &= (latent.support[self.index[name]] == value).reshape(len(row), -1).all(-1)
        if row.sum() != 1:
            raise ValueError(f"not one joint assignment of this program: {values}")
        return float(self.complete_log_likelihood[row][0])


def joint_table(
    model: Callable, params: dict, *args, vectorize: bool = True, **kwargs
) -> JointTable:
    """Return log p(x, z | params) for every z.

    `params` holds the constrained value of each `numpyro.param` and each unobserved continuous
    sample site. With `vectorize=False` the program runs once for each assignment on concrete
    values, which is slow.
    """
    if not jax.config.jax_enable_x64:
        raise ValueError("the oracle needs float64: jax.config.update('jax_enable_x64', True)")
    latents = latent_sites(model, params, *args, **kwargs)
    index = joint_assignments(latents)
    values = {name: latent.support[index[name]] for name, latent in latents.items()}

    def at(assignment):
        return complete_log_likelihood(model, params, assignment, *args, **kwargs)

    if not latents:
        log_likelihood, log_prior = (x[None] for x in evaluated(at, {}))
    elif vectorize:
        log_likelihood, log_prior = evaluated(jax.vmap(at), values)
    else:
        num_rows = len(next(iter(values.values())))
        rows = [at(jax.tree.map(itemgetter(i), values)) for i in range(num_rows)]
        log_likelihood, log_prior = (
            np.asarray(column, float) for column in zip(*rows, strict=True)
        )
    if not np.allclose(log_prior, log_prior[0], rtol=1e-12, atol=1e-12):
        raise ValueError(
            "the prior of a continuous site depends on a latent: it is no prior of a parameter"
        )
    return JointTable(latents, index, log_likelihood, float(log_prior[0]))


def latent_sites(model: Callable, params: dict, *args, **kwargs) -> dict[str, Latent]:
    """Return the unobserved discrete sites of a program, in program order."""
    shapes = {}

    def supports_and_scales():
        found = {}
        first = handlers.substitute(model, substitute_fn=first_of_support)
        for name, site in trace_of(first, params, *args, **kwargs).items():
            if site["type"] != "sample" or site["is_observed"] or name in params:
                continue
            law = site["fn"]
            if not law.support.is_discrete:
                raise ValueError(f"continuous site {name!r} needs a value in `params`")
            if not _element_law(law).has_enumerate_support:
                raise ValueError(f"latent site {name!r} has no finite support")
            shapes[name] = law.batch_shape + law.event_shape
            scale = 1.0 if site["scale"] is None else site["scale"]
            found[name] = jnp.ravel(_element_law(law).enumerate_support(expand=False)), scale
        return found

    found = evaluated(supports_and_scales)
    for name, (_, scale) in found.items():
        if np.any(np.asarray(scale) != 1):
            raise ValueError(
                f"latent site {name!r} is scaled: its copies differ, so repeat the rows instead"
            )
    return {name: Latent(np.asarray(found[name][0]), shape) for name, shape in shapes.items()}


def complete_log_likelihood(model: Callable, params: dict, latents: dict, *args, **kwargs) -> tuple:
    """Return log p(x, z | params) and log p(params), in nats, at concrete values of the
    latents z.
    """
    likelihood, prior = jnp.zeros(()), jnp.zeros(())
    for name, site in trace_of(model, {**params, **latents}, *args, **kwargs).items():
        if site["type"] != "sample":
            continue
        scale = 1.0 if site["scale"] is None else site["scale"]
        if name in latents:
            likelihood += jnp.sum(latent_log_prob(site["fn"], site["value"]))
        elif site["is_observed"]:
            likelihood += jnp.sum(scale * site["fn"].log_prob(site["value"]))
        else:
            prior += jnp.sum(scale * site["fn"].log_prob(site["value"]))
    return likelihood, prior


def expected_log_likelihood(model: Callable, params: dict, table: JointTable, *args, **kwargs):
    """Return Q(params | table's params) = Σ_z p(z | x) log p(x, z | params), in nats: a
    differentiable function.
    """
    values = {
        name: jnp.asarray(latent.support)[table.index[name]]
        for name, latent in table.latents.items()
    }
    likelihood = jax.vmap(lambda z: complete_log_likelihood(model, params, z, *args, **kwargs)[0])(
        values
    )
    possible = table.probability > 0  # 0 · log 0 is 0
    return jnp.sum(
        jnp.where(possible, table.probability * jnp.where(possible, likelihood, 0.0), 0.0)
    )


def joint_assignments(latents: dict[str, Latent]) -> dict[str, np.ndarray]:
    choices = [
        range(len(latent.support))
        for latent in latents.values()
        for _ in range(latent.num_elements)
    ]
    table = np.array(list(itertools.product(*choices)), dtype=int).reshape(
        math.prod(map(len, choices)), len(choices)
    )
    index, start = {}, 0
    for name, latent in latents.items():
        stop = start + latent.num_elements
        index[name] = table[:, start:stop].reshape((len(table),) + latent.shape)
        start = stop
    return index


def trace_of(model, values, *args, **kwargs):
    values = jax.tree.map(jnp.asarray, values)
    run = Unrolled(handlers.seed(handlers.substitute(model, data=values), jax.random.key(0)))
    with numpyro.validation_enabled(False):  # it costs as much as the program
        return handlers.trace(run).get_trace(*args, **kwargs)


def first_of_support(site):
    if (
        site["type"] == "sample"
        and not site["is_observed"]
        and _element_law(site["fn"]).has_enumerate_support
    ):
        support = jnp.ravel(_element_law(site["fn"]).enumerate_support(expand=False))
        return jnp.full(site["fn"].shape(), support[0])
    return None


def _element_law(law):
    """The distribution of one element, below what only repeats, groups or masks it."""
    while isinstance(law, (ExpandedDistribution, Independent, MaskedDistribution, Steps)):
        law = law.laws[0] if isinstance(law, Steps) else law.base_dist
    return law


def latent_log_prob(law, value):
    """log p(value) of each batch element, a masked one uniform over its support."""
    if isinstance(law, ExpandedDistribution):
        return latent_log_prob(law.base_dist, value)
    if isinstance(law, Independent):
        inner = latent_log_prob(law.base_dist, value)
        return jnp.sum(inner, axis=tuple(range(-law.reinterpreted_batch_ndims, 0)))
    if isinstance(law, MaskedDistribution):
        support = _element_law(law).enumerate_support(expand=False)
        uniform = -math.prod(law.event_shape) * math.log(len(support))
        return jnp.where(law._mask, latent_log_prob(law.base_dist, value), uniform)
    if isinstance(law, Steps):
        return jnp.stack([latent_log_prob(step, value[t]) for t, step in enumerate(law.laws)])
    return law.log_prob(value)


# Scans
# --------------------------------------------------------------------------------------------------


class Unrolled(Messenger):
    """Run each `scan` of a program as a Python loop, outside every handler that gives sites their
    values.

    As in NumPyro, the handlers inside the body see one step, and those outside see each site once,
    its steps stacked.
    """

    def process_message(self, msg):
        if msg["type"] != "control_flow":
            return
        body, carry, xs, length, reverse = msg["args"]
        length = len(jax.tree.leaves(xs)[0]) if length is None else length
        steps = [None] * length
        for t in reversed(range(length)) if reverse else range(length):
            step = handlers.seed(body, jax.random.key(t))
            for handler, values in msg["kwargs"]["substitute_stack"]:
                key = "condition_fn" if handler == "condition" else "substitute_fn"
                step = getattr(handlers, handler)(step, **{key: _values_at(values, t)})
            with handlers.block(), handlers.trace() as trace:
                carry, y = step(carry, jax.tree.map(itemgetter(t), xs))
            steps[t] = trace, y
        traces, ys = zip(*steps, strict=True)
        ys = jax.tree.map(
            lambda *entries: jnp.stack([jnp.asarray(entry) for entry in entries]), *ys
        )
        msg["value"] = (
            (length, None, carry),
            (_Trace({name: _stacked(traces, name) for name in traces[0]}), ys),
        )


class Steps(Distribution):
    """The distributions of one site at every step: batch shape (T, *batch)."""

    def __init__(self, laws):
        self.laws = laws
        super().__init__((len(laws), *laws[0].batch_shape), laws[0].event_shape)

    @property
    def support(self):
        return self.laws[0].support

    def log_prob(self, value):
        return jnp.stack([law.log_prob(value[t]) for t, law in enumerate(self.laws)])


@dataclass(frozen=True)
class _Trace:
    trace: dict


def _values_at(values, t: int) -> Callable:
    """A substitution of step t: entry t of a site's values, the parameters, or what a function says
    of the step's site.
    """

    def at(site):
        if callable(values):
            return values(site)
        value = values.get(site["name"])
        return value[t] if value is not None and site["type"] == "sample" else value

    return at


def _stacked(traces, name: str) -> dict:
    """The message of a site: its steps' values, distributions and scales, stacked."""
    sites = [trace[name] for trace in traces]
    message = {**sites[0], "_control_flow_done": True, "stop": False}
    if message["type"] in ("sample", "deterministic"):
        message["value"] = jnp.stack([jnp.asarray(site["value"]) for site in sites])
    if message["type"] == "sample":
        message["fn"] = Steps([site["fn"] for site in sites])
        if message["scale"] is not None:
            scales = [jnp.broadcast_to(site["scale"], site["fn"].batch_shape) for site in sites]
            message["scale"] = jnp.stack(scales)
    return message
