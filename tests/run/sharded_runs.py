"""Runs on several devices, for tests: a process of its own prints what it finds as JSON.

`python sharded_runs.py` compares runs on meshes of two and of four devices with those on one.
`python sharded_runs.py PORT NUMBER` is one of two processes, each with half of the data.
"""

import json
import re
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpyro.distributions import constraints

from emjax import EM, shard
from emjax.models import dawid_skene, factor_analysis, hidden_markov, latent_class
from emjax.run.sharded import ShardedLoop, ShardedPrograms

NUM_PROCESSES = 2
START = {"weights": np.full(3, 1 / 3), "loc": np.array([98.0, 100, 103]), "scale": np.ones(3)}


def mixture(x):
    """Return nothing: normals about points far from zero, so that origins matter."""
    weights = numpyro.param("weights", jnp.full(3, 1 / 3), constraint=constraints.simplex)
    loc = numpyro.sample("loc", dist.Normal(jnp.array([98.0, 100, 103]), 5).to_event(1))
    scale = numpyro.param("scale", jnp.ones(3), constraint=constraints.positive)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[z], scale[z]), obs=x)


def by_columns(x):
    """Return nothing: a mixture of as many dimensions as the data have columns."""
    loc = numpyro.param("loc", jnp.stack([jnp.zeros(x.shape[1]), jnp.ones(x.shape[1])]))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(loc[z], 1).to_event(1), obs=x)


def sequences(data, lengths):
    """Return nothing: a normal chain in each row, which are sequences here."""
    hidden_markov.gaussian_program(jnp.moveaxis(data, 0, 1), lengths, num_states=2)


def problems():
    """Return {name: (EM, arguments, those of `shard`, further arguments)}."""
    rng = np.random.default_rng(0)
    x = np.sort(rng.normal(100, 3, 203))
    answers = rng.integers(0, 2, (101, 4)) | (np.arange(101) < 50)[:, None] * rng.integers(0, 2, 4)
    item, annotator = rng.integers(0, 17, 150), rng.integers(0, 4, 150)
    item[:17] = range(17)
    label = np.where(rng.random(150) < 0.7, item % 2, rng.integers(0, 2, 150))
    series = rng.normal(0, 1, (9, 4, 1)) + 2 * (np.arange(9) % 2)[:, None, None]
    labels = partial(dawid_skene.program, num_annotators=4, num_classes=2)
    factors = partial(factor_analysis.program, num_factors=1)
    classes = partial(latent_class.program, num_classes=2)
    points = rng.normal(0, 1, (61, 1)) + rng.normal(2, 1, (61, 3))
    rows = (item, annotator, label)
    steps = {"max_steps": 12}
    return {
        "mixture": (EM(mixture, max_steps=40), (x,), {}, ()),
        "latent class": (EM(classes, init="program", **steps), (answers,), {}, ()),
        "long form": (EM(labels, **steps), rows, {"key": 0, "rows": "labels"}, (17,)),
        "chains": (EM(sequences, **steps), (series, np.full(9, 4)), {}, ()),
        "factors": (EM(factors, integrate={"factor"}, **steps), (points,), {}, ()),
    }


def difference(one, other):
    """Return the largest difference between two trees, in units of one or of their size."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(
        float(np.max(np.abs(np.asarray(a) - b) / (1 + np.abs(np.asarray(b))))) for a, b in pairs
    )


def on_several():
    """Return {problem: how runs on meshes differ from that on one device}."""
    found = {}
    for name, (em, args, options, more) in problems().items():
        init = dict(em.init(jax.random.key(0), *args, *more).params)
        alone = em.run(jax.random.key(0), *args, *more, init_params=init)
        found[name] = {"status": [str(alone.status)], "params": [], "posterior": []}
        for number in (2, 4):
            shards = shard(*args, devices=jax.devices()[:number], **options)
            fit = em.run(jax.random.key(0), shards, init_params=init)
            found[name]["status"].append(str(fit.status))
            found[name]["params"].append(difference(fit.params, alone.params))
            found[name]["posterior"].append(difference(fit.posterior(), alone.posterior()))
    x = np.random.default_rng(1).normal(100, 3, 200)
    em = EM(mixture, max_steps=12)
    mesh = Mesh(np.asarray(jax.devices()), ("rows",))
    placed = jax.device_put(x, NamedSharding(mesh, PartitionSpec("rows")))
    alone = em.run(jax.random.key(0), x)
    fit = em.run(jax.random.key(0), placed)
    found["placed"] = {"params": [difference(fit.params, alone.params)]}
    # what is cut along something else than rows is left to XLA
    columns = np.random.default_rng(2).normal(0, 1, (40, 4)) + 3 * (np.arange(40) < 20)[:, None]
    em = EM(by_columns, max_steps=5)
    placed = jax.device_put(columns, NamedSharding(mesh, PartitionSpec(None, "rows")))
    alone = em.run(jax.random.key(0), columns)
    fit = em.run(jax.random.key(0), placed)
    found["columns"] = {"params": [difference(fit.params, alone.params)]}
    return found


def compiled(em, shards):
    """Return the compiled loop of a run on shards: text, and its cost on one device."""
    programs = ShardedPrograms(em._compiler, shards, (), {})
    loop = ShardedLoop(programs.of_parts, programs.sums, shards, False)
    start = programs.of_parts.start(START)
    lowered = jax.jit(loop.function).lower(start, loop.data, loop.sums, 5, 0)
    executable = lowered.compile()
    costs = executable.cost_analysis()
    return executable.as_text(), {key: costs[key] for key in ("flops", "bytes accessed")}


def in_hlo():
    """Return what XLA has made of the loop: its collectives, and the work of a device of four."""
    x = np.random.default_rng(0).normal(100, 3, 40_000)
    em = EM(mixture)
    text, cost = compiled(em, shard(x))
    _, whole = compiled(em, shard(x, devices=jax.devices()[:1]))
    names = re.findall(r"\b(all-gather|all-to-all|collective-permute|all-reduce)\(", text)
    part = {key: cost[key] / whole[key] for key in cost}
    return {"collectives": names, "part": part}


def in_two_processes(port, number):
    """Return how a run in two processes differs from that in one, in which each has all data."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", NUM_PROCESSES, number)
    em, (x,), _, _ = problems()["mixture"]
    half = x[:100] if number == 0 else x[100:]
    fit = em.run(jax.random.key(0), shard(half), init_params=START)
    return {
        "params": {name: np.asarray(value).tolist() for name, value in fit.params.items()},
        "log_likelihood": float(fit.log_likelihood),
        "status": str(fit.status),
    }


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    if len(sys.argv) > 1:
        print(json.dumps(in_two_processes(*map(int, sys.argv[1:]))))
    else:
        print(json.dumps({"runs": on_several(), "hlo": in_hlo()}))
