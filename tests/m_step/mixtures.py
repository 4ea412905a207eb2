"""Mixtures of two laws, by family, wiring, computation and prior, each with Q and its slope."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from numpyro.distributions import biject_to, constraints
from numpyro.infer import init_to_value
from numpyro.ops.indexing import Vindex

from emjax import EM
from tests.oracles.by_numpy import run

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

        def oracle(vector):
            with numpyro.validation_enabled(False):
                slope = jax.grad(
                    lambda v: self.expected_log_likelihood(constrained(v), constrained(flat))
                )(vector)
                return self.objective(constrained(vector)), slope

        closed = jax.make_jaxpr(oracle)(flat)
        return (lambda vector: run(closed, np.asarray(vector))), restore

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
    state, _ = em.update(em.init(jax.random.key(0), case.data), case.data)
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


def responsibilities_of(case):
    return np.asarray(jax.nn.softmax(case.log_joint(case.params), axis=1))
