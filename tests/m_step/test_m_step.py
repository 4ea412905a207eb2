"""Each maximizer against the definition: after one update, no nearby parameters have a larger Q(θ |
θ₀).

A case is a mixture of two components, so that its responsibilities and Q are three lines of
NumPyro's own `log_prob` and nothing of the engine. How far an update is from the maximum of Q is
the length of a Newton step from it, in unconstrained coordinates.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.distributions import biject_to, constraints
from numpyro.infer import init_to_value
from numpyro.ops.indexing import Vindex

from emjax import EM, EMState, Family, Status, register
from emjax.conjugate import RATE, SIMPLEX_LOGITS, UNIT_INTERVAL_LOGITS
from emjax.distributions import Select

FAST_COMPILATION = {"xla_backend_optimization_level": 0}  # a step of a small program runs once
NUM_ROWS = 40
REAL, POSITIVE, UNIT, SIMPLEX = (
    constraints.real,
    constraints.positive,
    constraints.unit_interval,
    constraints.simplex,
)
VECTOR, DEFINITE, CHOLESKY = (
    constraints.real_vector,
    constraints.positive_definite,
    constraints.lower_cholesky,
)
WEIGHTS = {"weights": (np.array([0.4, 0.6]), SIMPLEX)}


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    yield
    jax.clear_caches()


@dataclass(frozen=True, eq=False)
class Mixture:
    """Rows x ~ law(z, data, **params), z ~ Categorical(weights(params)) in {0, 1}.

    - `start`: for each parameter its start, at which Q is taken, and its constraint; `weights` are
      added.
    - `methods`: how the plan says that each is maximized; "closed form" if it is not named.
    - `priors`: for each parameter under a prior, that prior.
    - `in_turn`: parameters that are maximized one after the other, in this order (ECM); all others
      jointly.
    """

    law: Callable
    start: dict
    data: dict
    methods: dict = field(default_factory=dict)
    weights: Callable = lambda params: params["weights"]
    priors: dict = field(default_factory=dict)
    in_turn: tuple = ()

    def __post_init__(self):
        object.__setattr__(self, "start", WEIGHTS | self.start)

    @property
    def params(self):
        return {name: jnp.asarray(value) for name, (value, _) in self.start.items()}

    def program(self, data):
        params = {
            name: numpyro.sample(name, self.priors[name])
            if name in self.priors
            else numpyro.param(name, jnp.asarray(value), constraint=constraint)
            for name, (value, constraint) in self.start.items()
        }
        with numpyro.plate("rows", NUM_ROWS):
            z = numpyro.sample("z", dist.Categorical(self.weights(params)))
            numpyro.sample("x", self.law(z, data, **params), obs=data["x"])

    def log_joint(self, params):
        """Return log p(x_n, z_n = k | params): (row, component)."""
        laws = [self.law(jnp.full(NUM_ROWS, k), self.data, **params) for k in range(2)]
        rows = jnp.stack([law.log_prob(self.data["x"]) for law in laws], axis=-1)
        return jnp.log(self.weights(params)) + rows

    def log_prior(self, params):
        return sum(
            (jnp.sum(prior.log_prob(params[name])) for name, prior in self.priors.items()),
            jnp.zeros(()),
        )

    def objective(self, params):
        """Return log p(x | params) + log p(params), in nats."""
        return jax.nn.logsumexp(self.log_joint(params), axis=1).sum() + self.log_prior(params)

    def expected_log_likelihood(self, params, entering):
        """Return Q(params | entering) + log p(params), in nats."""
        responsibilities = jax.nn.softmax(self.log_joint(entering), axis=1)
        return (responsibilities * self.log_joint(params)).sum() + self.log_prior(params)

    @cached_property
    def oracle(self):
        """Two functions of unconstrained parameters: the objective, and the slope of Q at the first
        given the second.
        """
        start = {
            name: biject_to(constraint).inv(jnp.asarray(value))
            for name, (value, constraint) in self.start.items()
        }
        flat, restore = ravel_pytree(start)

        def constrained(vector):
            return {
                name: biject_to(self.start[name][1])(value)
                for name, value in restore(vector).items()
            }

        @partial(jax.jit, compiler_options=FAST_COMPILATION)
        def oracle(vector):
            with numpyro.validation_enabled(False):
                slope = jax.grad(
                    lambda v: self.expected_log_likelihood(constrained(v), constrained(flat))
                )(vector)
                return self.objective(constrained(vector)), slope

        return oracle, restore

    def unconstrained(self, params):
        """Return the parameters as one vector, in the order of `oracle`."""
        return ravel_pytree(
            {name: biject_to(self.start[name][1]).inv(params[name]) for name in self.start}
        )[0]

    def distance_to_maximum(self, params, names):
        """Return the largest entry of the Newton step from `params` to the maximum of Q over
        `names`, from the start.

        Curvature is a difference of slopes, at an error of 1e-10 / 1e-5 relative to it, and so is
        that of the step.
        """
        oracle, restore = self.oracle
        vector = np.asarray(self.unconstrained(params))
        numbers = restore(jnp.arange(float(len(vector))))
        free = np.concatenate([np.ravel(numbers[name]) for name in names]).astype(int)
        slope = np.asarray(oracle(vector)[1])[free]
        steps = 1e-5 * np.eye(len(vector))[free]
        curvature = np.stack(
            [np.asarray(oracle(vector + h)[1] - oracle(vector - h)[1])[free] / 2e-5 for h in steps]
        )
        values, vectors = np.linalg.eigh((curvature + curvature.T) / 2)
        assert values.max() <= 1e-6 * abs(values).max(), "Q curves up: this is no maximum"
        bent = (
            values < -1e-6 * abs(values).max()
        )  # logits may move together without changing anything
        return np.abs(vectors[:, bent] @ ((vectors.T @ slope)[bent] / values[bent])).max(initial=0)


def updated(case, **settings):
    """Return the plan of a case, and its parameters after one EM step from its start."""
    em = EM(case.program, init=init_to_value(values=case.params), **settings)
    state = em.init(jax.random.key(0), case.data)
    state, _ = jax.jit(
        lambda state: em.update(state, case.data), compiler_options=FAST_COMPILATION
    )(state)
    return em.plan(case.data), state.params


def data_of(x, **others):
    return {name: jnp.asarray(value) for name, value in {"x": x, **others}.items()}


RNG = np.random.default_rng(20)
GROUP = RNG.integers(0, 3, NUM_ROWS)
FEATURES = RNG.normal(size=(NUM_ROWS, 2))
REALS = np.where(
    RNG.uniform(size=NUM_ROWS) < 0.4, RNG.normal(-1, 0.7, NUM_ROWS), RNG.normal(2, 1.3, NUM_ROWS)
)
POSITIVES = np.where(
    RNG.uniform(size=NUM_ROWS) < 0.4, RNG.gamma(2, 0.5, NUM_ROWS), RNG.gamma(6, 0.8, NUM_ROWS)
)
COUNTS = np.where(
    RNG.uniform(size=NUM_ROWS) < 0.4, RNG.poisson(1.5, NUM_ROWS), RNG.poisson(5, NUM_ROWS)
)
FEW = RNG.binomial(6, np.where(RNG.uniform(size=NUM_ROWS) < 0.4, 0.3, 0.8))
BITS = RNG.integers(0, 2, NUM_ROWS)
LABELS = RNG.integers(0, 3, NUM_ROWS)
WORDS = RNG.multinomial(8, RNG.dirichlet(np.ones(3), NUM_ROWS))
FRACTIONS = RNG.beta(2, 3, NUM_ROWS)
COMPOSITIONS = RNG.dirichlet([2.0, 3.0, 1.5], NUM_ROWS)
POINTS = RNG.normal(size=(NUM_ROWS, 2)) @ np.array([[1.0, 0.4], [0.0, 0.8]]) + REALS[:, None]

PROBS, LOGITS = (np.array([0.3, 0.6]), UNIT), (np.array([-0.8, 0.4]), REAL)
ROWS = (np.array([[0.2, 0.5, 0.3], [0.5, 0.1, 0.4]]), SIMPLEX)
ROW_LOGITS = (np.array([[0.2, -0.5, 0.3], [0.5, 0.1, -0.4]]), VECTOR)
RATES, LOCS, SCALES = (
    (np.array([1.0, 3.0]), POSITIVE),
    (np.array([-0.5, 1.5]), REAL),
    (np.array([0.8, 1.4]), POSITIVE),
)
CENTERS = (np.array([[-0.5, 0.1], [1.5, 1.0]]), VECTOR)
MATRICES = np.array([[[1.0, 0.2], [0.2, 0.7]], [[1.5, -0.3], [-0.3, 1.1]]])
FORMS = {
    "covariance_matrix": (MATRICES, DEFINITE),
    "precision_matrix": (np.linalg.inv(MATRICES), DEFINITE),
    "scale_tril": (np.linalg.cholesky(MATRICES), CHOLESKY),
}


def argument(law, name, **given):
    """Return a law whose argument `name` is looked up by the component."""
    return lambda z, data, **params: law(**given, **{name: params[name][z]})


FAMILIES = {
    "Bernoulli, probs": Mixture(argument(dist.Bernoulli, "probs"), {"probs": PROBS}, data_of(BITS)),
    "Bernoulli, logits": Mixture(
        argument(dist.Bernoulli, "logits"), {"logits": LOGITS}, data_of(BITS)
    ),
    "Binomial, probs": Mixture(
        argument(dist.Binomial, "probs", total_count=6), {"probs": PROBS}, data_of(FEW)
    ),
    "Binomial, logits": Mixture(
        argument(dist.Binomial, "logits", total_count=6), {"logits": LOGITS}, data_of(FEW)
    ),
    "Binomial, total counts of each row": Mixture(
        lambda z, data, probs, **_: dist.Binomial(data["flips"], probs[z]),
        {"probs": PROBS},
        data_of(FEW, flips=FEW + GROUP),
    ),
    "Geometric, probs": Mixture(
        argument(dist.Geometric, "probs"), {"probs": PROBS}, data_of(COUNTS)
    ),
    "Geometric, logits": Mixture(
        argument(dist.Geometric, "logits"), {"logits": LOGITS}, data_of(COUNTS)
    ),
    "NegativeBinomial, probs": Mixture(
        argument(dist.NegativeBinomialProbs, "probs", total_count=3.5),
        {"probs": PROBS},
        data_of(COUNTS),
    ),
    "NegativeBinomial, logits": Mixture(
        argument(dist.NegativeBinomialLogits, "logits", total_count=3.5),
        {"logits": LOGITS},
        data_of(COUNTS),
    ),
    "Categorical, probs": Mixture(
        argument(dist.Categorical, "probs"), {"probs": ROWS}, data_of(LABELS)
    ),
    "Categorical, logits": Mixture(
        argument(dist.Categorical, "logits"), {"logits": ROW_LOGITS}, data_of(LABELS)
    ),
    "Multinomial, probs": Mixture(
        argument(dist.Multinomial, "probs", total_count=8), {"probs": ROWS}, data_of(WORDS)
    ),
    "Multinomial, logits": Mixture(
        argument(dist.Multinomial, "logits", total_count=8), {"logits": ROW_LOGITS}, data_of(WORDS)
    ),
    "Poisson": Mixture(argument(dist.Poisson, "rate"), {"rate": RATES}, data_of(COUNTS)),
    "Exponential": Mixture(argument(dist.Exponential, "rate"), {"rate": RATES}, data_of(POSITIVES)),
    "Gamma": Mixture(
        lambda z, data, shape, rate, **_: dist.Gamma(shape[z], rate[z]),
        {"shape": (np.array([1.5, 4.0]), POSITIVE), "rate": RATES},
        data_of(POSITIVES),
        {"shape": "Newton", "rate": "Newton"},
    ),
    "Gamma of known shape": Mixture(
        lambda z, data, rate, **_: dist.Gamma(jnp.array([1.5, 4.0])[z], rate[z]),
        {"rate": RATES},
        data_of(POSITIVES),
    ),
    "Beta": Mixture(
        lambda z, data, a, b, **_: dist.Beta(a[z], b[z]),
        {"a": (np.array([1.5, 4.0]), POSITIVE), "b": (np.array([2.5, 2.0]), POSITIVE)},
        data_of(FRACTIONS),
        {"a": "Newton", "b": "Newton"},
    ),
    "Dirichlet": Mixture(
        argument(dist.Dirichlet, "concentration"),
        {
            "concentration": (
                np.array([[1.0, 2.0, 3.0], [3.0, 1.5, 1.0]]),
                constraints.independent(POSITIVE, 1),
            )
        },
        data_of(COMPOSITIONS),
        {"concentration": "Newton"},
    ),
    "Normal": Mixture(
        lambda z, data, loc, scale, **_: dist.Normal(loc[z], scale[z]),
        {"loc": LOCS, "scale": SCALES},
        data_of(REALS),
    ),
    "Normal, a million from the origin": Mixture(
        lambda z, data, loc, scale, **_: dist.Normal(loc[z], scale[z]),
        {"loc": (LOCS[0] + 1e6, REAL), "scale": SCALES},
        data_of(REALS + 1e6),
    ),
    "LogNormal": Mixture(
        lambda z, data, loc, scale, **_: dist.LogNormal(loc[z], scale[z]),
        {"loc": LOCS, "scale": SCALES},
        data_of(POSITIVES),
    ),
    "HalfNormal": Mixture(
        argument(dist.HalfNormal, "scale"), {"scale": SCALES}, data_of(POSITIVES)
    ),
} | {
    f"MultivariateNormal, {name}": Mixture(
        lambda z, data, loc, name=name, **params: dist.MultivariateNormal(
            loc[z], **{name: params[name][z]}
        ),
        {"loc": CENTERS, name: form},
        data_of(POINTS),
    )
    for name, form in FORMS.items()
}

WIRINGS = {
    "one scale for all": Mixture(
        lambda z, data, loc, scale, **_: dist.Normal(loc[z], scale),
        {"loc": LOCS, "scale": (np.array(1.1), POSITIVE)},
        data_of(REALS),
    ),
    "one covariance for all": Mixture(
        lambda z, data, loc, covariance, **_: dist.MultivariateNormal(loc[z], covariance),
        {"loc": CENTERS, "covariance": (MATRICES[0], DEFINITE)},
        data_of(POINTS),
    ),
    "where chooses between two parameters": Mixture(
        lambda z, data, first, second, scale, **_: dist.Normal(
            jnp.where(z == 0, first, second), scale[z]
        ),
        {"first": (np.array(-0.5), REAL), "second": (np.array(1.5), REAL), "scale": SCALES},
        data_of(REALS),
    ),
    "where chooses between a parameter and a number": Mixture(
        lambda z, data, rate, **_: dist.Poisson(jnp.where(z == 1, rate, 2.0)),
        {"rate": (np.array(4.0), POSITIVE)},
        data_of(COUNTS),
    ),
    "entries reversed": Mixture(
        lambda z, data, loc, scale, **_: dist.Normal(loc[1 - z], scale[::-1][z]),
        {"loc": LOCS, "scale": SCALES},
        data_of(REALS),
    ),
    "an index from the data": Mixture(
        lambda z, data, loc, **_: dist.Normal(loc[data["group"], z], 1.2),
        {"loc": (np.array([[-0.5, 1.5], [0.0, 2.0], [-1.0, 1.0]]), REAL)},
        data_of(REALS, group=GROUP),
    ),
    "an index from the data, scales too": Mixture(
        lambda z, data, loc, scale, **_: dist.Normal(loc[data["group"], z], scale[z]),
        {"loc": (np.array([[-0.5, 1.5], [0.0, 2.0], [-1.0, 1.0]]), REAL), "scale": SCALES},
        data_of(REALS, group=GROUP),
    ),
    "Vindex": Mixture(
        lambda z, data, probs, **_: dist.Categorical(Vindex(probs)[data["group"], z, :]),
        {"probs": (RNG.dirichlet(np.ones(3), (3, 2)), SIMPLEX)},
        data_of(LABELS, group=GROUP),
    ),
    "a parameter for each row that EM sums over": Mixture(
        lambda z, data, loc, **_: dist.Normal(
            jnp.stack([loc, jnp.zeros(3)])[z, data["group"]], 1.2
        ),
        {"loc": (np.array([0.5, 2.0, 1.0]), REAL)},
        data_of(REALS, group=GROUP),
    ),
    "to_event": Mixture(
        lambda z, data, loc, scale, **_: dist.Normal(loc[z], scale[z]).to_event(1),
        {"loc": CENTERS, "scale": (np.array([[0.8, 1.0], [1.4, 1.2]]), POSITIVE)},
        data_of(POINTS),
    ),
    "one scale for each component and every feature": Mixture(
        lambda z, data, loc, scale, **_: dist.Normal(loc[z], scale[z][..., None]).to_event(1),
        {"loc": CENTERS, "scale": SCALES},
        data_of(POINTS),
    ),
    "expand": Mixture(
        lambda z, data, rate, **_: (
            dist.Poisson(rate[z][..., None]).expand([NUM_ROWS, 2]).to_event(1)
        ),
        {"rate": RATES},
        data_of(np.stack([COUNTS, COUNTS[::-1]], axis=1)),
    ),
    "mask": Mixture(
        lambda z, data, loc, scale, **_: dist.Normal(loc[z], scale[z]).mask(data["known"]),
        {"loc": LOCS, "scale": SCALES},
        data_of(REALS, known=GROUP > 0),
    ),
    "mask inside to_event": Mixture(
        lambda z, data, loc, **_: dist.Normal(loc[z], 1.0).mask(data["known"]).to_event(1),
        {"loc": CENTERS},
        data_of(POINTS, known=POINTS > -1),
    ),
    "a location shared by components of unequal scale": Mixture(
        lambda z, data, loc, scale, **_: dist.Normal(loc, scale[z]),
        {"loc": (np.array(0.4), REAL), "scale": (np.array([0.6, 2.0]), POSITIVE)},
        data_of(REALS),
        in_turn=("loc", "scale"),
    ),
    "a center shared by components of unequal covariance": Mixture(
        lambda z, data, loc, covariance, **_: dist.MultivariateNormal(loc, covariance[z]),
        {
            "loc": (np.array([0.4, 0.2]), VECTOR),
            "covariance": (MATRICES * np.array([0.3, 2.0])[:, None, None], DEFINITE),
        },
        data_of(POINTS),
        in_turn=("loc", "covariance"),
    ),
}

COMPUTED = {
    "the exponential of a parameter": Mixture(
        lambda z, data, loc, log_scale, **_: dist.Normal(loc[z], jnp.exp(log_scale[z])),
        {"loc": LOCS, "log_scale": (np.array([-0.2, 0.3]), REAL)},
        data_of(REALS),
        {"log_scale": "Newton"},
    ),
    "the root of a parameter": Mixture(
        lambda z, data, loc, variance, **_: dist.Normal(loc[z], jnp.sqrt(variance[z])),
        {"loc": LOCS, "variance": (np.array([0.7, 1.9]), POSITIVE)},
        data_of(REALS),
        {"variance": "Newton"},
    ),
    "the softmax of a parameter": Mixture(
        lambda z, data, rate, scores, **_: dist.Poisson(rate[z]),
        {"rate": RATES, "scores": (np.array([0.3, -0.2]), VECTOR)},
        data_of(COUNTS),
        {"weights": "held", "scores": "Newton"},
        weights=lambda params: jax.nn.softmax(params["scores"]),
    ),
    "one number for both coins": Mixture(
        lambda z, data, bias, **_: dist.Binomial(6, jnp.stack([bias, 1 - bias])[z]),
        {"bias": (np.array(0.3), UNIT)},
        data_of(FEW),
        {"bias": "Newton"},
    ),
    "a linear regression": Mixture(
        lambda z, data, base, slope, scale, **_: dist.Normal(
            base[z] + (data["features"] * slope[z]).sum(-1), scale[z]
        ),
        {"base": LOCS, "slope": CENTERS, "scale": SCALES},
        data_of(REALS, features=FEATURES),
        {"base": "least squares", "slope": "least squares"},
    ),
    "a logistic regression": Mixture(
        lambda z, data, base, slope, **_: dist.Bernoulli(
            logits=base[z] + (data["features"] * slope[z]).sum(-1)
        ),
        {
            "base": (np.array([-0.3, 0.4]), REAL),
            "slope": (np.array([[0.5, -0.5], [-0.2, 0.3]]), VECTOR),
        },
        data_of(BITS, features=FEATURES),
        {"base": "Newton", "slope": "Newton"},
    ),
    "a Poisson regression": Mixture(
        lambda z, data, base, slope, **_: dist.Poisson(
            jnp.exp(base[z] + (data["features"] * slope[z]).sum(-1))
        ),
        {
            "base": (np.array([0.3, 1.4]), REAL),
            "slope": (np.array([[0.1, -0.1], [-0.2, 0.3]]), VECTOR),
        },
        data_of(COUNTS, features=FEATURES),
        {"base": "Newton", "slope": "Newton"},
    ),
    "Student's t": Mixture(
        lambda z, data, loc, scale, **_: dist.StudentT(4.0, loc[z], scale[z]),
        {"loc": LOCS, "scale": SCALES},
        data_of(REALS),
        {"loc": "L-BFGS", "scale": "L-BFGS"},
    ),
}

CONJUGATE = {
    "Beta": Mixture(
        argument(dist.Binomial, "probs", total_count=6),
        {"probs": PROBS},
        data_of(FEW),
        priors={"probs": dist.Beta(2.0, 5.0).expand([2])},
    ),
    "Beta of each": Mixture(
        argument(dist.Bernoulli, "probs"),
        {"probs": PROBS},
        data_of(BITS),
        priors={"probs": dist.Beta(jnp.array([2.0, 3.0]), jnp.array([5.0, 1.5]))},
    ),
    "Dirichlet": Mixture(
        argument(dist.Categorical, "probs"),
        {"probs": ROWS},
        data_of(LABELS),
        priors={
            "probs": dist.Dirichlet(jnp.array([2.0, 1.5, 3.0])).expand([2]),
            "weights": dist.Dirichlet(jnp.array([2.0, 4.0])),
        },
    ),
    "Gamma": Mixture(
        argument(dist.Poisson, "rate"),
        {"rate": RATES},
        data_of(COUNTS),
        priors={"rate": dist.Gamma(3.0, 2.0).expand([2])},
    ),
    "Gamma of an exponential": Mixture(
        argument(dist.Exponential, "rate"),
        {"rate": RATES},
        data_of(POSITIVES),
        priors={"rate": dist.Gamma(3.0, 2.0).expand([2])},
    ),
    "Exponential": Mixture(
        argument(dist.Poisson, "rate"),
        {"rate": RATES},
        data_of(COUNTS),
        priors={"rate": dist.Exponential(2.0).expand([2])},
    ),
    "Normal": Mixture(
        lambda z, data, loc, **_: dist.Normal(loc[z], 1.3),
        {"loc": LOCS},
        data_of(REALS),
        priors={"loc": dist.Normal(0.5, 0.4).expand([2])},
    ),
    "Normal of vectors": Mixture(
        lambda z, data, loc, **_: dist.Normal(loc[z], 1.3).to_event(1),
        {"loc": CENTERS},
        data_of(POINTS),
        priors={"loc": dist.Normal(0.5, 0.4).expand([2, 2]).to_event(1)},
    ),
    "MultivariateNormal": Mixture(
        lambda z, data, loc, **_: dist.MultivariateNormal(loc[z], jnp.asarray(MATRICES[0])),
        {"loc": CENTERS},
        data_of(POINTS),
        priors={"loc": dist.MultivariateNormal(jnp.zeros(2), jnp.asarray(MATRICES[1])).expand([2])},
    ),
    "Uniform": Mixture(
        argument(dist.Binomial, "probs", total_count=6),
        {"probs": PROBS},
        data_of(FEW),
        priors={"probs": dist.Uniform(0, 1).expand([2])},
    ),
}

OTHER_PRIORS = {
    "a Gamma prior of a scale": Mixture(
        lambda z, data, scale, **_: dist.Normal(0.5, scale[z]),
        {"scale": SCALES},
        data_of(REALS),
        {"scale": "Newton"},
        priors={"scale": dist.Gamma(3.0, 2.0).expand([2])},
    ),
    "a LogNormal prior of a rate": Mixture(
        argument(dist.Poisson, "rate"),
        {"rate": RATES},
        data_of(COUNTS),
        {"rate": "Newton"},
        priors={"rate": dist.LogNormal(0.0, 1.0).expand([2])},
    ),
    "a Normal prior of log-odds": Mixture(
        argument(dist.Bernoulli, "logits"),
        {"logits": LOGITS},
        data_of(BITS),
        {"logits": "Newton"},
        priors={"logits": dist.Normal(0.0, 1.5).expand([2])},
    ),
    "a Cauchy prior of a location": Mixture(
        lambda z, data, loc, **_: dist.Normal(loc[z], 1.3),
        {"loc": LOCS},
        data_of(REALS),
        {"loc": "Newton"},
        priors={"loc": dist.Cauchy(0.0, 2.0).expand([2])},
    ),
}

CASES = {
    f"{title}: {name}": case
    for title, cases in {
        "family": FAMILIES,
        "wiring": WIRINGS,
        "computed": COMPUTED,
        "conjugate prior": CONJUGATE,
        "other prior": OTHER_PRIORS,
    }.items()
    for name, case in cases.items()
}


every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@every_case
def test_an_update_is_the_maximum_of_the_expected_log_likelihood(case):
    plan, arrived = updated(case)
    assert {name: plan.method(name) for name in case.start} == {
        name: case.methods.get(name, "closed form") for name in case.start
    }
    before, after = (
        case.oracle[0](case.unconstrained(params))[0] for params in (case.params, arrived)
    )
    assert after > before
    iterative = (
        "L-BFGS" in case.methods.values()
    )  # a fixed number of steps of a quasi-Newton method
    tolerance = 1e-4 if iterative else 1e-8
    together = [
        name for name in case.start if name not in case.in_turn and plan.method(name) != "held"
    ]
    assert case.distance_to_maximum(arrived, together) < tolerance
    for i, name in enumerate(case.in_turn):
        not_yet = {later: case.params[later] for later in case.in_turn[i + 1 :]}
        assert case.distance_to_maximum({**arrived, **not_yet}, [name]) < tolerance


# ---------------------------------------------------------------- formulas


def responsibilities_of(case):
    return np.asarray(jax.nn.softmax(case.log_joint(case.params), axis=1))


def test_a_mixture_of_regressions_is_weighted_least_squares():
    case = COMPUTED["a linear regression"]
    _, arrived = updated(case)
    design, x = np.column_stack([np.ones(NUM_ROWS), FEATURES]), REALS
    for k, r in enumerate(responsibilities_of(case).T):
        root = np.sqrt(r)
        coefficients, *_ = np.linalg.lstsq(design * root[:, None], x * root)
        np.testing.assert_allclose(
            np.append(arrived["base"][k], arrived["slope"][k]), coefficients, rtol=1e-9
        )
        mean_square = r @ (x - design @ coefficients) ** 2 / r.sum()
        np.testing.assert_allclose(arrived["scale"][k], np.sqrt(mean_square), rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "x", "mean", "variance"),
    [
        (
            "a logistic regression",
            BITS,
            lambda eta: 1 / (1 + np.exp(-eta)),
            lambda mean: mean * (1 - mean),
        ),
        ("a Poisson regression", COUNTS, np.exp, lambda mean: mean),
    ],
    ids=["logistic", "Poisson"],
)
def test_a_mixture_of_generalized_regressions_is_reweighted_least_squares(name, x, mean, variance):
    """Iteratively reweighted least squares: McCullagh & Nelder (1989), section 2.5."""
    case = COMPUTED[name]
    _, arrived = updated(case)
    design = np.column_stack([np.ones(NUM_ROWS), FEATURES])
    for k, r in enumerate(responsibilities_of(case).T):
        coefficients = np.append(case.params["base"][k], case.params["slope"][k])
        for _ in range(30):
            mu = mean(design @ coefficients)
            fisher = design.T @ (design * (r * variance(mu))[:, None])
            coefficients = coefficients + np.linalg.solve(fisher, design.T @ (r * (x - mu)))
        np.testing.assert_allclose(
            np.append(arrived["base"][k], arrived["slope"][k]), coefficients, rtol=1e-8
        )


def test_conjugate_priors_add_what_the_textbook_says():
    """The modes of the conjugate posteriors: Gelman et al. (2013), Bayesian Data Analysis, chapter
    2.
    """

    def parts(name):
        case = CONJUGATE[name]
        return responsibilities_of(case), updated(case)[1]

    r, arrived = parts("Beta")
    np.testing.assert_allclose(
        arrived["probs"], (FEW @ r + 2 - 1) / (6 * r.sum(0) + 2 + 5 - 2), rtol=1e-12
    )
    r, arrived = parts("Dirichlet")
    counts = r.T @ np.eye(3)[LABELS] + [1.0, 0.5, 2.0]
    np.testing.assert_allclose(arrived["probs"], counts / counts.sum(1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(arrived["weights"], (r.sum(0) + [1, 3]) / (NUM_ROWS + 4), rtol=1e-12)
    r, arrived = parts("Gamma")
    np.testing.assert_allclose(arrived["rate"], (COUNTS @ r + 3 - 1) / (r.sum(0) + 2), rtol=1e-12)
    r, arrived = parts("Normal")
    precision, prior = r.sum(0) / 1.3**2, 1 / 0.4**2
    np.testing.assert_allclose(
        arrived["loc"], (REALS @ r / 1.3**2 + 0.5 * prior) / (precision + prior), rtol=1e-12
    )


# ---------------------------------------------------------------- constraints


def test_a_bound_that_binds_is_met_exactly_and_one_that_does_not_changes_nothing():
    free = Mixture(
        lambda z, data, scale, **_: dist.Normal(0.5, scale[z]), {"scale": SCALES}, data_of(REALS)
    )
    _, unbounded = updated(free)
    low, high = np.sort(unbounded["scale"])
    between = (low + high) / 2
    for constraint, expected in (
        (constraints.greater_than(between), np.maximum(unbounded["scale"], between)),
        (constraints.less_than(between), np.minimum(unbounded["scale"], between)),
        (constraints.greater_than(0.5 * low), unbounded["scale"]),
    ):
        case = replace(free, start={"scale": (SCALES[0], constraint)})
        np.testing.assert_array_equal(updated(case)[1]["scale"], expected)


LOW, HIGH = jnp.array([1.0, 4.0]), jnp.array([3.0, 8.0])
TABLE = jnp.array([[2.0, 5.0], [1.5, 7.0], [2.5, 4.5]])
PAIRS = jnp.array([[0.0, 9.0], [3.0, 5.0], [7.0, 1.0], [2.0, 12.0], [2.0, 6.0]])


def pairs_from(table, law):
    with numpyro.plate("rows", len(PAIRS)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.3, 0.2])))
        numpyro.sample("x", law(table[z]).to_event(1), obs=PAIRS)


@pytest.mark.parametrize(
    "constraint",
    [
        constraints.interval(LOW, HIGH),
        constraints.interval(LOW, 8.0),
        constraints.greater_than(LOW),
        constraints.less_than(HIGH),
    ],
    ids=["both", "an array and a number", "low", "high"],
)
@pytest.mark.parametrize(
    "law", [dist.Poisson, lambda loc: dist.Normal(loc, 1.0)], ids=["rate", "location"]
)
def test_each_column_of_a_table_may_have_bounds_of_its_own(law, constraint):
    def bounded(constraint):
        pairs_from(numpyro.param("table", TABLE, constraint=constraint), law)

    low, high = (
        getattr(constraint, "lower_bound", -np.inf),
        getattr(constraint, "upper_bound", np.inf),
    )
    maximizer = one_step(EM(partial(bounded, POSITIVE)))["table"]
    assert (maximizer != jnp.clip(maximizer, low, high)).any()
    em = EM(partial(bounded, constraint))
    assert em.plan().method("table") == "closed form" and "within [" in str(em.plan())
    np.testing.assert_allclose(one_step(em)["table"], jnp.clip(maximizer, low, high), rtol=1e-12)


def test_a_uniform_prior_may_have_an_array_for_one_bound_and_a_number_for_the_other():
    def flat():
        pairs_from(numpyro.param("table", TABLE, constraint=POSITIVE), dist.Poisson)

    def in_plates():
        with numpyro.plate("components", 3, dim=-2), numpyro.plate("coordinates", 2):
            table = numpyro.sample("table", dist.Uniform(LOW, 8.0))
        pairs_from(table, dist.Poisson)

    def as_event():
        pairs_from(
            numpyro.sample("table", dist.Uniform(LOW, 8.0).expand([3, 2]).to_event(2)), dist.Poisson
        )

    for program in (in_plates, as_event):
        em = EM(program, init=init_to_value(values={"table": TABLE}))
        np.testing.assert_allclose(
            one_step(em)["table"], jnp.clip(one_step(EM(flat))["table"], LOW, 8.0), rtol=1e-12
        )


def test_a_computed_location_may_have_bounds_for_each_entry():
    def program(x):
        shift = numpyro.param(
            "shift", jnp.array([2.0, 5.0]), constraint=constraints.greater_than(LOW)
        )
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", dist.Normal(2.0 * shift, 1.0).to_event(1), obs=x)

    em = EM(program)
    assert em.plan(PAIRS).method("shift") == "Newton"
    np.testing.assert_allclose(
        em.run(jax.random.key(0), PAIRS).params["shift"],
        jnp.maximum(PAIRS.mean(0) / 2, LOW),
        rtol=1e-4,
    )


# ---------------------------------------------------------------- what is shared, what is missing


def shared_by_two_sites(x, y):
    rate = numpyro.param("rate", jnp.array([1.0, 3.0]), constraint=POSITIVE)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
        numpyro.sample("x", dist.Poisson(rate[z]), obs=x)
        numpyro.sample("y", dist.Exponential(rate[z]), obs=y)


def one_step(em, *args):
    state = em.init(jax.random.key(0), *args)
    return jax.jit(lambda state: em.update(state, *args)[0], compiler_options=FAST_COMPILATION)(
        state
    ).params


def test_a_rate_shared_by_two_families_is_events_over_exposure_of_both():
    em = EM(shared_by_two_sites)
    r = em.posterior({"rate": jnp.array([1.0, 3.0])}, COUNTS, POSITIVES)["z"]
    assert em.plan(COUNTS, POSITIVES).method("rate") == "closed form"
    expected = (COUNTS @ r + r.sum(0)) / (r.sum(0) + POSITIVES @ r)
    np.testing.assert_allclose(one_step(em, COUNTS, POSITIVES)["rate"], expected, rtol=1e-12)


def test_a_location_of_vectors_and_of_numbers_is_the_mean_weighted_by_precision():
    covariance = np.array([[1.0, 0.5], [0.5, 2.0]])

    def program(x, y):
        loc = numpyro.param("loc", jnp.zeros(2))
        with numpyro.plate("vectors", len(x)):
            numpyro.sample("x", dist.MultivariateNormal(loc, covariance), obs=x)
        with numpyro.plate("numbers", len(y)):
            numpyro.sample("y", dist.Normal(loc, 1.0).to_event(1), obs=y)

    x, y = np.array([[1.0, 2.0], [3.0, 1.0]]), np.array([[0.0, 1.0], [4.0, 1.0], [2.0, 2.0]])
    em, precision = EM(program), np.linalg.inv(covariance)
    assert "a location and a location vector at once" in str(em.plan(x, y))
    expected = np.linalg.solve(2 * precision + 3 * np.eye(2), precision @ x.sum(0) + y.sum(0))
    np.testing.assert_allclose(one_step(em, x, y)["loc"], expected, rtol=1e-10)


def with_missing(x, is_known=None):
    loc = numpyro.param("loc", jnp.array([-0.5, 1.5]))
    scale = numpyro.param("scale", jnp.array([0.8, 1.4]), constraint=POSITIVE)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
        numpyro.sample("x", dist.Normal(loc[z], scale[z]), obs=x, obs_mask=is_known)


def test_a_row_that_obs_mask_says_is_missing_is_no_evidence():
    em, is_known = EM(with_missing), GROUP > 0
    here, expected = one_step(em, REALS, is_known), one_step(em, REALS[is_known])
    for name, value in expected.items():
        np.testing.assert_allclose(here[name], value, rtol=1e-12)


def test_rows_read_from_a_table_of_data_count_as_often_as_they_are_read():
    def program(y, index):
        mu = numpyro.param("mu", jnp.array(0.0))
        with numpyro.plate("rows", len(index)):
            numpyro.sample("x", dist.Normal(mu, 1.0), obs=y[index])

    arrived = one_step(EM(program), jnp.array([1.0, 5.0]), jnp.array([0, 0, 0, 1, 1]))
    np.testing.assert_allclose(arrived["mu"], 2.6, rtol=1e-12)  # (3 · 1 + 2 · 5) / 5


@pytest.mark.parametrize(
    "declare",
    [
        lambda low, high: numpyro.sample("loc", dist.Uniform(low, high)),
        lambda low, high: numpyro.sample("loc", dist.Uniform(low * jnp.ones(1), high).to_event(1))[
            0
        ],
        lambda low, high: numpyro.param(
            "loc", 0.5 * (low + high), constraint=constraints.interval(low, high)
        ),
    ],
    ids=["prior", "vector", "param"],
)
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_bounds_may_be_computed_from_data(declare, power):
    def program(x, y):
        loc = declare(x.min(), x.max())
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(loc**power, 1.0), obs=y)

    em = EM(program, tol=1e-13)
    for x, y, expected in (
        ([1.0, 2.0], [2.0, 3.0], 2.5 ** (1 / power) if power > 1 else 2.0),
        ([2.0, 4.0], [9.0, 8.0], 8.5 ** (1 / power) if power > 1 else 4.0),
    ):
        result = em.run(jax.random.key(0), jnp.array(x), jnp.array(y))
        np.testing.assert_allclose(np.ravel(result.params["loc"]), expected, rtol=1e-6)


# ---------------------------------------------------------------- derivatives that the program
# defines


def root_by_iteration(a):
    """Return √a by a loop, which has no reverse mode."""
    return jax.lax.while_loop(
        lambda y: jnp.any(jnp.abs(y * y - a) > 1e-13 * a), lambda y: 0.5 * (y + a / y), 1.0 + a
    )


root_vjp, root_vjp_once, root_jvp = (
    jax.custom_vjp(root_by_iteration),
    jax.custom_vjp(root_by_iteration),
    jax.custom_jvp(root_by_iteration),
)
root_vjp.defvjp(lambda a: (root_vjp(a),) * 2, lambda y, slope: (slope / (2 * y),))
root_vjp_once.defvjp(lambda a: (root_by_iteration(a),) * 2, lambda y, slope: (slope / (2 * y),))
root_jvp.defjvp(
    lambda primals, tangents: (root_jvp(*primals), tangents[0] / (2 * root_jvp(*primals)))
)


@pytest.mark.parametrize(
    "root",
    [root_vjp, root_vjp_once, root_jvp, lambda a: jax.vmap(root_vjp)(a)],
    ids=["vjp", "vjp once", "jvp", "vmap"],
)
def test_the_derivative_of_a_root_that_a_loop_finds_is_the_one_that_the_program_defines(root):
    def program():
        squares = numpyro.param("squares", RATES[0] ** 2, constraint=POSITIVE)
        groups = numpyro.param("groups", jnp.ones(3), constraint=POSITIVE)
        with numpyro.plate("rows", NUM_ROWS):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
            numpyro.sample("x", dist.Poisson(root(squares)[z]), obs=COUNTS)
            numpyro.sample("y", dist.Exponential(root(groups[GROUP])), obs=POSITIVES)

    em = EM(program)
    start = {"squares": RATES[0] ** 2, "groups": jnp.ones(3)}
    state, r = em.init(jax.random.key(0)), em.posterior(start)["z"]
    arrived = jax.jit(em.update)(state)[0].params
    assert em.plan().method("squares") == ("Newton" if root is root_jvp else "L-BFGS")
    tolerance = 1e-8 if em.plan().method("squares") == "Newton" else 1e-3  # some steps of L-BFGS
    np.testing.assert_allclose(arrived["squares"], (COUNTS @ r / r.sum(0)) ** 2, rtol=tolerance)
    rates = [(g == GROUP).sum() / POSITIVES[g == GROUP].sum() for g in range(3)]
    np.testing.assert_allclose(arrived["groups"], np.square(rates), rtol=tolerance)


# ---------------------------------------------------------------- maxima at infinity


@pytest.mark.parametrize("infinite", [np.inf, -np.inf])
def test_features_of_infinite_logits_and_their_gradients_are_finite(infinite):
    for form, value in (
        (UNIT_INTERVAL_LOGITS, jnp.array(infinite)),
        (SIMPLEX_LOGITS, jnp.array([0.3, infinite, -0.5])),
    ):
        assert all(np.isfinite(feature).all() for feature in form.features(value))
        assert np.isfinite(jax.jacobian(form.features)(value)).all()


def of_groups(concentration, kind):
    """Three entries under a prior: of `group` and `x`, in the second one outcome was never seen,
    and in the third nothing was.
    """

    def program(group, x):
        with numpyro.plate("entries", 3):
            if kind == "rate":
                value = numpyro.sample("value", dist.Gamma(concentration, 1.0))
            elif kind == "probability":
                value = numpyro.sample("value", dist.Beta(concentration, concentration))
            else:
                value = numpyro.sample("value", dist.Dirichlet(jnp.full(4, concentration)))
        with numpyro.plate("rows", len(x)):
            numpyro.sample(
                "x",
                {"rate": dist.Poisson, "probability": dist.Bernoulli, "simplex": dist.Categorical}[
                    kind
                ](value[group]),
                obs=x,
            )

    return EM(program)


GROUPS, OUTCOMES = (
    jnp.array([0] * 10 + [1] * 4),
    jnp.array([0, 1, 1, 2, 3, 0, 1, 1, 2, 3, 0, 0, 0, 0]),
)
SEEN = {"rate": OUTCOMES, "probability": OUTCOMES % 2, "simplex": OUTCOMES}
KEPT = {"rate": 2.0, "probability": 0.2, "simplex": np.array([0.1, 0.2, 0.3, 0.4])}


def from_kept(em, kind):
    """Return the state at which each of the three entries is the same, and the objective there and
    after a step.
    """
    start = EMState(
        {"value": jnp.array([KEPT[kind]] * 3)},
        em.init(jax.random.key(0), GROUPS, SEEN[kind]).optimizer,
    )
    update = jax.jit(em.update)
    state, before = update(start, GROUPS, SEEN[kind])
    return state, before, update(state, GROUPS, SEEN[kind])[1]


@pytest.mark.parametrize("concentration", [0.5, 0.999, 1.0, 1.001, 3.0])
@pytest.mark.parametrize("kind", SEEN)
def test_a_prior_is_climbed_within_its_support_even_where_it_is_infinite(kind, concentration):
    em = of_groups(concentration, kind)
    state, before, after = from_kept(em, kind)
    support = {"rate": constraints.nonnegative, "probability": UNIT, "simplex": SIMPLEX}[kind]
    assert support(state.params["value"]).all() and after >= before
    assert np.isposinf(after) == (
        concentration < 1
    )  # at the boundary, where no evidence keeps it away
    result = em.run(jax.random.key(0), GROUPS, SEEN[kind])
    assert result.status == (Status.NOT_FINITE if concentration < 1 else Status.CONVERGED)
    assert np.isfinite(result.objective).all()
    if kind != "rate":  # a rate of zero is no start
        assert (
            em.run(jax.random.key(0), GROUPS, SEEN[kind], init_params=state.params).status
            == result.status
        )


def test_counts_below_zero_are_zero_and_an_entry_without_any_is_kept():
    for kind, evidence in (
        ("probability", [5.5 / 9, 0.0]),
        ("simplex", [np.array([1.5, 3.5, 1.5, 1.5]) / 8, np.eye(4)[0]]),
    ):
        state, _, _ = from_kept(of_groups(0.5, kind), kind)
        np.testing.assert_allclose(state.params["value"], [*evidence, KEPT[kind]], rtol=1e-12)


def words(counts, by):
    rows = (
        numpyro.param("rows", jnp.array([[0.2, 0.3, 0.5], [0.5, 0.4, 0.1]]), constraint=SIMPLEX)
        if by == "probs"
        else numpyro.param("rows", jnp.log(jnp.array([[0.2, 0.3, 0.5], [0.5, 0.4, 0.1]])))
    )
    with numpyro.plate("documents", len(counts)):
        z = numpyro.sample("z", dist.Bernoulli(0.4))
        numpyro.sample("counts", dist.Multinomial(5, **{by: rows[z]}), obs=counts)


def test_logits_of_a_category_that_was_never_seen_are_those_of_probability_zero():
    counts = jnp.array([[3, 2, 0], [1, 4, 0], [0, 5, 0]])
    by_logits, by_probs = (
        EM(partial(words, by=by)).run(jax.random.key(0), counts) for by in ("logits", "probs")
    )
    assert by_logits.status == Status.CONVERGED
    np.testing.assert_allclose(
        jax.nn.softmax(by_logits.params["rows"]), by_probs.params["rows"], rtol=1e-12
    )
    np.testing.assert_allclose(by_logits.objective, by_probs.objective, rtol=1e-12)


def test_log_odds_of_what_always_happened_are_those_of_certainty():
    def program(x):
        numpyro.sample(
            "x",
            dist.Bernoulli(logits=numpyro.param("w", jnp.zeros(2))[:, None]).expand([2, 3]),
            obs=x,
        )

    em, x = EM(program), jnp.array([[1, 1, 1], [0, 0, 0]])
    result = em.run(jax.random.key(0), x)
    assert result.status == Status.CONVERGED and result.log_likelihood == 0
    np.testing.assert_array_equal(jax.nn.sigmoid(result.params["w"]), [1, 0])
    np.testing.assert_array_equal(
        jax.grad(lambda params: em.log_likelihood(params, x))(result.params)["w"], [0, 0]
    )


# ---------------------------------------------------------------- on request

REQUESTED = {
    "adam": optax.adam(0.1),
    "sgd, too fast": optax.sgd(100.0),
    "lbfgs": optax.lbfgs(),
}


@pytest.mark.parametrize("optimizer", REQUESTED.values(), ids=REQUESTED.keys())
def test_an_optax_optimizer_never_decreases_the_objective(optimizer):
    case = FAMILIES["Poisson"]
    em = EM(case.program, m_step={"rate": optimizer})
    plan = em.plan(case.data)
    assert plan.method("rate") == "optax" and plan.method("weights") == "closed form"
    state = em.init(jax.random.key(0), case.data)
    update = jax.jit(lambda state: em.update(state, case.data), compiler_options=FAST_COMPILATION)
    objectives = []
    for _ in range(30):
        state, objective = update(state)
        objectives.append(float(objective))
    assert np.all(np.diff(objectives) >= -1e-12 * np.abs(objectives[:-1]))
    assert objectives[-1] > objectives[0] + 0.1


def test_a_user_s_own_update_is_taken_where_it_helps_and_only_there():
    case = FAMILIES["Poisson"]
    ours = updated(case)[1]
    plan, halfway = updated(
        case, m_step={"rate": lambda rate, objective: (rate + ours["rate"]) / 2}
    )
    assert plan.method("rate") == "user"
    np.testing.assert_allclose(
        halfway["rate"], (case.params["rate"] + ours["rate"]) / 2, rtol=1e-12
    )
    _, stayed = updated(case, m_step={"rate": lambda rate, objective: 100 * rate})
    np.testing.assert_array_equal(stayed["rate"], case.params["rate"])


def test_what_nothing_observed_depends_on_is_held():
    case = replace(FAMILIES["Poisson"], start={"rate": RATES, "idle": (np.array([0.3, 0.7]), UNIT)})
    plan, arrived = updated(case)
    assert plan.method("idle") == "held"
    np.testing.assert_array_equal(arrived["idle"], [0.3, 0.7])
    assert "nothing observed depends on it" in str(plan)


def predicts(y):
    """Beside the data: a new mean, what it predicts, and whether that is large. Nothing observed
    depends on them.
    """
    m = numpyro.param("m", jnp.array(0.0))
    s = numpyro.param("s", jnp.array(1.0), constraint=POSITIVE)
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(m, s), obs=y)
    new = numpyro.sample("new", dist.Normal(m, s))
    predicted = numpyro.sample("predicted", dist.Normal(new, 1.0))
    numpyro.sample("is_large", dist.Bernoulli(logits=predicted))


def test_predictions_integrate_to_one_however_long_their_chain():
    y = jnp.array([1.0, 2.0, 5.0])
    em = EM(predicts)
    result = em.run(jax.random.key(0), y)
    np.testing.assert_allclose(result.params["s"], np.std(y), rtol=1e-9)
    np.testing.assert_allclose(
        result.log_likelihood, dist.Normal(np.mean(y), np.std(y)).log_prob(y).sum(), rtol=1e-12
    )
    plan = em.plan(y)
    assert plan.method("new") == plan.method("predicted") == "held"


@pytest.mark.parametrize(
    "law",
    [
        lambda t: Select((t > 0) * 1, [dist.Normal(0.0, 1.0), dist.Normal(3.0, 1.0)]),
        lambda t: dist.Normal(3.0, 1.0).mask(t > 0),
        lambda t: dist.Uniform(t, 9.0),
    ],
    ids=["index of Select", "mask", "support"],
)
def test_a_latent_that_an_observation_reads_is_no_prediction(law):
    def program(x):
        numpyro.sample("x", law(numpyro.sample("t", dist.Normal(0.5, 1.0))), obs=x)

    em = EM(program)
    for start in (0.7, -0.3):
        result = em.run(jax.random.key(0), jnp.array(2.0), init_params={"t": start})
        log_prior = dist.Normal(0.5, 1.0).log_prob(start)
        np.testing.assert_allclose(
            result.objective[0], law(jnp.array(start)).log_prob(2.0) + log_prior, rtol=1e-12
        )
        assert np.all(np.diff(result.objective) >= -1e-12) and result.status == Status.CONVERGED


# ---------------------------------------------------------------- priors of priors


def hierarchical(x, group):
    center = numpyro.sample("center", dist.Normal(0.0, 5.0))
    with numpyro.plate("groups", 3):
        loc = numpyro.sample("loc", dist.Normal(center, 0.8))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
        numpyro.sample("x", dist.Normal(loc[group] + 2.0 * z, 1.1), obs=x)


def test_a_hierarchical_prior_is_climbed_to_the_joint_mode():
    em = EM(hierarchical, tol=0.0, max_steps=300)
    result = em.run(
        jax.random.key(0), REALS, GROUP, init_params={"center": 0.5, "loc": jnp.zeros(3)}
    )
    assert np.all(np.diff(result.objective) >= -1e-12 * np.abs(result.objective[:-1]))
    center, loc = result.params["center"], np.asarray(result.params["loc"])
    shift = 2.0 * np.asarray(em.posterior(result.params, REALS, GROUP)["z"])[:, 1]
    for g in range(
        3
    ):  # each loc between its rows and the center; the center between the locs and zero
        rows = g == GROUP
        precision = rows.sum() / 1.1**2 + 1 / 0.8**2
        expected = ((REALS - shift)[rows].sum() / 1.1**2 + center / 0.8**2) / precision
        np.testing.assert_allclose(loc[g], expected, rtol=1e-5)
    np.testing.assert_allclose(center, loc.sum() / 0.8**2 / (3 / 0.8**2 + 1 / 5.0**2), rtol=1e-5)


# ---------------------------------------------------------------- a family of one's own


class Rayleigh(dist.Distribution):
    """log p(x | precision) = log x + log precision − precision x² / 2, for x > 0."""

    arg_constraints: ClassVar = {"precision": POSITIVE}
    support = POSITIVE

    def __init__(self, precision, *, validate_args=None):
        self.precision = precision
        super().__init__(jnp.shape(precision), (), validate_args=validate_args)

    def log_prob(self, value):
        return jnp.log(value) + jnp.log(self.precision) - 0.5 * self.precision * value**2


def test_a_registered_family_has_the_closed_form_it_states():
    case = Mixture(
        argument(Rayleigh, "precision"),
        {"precision": RATES},
        data_of(POSITIVES),
        {"precision": "L-BFGS"},
    )
    plan, climbed = updated(case)
    assert plan.method("precision") == "L-BFGS"
    register(
        Rayleigh,
        Family(
            {"precision": RATE},
            naturals=lambda precision: (precision[0], -precision[1]),
            statistics=lambda x: (1.0, 0.5 * x**2),
            base=lambda x: jnp.log(x),
            event_dims=(0, 0),
        ),
    )
    plan, arrived = updated(case)
    assert plan.method("precision") == "closed form"
    r = responsibilities_of(case)
    expected = r.sum(0) / (0.5 * POSITIVES**2 @ r)
    np.testing.assert_allclose(arrived["precision"], expected, rtol=1e-12)
    np.testing.assert_allclose(climbed["precision"], expected, rtol=1e-4)


# Tables whose rows are read out, one for each datum
# ---------------------------------------------------------------------------------------------


def test_entries_are_found_where_two_tables_of_as_many_rows_as_data_meet():
    def program(x, first, second):
        loc = numpyro.param("loc", jnp.array([0.0, 1.0, 2.0]))
        scale = numpyro.param("scale", jnp.array([1.0, 2.0, 3.0]), constraint=constraints.positive)
        with numpyro.plate("rows", 3):
            numpyro.sample("x", dist.Normal(loc[first], scale[second]), obs=x)

    x, first, second = jnp.array([10.0, 20.0, 31.0]), jnp.array([2, 0, 1]), jnp.array([1, 2, 0])
    em = EM(program, m_step={"loc": lambda value, objective: value})
    state, _ = em.update(em.init(jax.random.key(0), x, first, second), x, first, second)
    np.testing.assert_allclose(
        state.params["scale"], [30.0, 8.0, 20.0], rtol=1e-12
    )  # |x − loc| of the one datum that reads it
