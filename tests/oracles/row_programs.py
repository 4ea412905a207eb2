"""Programs whose rows are independent, and programs that mix rows or count them.

Each takes x (rows, 2), y (rows,) in 0 … 2 and item (rows,) in 0 … 3, and has a plate "n" of rows.
`ALLOWED` may run on more rows of which some have multiplicity zero; of `REFUSED`, which may not,
each stands beside what is to be said of it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints

from emjax.distributions import PartiallyObserved, Select

N, PADDED, K = 5, 8, 3


def location(shape=(K,)):
    return numpyro.param("loc", jnp.linspace(-1.0, 1.0, int(np.prod(shape))).reshape(shape))


def chosen():
    """Return a latent of the plate that it is in."""
    weights = numpyro.param("w", jnp.array([0.2, 0.5, 0.3]), constraint=constraints.simplex)
    return numpyro.sample("z", dist.Categorical(weights))


ALLOWED: dict[str, Callable] = {}
REFUSED: dict[str, tuple[Callable, str]] = {}


def allowed(model: Callable) -> Callable:
    ALLOWED[model.__name__] = model
    return model


def refused(reason: str) -> Callable:
    """Return a decorator that notes a program and what is to be said of it."""

    def decorated(model):
        REFUSED[model.__name__] = model, reason
        return model

    return decorated


# ── may be padded ─────────────────────────────────────────────────────────────────────────────────


@allowed
def mixture(x, y, item):
    loc = location((K, 2))
    scale_tril = numpyro.param(
        "L", jnp.stack([jnp.eye(2)] * K), constraint=constraints.lower_cholesky
    )
    with numpyro.plate("n", len(x)):
        z = chosen()
        numpyro.sample("x", dist.MultivariateNormal(loc[z], scale_tril=scale_tril[z]), obs=x)


@allowed
def mixture_of_one_covariance(x, y, item):
    loc = location((K, 2))
    scale_tril = numpyro.param("L", jnp.eye(2), constraint=constraints.lower_cholesky)
    with numpyro.plate("n", len(x)):
        numpyro.sample("x", dist.MultivariateNormal(loc[chosen()], scale_tril=scale_tril), obs=x)


@allowed
def independent_coordinates_masked_and_scaled(x, y, item):
    loc = location((K, 2))
    with numpyro.plate("n", len(x)), handlers.scale(scale=1.0 + y):
        z = chosen()
        with handlers.mask(mask=item > 0):
            numpyro.sample("x", dist.Normal(loc[z], 1.0).mask(x < 1).to_event(1), obs=x)


@allowed
def missing_coordinates(x, y, item):
    loc = location((K, 2))
    observed = jnp.stack([y > 0, item > 0], -1)
    with numpyro.plate("n", len(x)):
        normal = dist.MultivariateNormal(loc[chosen()], jnp.eye(2))
        numpyro.sample("x", PartiallyObserved(normal, observed=observed), obs=x)


@allowed
def labels_of_items(x, y, item):
    """The form of Dawid & Skene: a row for each label."""
    confusion = numpyro.param(
        "confusion", (jnp.eye(K) + 1) / (K + 1), constraint=constraints.simplex
    )
    with numpyro.plate("items", 4):
        z = chosen()
    with numpyro.plate("n", len(x)):
        numpyro.sample("y", dist.Categorical(confusion[z[item]]), obs=y)


@allowed
def labels_with_a_latent_each(x, y, item):
    """A label is a guess, or says what its item is."""
    with numpyro.plate("items", 4):
        z = chosen()
    with numpyro.plate("n", len(x)):
        is_guess = numpyro.sample("is_guess", dist.Bernoulli(0.3))
        certain = 0.9 * jnp.eye(K)[z[item]] + 0.1 / K
        probs = jnp.where(is_guess[:, None] == 1, 1 / K, certain)
        numpyro.sample("y", dist.Categorical(probs), obs=y)


@allowed
def regression_with_a_prior(x, y, item):
    slope = numpyro.sample("slope", dist.Normal(0, 1).expand([2]).to_event(1))
    effect = numpyro.sample("effect", dist.Normal(0, 1).expand([4]).to_event(1))
    design = jnp.stack([x[:, 0], x[:, 0] ** 2], axis=1)
    with numpyro.plate("n", len(x)):
        mean = design @ slope + effect[item] + (x[:, None, :] * x[:, :, None]).sum((1, 2))
        numpyro.sample("x", dist.Normal(mean, 2.0), obs=x[:, 1])


@allowed
def coordinates_in_an_inner_plate(x, y, item):
    loc = location((K, 2))
    with numpyro.plate("n", len(x), dim=-2):
        z = chosen()
        with numpyro.plate("d", 2, dim=-1):
            numpyro.sample("x", dist.Normal(loc[z, jnp.arange(2)], 1.0), obs=x)


@allowed
def coordinates_in_an_outer_plate(x, y, item):
    loc = location((2, K))
    weights = numpyro.param("w", jnp.full((2, 1, K), 1 / K), constraint=constraints.simplex)
    with numpyro.plate("d", 2, dim=-2), numpyro.plate("n", len(x), dim=-1):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[jnp.arange(2)[:, None], z], 1.0), obs=x.T)


@allowed
def a_choice_of_distributions(x, y, item):
    loc = location()
    with numpyro.plate("n", len(x)):
        z = chosen()
        choices = [dist.Normal(loc[0], 1), dist.Normal(loc[1], 2), dist.Laplace(0, 1)]
        numpyro.sample("x", Select(z, choices), obs=x[:, 0])


@allowed
def a_written_out_mixture(x, y, item):
    weights = numpyro.param("w", jnp.full(K, 1 / K), constraint=constraints.simplex)
    components = dist.Normal(location(), 1.0)
    with numpyro.plate("n", len(x)):
        mixed = dist.MixtureSameFamily(dist.Categorical(weights), components)
        numpyro.sample("x", mixed, obs=x[:, 0])


@allowed
def sequences_side_by_side(x, y, item):
    transition = numpyro.param("A", jnp.full((K, K), 1 / K), constraint=constraints.simplex)
    loc = location()

    def step(previous, x):
        with numpyro.plate("n", x.shape[0]):
            z = numpyro.sample("z", dist.Categorical(transition[previous]))
            numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)
        return z, None

    scan(step, jnp.zeros(len(x), int), x.T)


@allowed
def a_softmax_of_covariates(x, y, item):
    weight = numpyro.param("weight", jnp.linspace(-1, 1, 2 * K).reshape(2, K))
    loc = location()
    with numpyro.plate("n", len(x)):
        z = numpyro.sample("z", dist.Categorical(logits=jax.nn.log_softmax(x @ weight)))
        numpyro.sample("x", dist.Normal(loc[z], jax.nn.relu(x[:, 0]) + 1), obs=x[:, 1])


@allowed
def constants_of_rows(x, y, item):
    loc = location()
    with numpyro.plate("n", len(x)):
        offset = np.full(len(x), 0.5) + jnp.ones(len(x))
        numpyro.sample("x", dist.Normal(loc[chosen()] + offset, 1.0), obs=x[:, 0])


@allowed
def covariances_of_rows(x, y, item):
    noise = numpyro.param("noise", jnp.array(1.0), constraint=constraints.positive)
    with numpyro.plate("n", len(x)):
        covariance = x[:, :, None] * x[:, None, :] + noise * jnp.eye(2)
        mean = jnp.sort(jnp.cumsum(x, 1), 1)[:, ::-1]
        numpyro.sample("x", dist.MultivariateNormal(mean, covariance), obs=x)


# ── may not ───────────────────────────────────────────────────────────────────────────────────────


def normal_around(mean: Callable) -> Callable:
    """Return a program whose rows have locations that are computed by a function of x."""

    def model(x, y, item):
        loc = location()
        with numpyro.plate("n", len(x)):
            numpyro.sample("x", dist.Normal(loc[chosen()] + mean(x[:, 0]), 1.0), obs=x[:, 1])

    return model


MEANS = {
    "mean": (lambda x: x.mean(), "reduce_sum does not keep rows apart"),
    "centered": (lambda x: x - x.mean(), "reduce_sum does not keep"),
    "largest": (lambda x: x.max(), "reduce_max does not keep"),
    "softmax": (lambda x: jax.nn.softmax(x), "reduce_max does not keep"),
    "cumsum": (lambda x: jnp.cumsum(x), "cumsum does not keep"),
    "sort": (lambda x: jnp.sort(x), "sort does not keep"),
    "argsort": (lambda x: jnp.argsort(x) * 0.1, "rows are numbered"),
    "reversed": (lambda x: x[::-1], "rev does not keep"),
    "first row": (lambda x: x[0], "slice does not keep"),
    "first rows": (lambda x: jnp.pad(x[:3], (0, len(x) - 3)), "slice does not keep"),
    "neighbors": (lambda x: x - jnp.pad(x[1:] - x[:-1], (1, 0)), "differ by more than rows"),
    "rolled": (lambda x: jnp.roll(x, 1), "differ"),
    "read at indices": (lambda x: x[jnp.array([0, 1, 2])].sum(), "number differs"),
    "pairwise": (lambda x: (x[:, None] @ x[None, :]).sum(1), "rows meet rows"),
    "inner product": (lambda x: x @ x, "dot_general does not keep"),
    "number of rows": (lambda x: x / len(x), "number differs"),
    "log of the number of rows": (lambda x: x + np.log(len(x)), "number differs"),
    "spaced": (lambda x: x + jnp.linspace(0, 1, len(x)), "differ"),
    "spaced, known": (lambda x: x + np.linspace(0, 1, len(x)), "number differs"),
    "joined": (lambda x: jnp.concatenate([x, x])[: len(x)], "differ by more"),
    "folded": (lambda x: jnp.stack([x, x]).T.reshape(-1)[: len(x)], "differ by more"),
    "scattered": (lambda x: x.at[0].set(0.0), "scatter"),
    "recursive": (
        lambda x: jax.lax.scan(lambda c, x: (0.5 * c + x,) * 2, 0.0, x)[1],
        "length of scan",
    ),
    "random": (
        lambda x: jax.random.normal(jax.random.key(1), x.shape),
        "random_bits",
    ),
    "as many steps as rows": (
        lambda x: jax.lax.fori_loop(0, len(x), lambda i, c: c + 0.1, 0.0),
        "length of scan differs",
    ),
    "a branch by the rows": (
        lambda x: jax.lax.cond(x.sum() > 0, lambda: 0.0, lambda: 1.0),
        "reduce_sum",
    ),
    "an ordering of events": (lambda x: jax.lax.top_k(x, 1)[0], "top_k"),
}
REFUSED |= {name: (normal_around(mean), reason) for name, (mean, reason) in MEANS.items()}


@refused("differ by more than rows")
def as_many_classes_as_rows_allow(x, y, item):
    with numpyro.plate("n", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.ones(len(x) // 2) / 2))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])


@refused("a parameter has rows")
def a_parameter_of_each_row(x, y, item):
    shift = numpyro.param("shift", jnp.zeros(len(x)))
    with numpyro.plate("n", len(x)):
        numpyro.sample("x", dist.Normal(shift, 1.0), obs=x[:, 0])


@refused("a parameter has rows")
def a_continuous_latent_of_each_row(x, y, item):
    with numpyro.plate("n", len(x)):
        shift = numpyro.sample("shift", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(shift, 1.0), obs=x[:, 0])


@refused("number differs")
def a_prior_that_shrinks(x, y, item):
    loc = numpyro.sample("loc", dist.Normal(0, 1 / len(x)))
    with numpyro.plate("n", len(x)):
        numpyro.sample("x", dist.Normal(loc, 1.0), obs=x[:, 0])


@refused("the numbers of")
def a_loop_over_rows(x, y, item):
    loc = location()
    for i in range(len(x)):
        numpyro.sample(f"x{i}", dist.Normal(loc, 1.0).to_event(1), obs=x[i, 0])
    with numpyro.plate("n", len(x)):
        numpyro.sample("x", dist.Normal(0, 1), obs=x[:, 0])


@refused("'y' is not weighted")
def rows_outside_of_the_plate(x, y, item):
    with numpyro.plate("n", len(x)):
        z = chosen()
    numpyro.sample("y", dist.Normal(z, 1.0), obs=x[:, 0])


@refused("'y' is not weighted")
def another_plate_of_as_many_rows(x, y, item):
    loc = location()
    with numpyro.plate("n", len(x)):
        numpyro.sample("x", dist.Normal(loc[chosen()], 1.0), obs=x[:, 0])
    with numpyro.plate("m", len(x)):
        numpyro.sample("y", dist.Normal(loc[0], 1.0), obs=x[:, 1])


@refused("'x' is not weighted")
def rows_within_an_event(x, y, item):
    loc = location()
    with numpyro.plate("d", 2):
        locs = loc[chosen()][:, None]
        numpyro.sample("x", dist.Normal(locs, 1.0).expand([2, len(x)]).to_event(1), obs=x.T)
    with numpyro.plate("n", len(x)):
        numpyro.sample("y", dist.Normal(0, 1), obs=x[:, 0])


@refused("number differs")
def items_that_rows_read(x, y, item):
    with numpyro.plate("n", len(x)):
        z = chosen()
    with numpyro.plate("labels", 4):
        numpyro.sample("y", dist.Normal(z[jnp.arange(4)], 1.0), obs=jnp.zeros(4))


@refused("gather does not keep")
def rows_in_an_order_of_the_data(x, y, item):
    with numpyro.plate("n", len(x)):
        z = chosen()
        read = jnp.take(z, item, mode="clip")
        numpyro.sample("y", dist.Normal(read, 1.0), obs=x[:, 0])


@refused("slice does not keep")
def a_chain_over_rows(x, y, item):
    transition = numpyro.param("A", jnp.full((K, K), 1 / K), constraint=constraints.simplex)

    def step(previous, x):
        z = numpyro.sample("z", dist.Categorical(transition[previous]))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)
        return z, None

    scan(step, 0, x[:, 0])
    with numpyro.plate("n", len(x)):
        numpyro.sample("y", dist.Normal(0, 1), obs=x[:, 1])


class OneNormal(dist.Normal):
    """A normal distribution."""


class AnotherNormal(dist.Normal):
    """One of the same density."""


@refused("'x' differs")
def another_distribution(x, y, item):
    law = OneNormal(0, 1) if len(x) == N else AnotherNormal(0, 1)
    with numpyro.plate("n", len(x)):
        numpyro.sample("x", law, obs=x[:, 0])


@refused("'loc' differs")
def bounds_by_the_number_of_rows(x, y, item):
    loc = numpyro.param("loc", jnp.array(0.5), constraint=constraints.interval(0, len(x)))
    with numpyro.plate("n", len(x)):
        numpyro.sample("x", dist.Normal(loc, 1.0), obs=x[:, 0])


@refused("rows are numbered")
def row_numbers(x, y, item):
    loc = location()
    with numpyro.plate("n", len(x)):
        trend = 0.1 * jnp.arange(len(x))
        numpyro.sample("x", dist.Normal(loc[chosen()] + trend, 1.0), obs=x[:, 0])


@refused("rows are told apart")
def known_row_numbers(x, y, item):
    loc = location()
    with numpyro.plate("n", len(x)):
        trend = 0.1 * np.arange(len(x))
        numpyro.sample("x", dist.Normal(loc[chosen()] + trend, 1.0), obs=x[:, 0])
