"""Hidden Markov models of chorales: the models of NumPyro's `examples/hmm_enum.py` and of the
example of Pyro that it is ported from.

A sequence is a matrix (step, tone) of zeros and ones, shorter than the array that holds it: what
comes after its end is masked. `include_prior=False` masks the priors.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan
from numpyro.handlers import mask
from numpyro.ops.indexing import Vindex


def sticky(num_states):
    """The prior of rows of transitions: few places to go, the same state among them."""
    return dist.Dirichlet(0.9 * jnp.eye(num_states) + 0.1)


def tones_prior(*shape):
    """The prior of tones: most are silent."""
    return dist.Beta(0.1, 0.9).expand(shape).to_event(len(shape))


def over_time(step, start, sequences):
    """Scan over the steps of all sequences; the carry ends with the time."""
    scan(step, (*start, 0), jnp.swapaxes(sequences, 0, 1))


def normal(*shape):
    """The start of a network's weights, another for each key."""
    return lambda key: jax.random.normal(key, shape)


def nowhere(sequences):
    """State 0 of each sequence."""
    return jnp.zeros((len(sequences), 1), dtype=int)


def one_by_one(sequences, lengths, num_states, include_prior=True):
    """Model 0: a Python loop over sequences and steps, a site for each of them."""
    with mask(mask=include_prior):
        probs_x = numpyro.sample("probs_x", sticky(num_states).to_event(1))
        probs_y = numpyro.sample("probs_y", tones_prior(num_states, sequences.shape[-1]))
    tones = numpyro.plate("tones", sequences.shape[-1], dim=-1)
    for i, length in enumerate(lengths):
        x = 0
        for t in range(length):
            x = numpyro.sample(
                f"x_{i}_{t}", dist.Categorical(probs_x[x]), infer={"enumerate": "parallel"}
            )
            with tones as tone:
                y = sequences[i, t]
                numpyro.sample(f"y_{i}_{t}", dist.Bernoulli(Vindex(probs_y)[x, tone]), obs=y)


def plain(sequences, lengths, num_states, include_prior=True):
    """Model 1: x[t] → x[t + 1], x[t] → y[t]."""
    num_sequences, _, num_tones = sequences.shape
    with mask(mask=include_prior):
        probs_x = numpyro.sample("probs_x", sticky(num_states).to_event(1))
        probs_y = numpyro.sample("probs_y", tones_prior(num_states, num_tones))

    def step(carry, y):
        x, t = carry
        with (
            numpyro.plate("sequences", num_sequences, dim=-2),
            mask(mask=(t < lengths)[..., None]),
        ):
            x = numpyro.sample("x", dist.Categorical(probs_x[x]), infer={"enumerate": "parallel"})
            with numpyro.plate("tones", num_tones, dim=-1):
                numpyro.sample("y", dist.Bernoulli(probs_y[x.squeeze(-1)]), obs=y)
        return (x, t + 1), None

    over_time(step, (nowhere(sequences),), sequences)


def autoregressive(sequences, lengths, num_states, include_prior=True):
    """Model 2: what sounds depends on what has sounded, too."""
    num_sequences, _, num_tones = sequences.shape
    with mask(mask=include_prior):
        probs_x = numpyro.sample("probs_x", sticky(num_states).to_event(1))
        probs_y = numpyro.sample("probs_y", tones_prior(num_states, 2, num_tones))

    def step(carry, y):
        x, y_before, t = carry
        with (
            numpyro.plate("sequences", num_sequences, dim=-2),
            mask(mask=(t < lengths)[..., None]),
        ):
            x = numpyro.sample("x", dist.Categorical(probs_x[x]), infer={"enumerate": "parallel"})
            with numpyro.plate("tones", num_tones, dim=-1) as tones:
                y = numpyro.sample("y", dist.Bernoulli(probs_y[x, y_before, tones]), obs=y)
        return (x, y, t + 1), None

    silence = jnp.zeros((num_sequences, num_tones), dtype=sequences.dtype)
    over_time(step, (nowhere(sequences), silence), sequences)


def factorial(sequences, lengths, num_states, include_prior=True):
    """Model 3: two chains, both of which every tone depends on."""
    num_sequences, _, num_tones = sequences.shape
    with mask(mask=include_prior):
        probs_w = numpyro.sample("probs_w", sticky(num_states).to_event(1))
        probs_x = numpyro.sample("probs_x", sticky(num_states).to_event(1))
        probs_y = numpyro.sample("probs_y", tones_prior(num_states, num_states, num_tones))

    def step(carry, y):
        w, x, t = carry
        with (
            numpyro.plate("sequences", num_sequences, dim=-2),
            mask(mask=(t < lengths)[..., None]),
        ):
            w = numpyro.sample("w", dist.Categorical(probs_w[w]), infer={"enumerate": "parallel"})
            x = numpyro.sample("x", dist.Categorical(probs_x[x]), infer={"enumerate": "parallel"})
            with numpyro.plate("tones", num_tones, dim=-1) as tones:
                numpyro.sample("y", dist.Bernoulli(probs_y[w, x, tones]), obs=y)
        return (w, x, t + 1), None

    over_time(step, (nowhere(sequences), nowhere(sequences)), sequences)


def dynamic_bayesian_network(sequences, lengths, num_states, include_prior=True):
    """Model 4: of two chains, the second depends on the first."""
    num_sequences, _, num_tones = sequences.shape
    with mask(mask=include_prior):
        probs_w = numpyro.sample("probs_w", sticky(num_states).to_event(1))
        probs_x = numpyro.sample("probs_x", sticky(num_states).expand_by([num_states]).to_event(2))
        probs_y = numpyro.sample("probs_y", tones_prior(num_states, num_states, num_tones))

    def step(carry, y):
        w, x, t = carry
        with (
            numpyro.plate("sequences", num_sequences, dim=-2),
            mask(mask=(t < lengths)[..., None]),
        ):
            w = numpyro.sample("w", dist.Categorical(probs_w[w]), infer={"enumerate": "parallel"})
            x = numpyro.sample(
                "x", dist.Categorical(Vindex(probs_x)[w, x]), infer={"enumerate": "parallel"}
            )
            with numpyro.plate("tones", num_tones, dim=-1) as tones:
                numpyro.sample("y", dist.Bernoulli(probs_y[w, x, tones]), obs=y)
        return (w, x, t + 1), None

    over_time(step, (nowhere(sequences), nowhere(sequences)), sequences)


def neural(sequences, lengths, num_states, include_prior=True, num_units=2):
    """Model 5: the tones are those of a small network of the state and the tones before."""
    num_sequences, _, num_tones = sequences.shape
    with mask(mask=include_prior):
        probs_x = numpyro.sample("probs_x", sticky(num_states).to_event(1))
    of_state = numpyro.param("of_state", normal(num_states, num_units))
    of_tones = numpyro.param("of_tones", normal(num_tones, num_units))
    to_tones = numpyro.param("to_tones", normal(num_units, num_tones))
    bias = numpyro.param("bias", jnp.zeros(num_tones))

    def step(carry, y):
        x, y_before, t = carry
        with (
            numpyro.plate("sequences", num_sequences, dim=-2),
            mask(mask=(t < lengths)[..., None]),
        ):
            x = numpyro.sample("x", dist.Categorical(probs_x[x]), infer={"enumerate": "parallel"})
            hidden = jax.nn.relu(of_state[x.squeeze(-1)] + y_before @ of_tones)
            with numpyro.plate("tones", num_tones, dim=-1):
                numpyro.sample("y", dist.Bernoulli(logits=hidden @ to_tones + bias), obs=y)
        return (x, y, t + 1), None

    silence = jnp.zeros((num_sequences, num_tones), dtype=sequences.dtype)
    over_time(step, (nowhere(sequences), silence), sequences)


def second_order(sequences, lengths, num_states, include_prior=True):
    """Model 6: a state depends on the two before it."""
    num_sequences, _, num_tones = sequences.shape
    with mask(mask=include_prior):
        prior = sticky(num_states).expand([num_states, num_states]).to_event(2)
        probs_x = numpyro.sample("probs_x", prior)
        probs_y = numpyro.sample("probs_y", tones_prior(num_states, num_tones))

    def step(carry, y):
        x_before, x, t = carry
        with (
            numpyro.plate("sequences", num_sequences, dim=-2),
            mask(mask=(t < lengths)[..., None]),
        ):
            probs = Vindex(probs_x)[x_before, x]
            x_before, x = (
                x,
                numpyro.sample("x", dist.Categorical(probs), infer={"enumerate": "parallel"}),
            )
            with numpyro.plate("tones", num_tones, dim=-1):
                numpyro.sample("y", dist.Bernoulli(probs_y[x.squeeze(-1)]), obs=y)
        return (x_before, x, t + 1), None

    start = nowhere(sequences), nowhere(sequences), 0
    scan(step, start, jnp.swapaxes(sequences, 0, 1), history=2)


def chorales(lengths, num_tones, seed):
    """Sequences (sequence, step, tone) in {0, 1} of two sticky states, and their lengths."""
    rng = np.random.default_rng(seed)
    probs = rng.beta(0.7, 0.9, (2, num_tones))
    sequences = np.zeros((len(lengths), max(lengths), num_tones), int)
    for sequence, length in zip(sequences, lengths, strict=True):
        state = 0
        for t in range(length):
            state = state if rng.random() < 0.8 else 1 - state
            sequence[t] = rng.random(num_tones) < probs[state]
    return sequences, np.array(lengths)
