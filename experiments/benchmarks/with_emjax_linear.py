"""emjax: programs whose latents are Gaussian, and integrated out."""

from collections.abc import Callable

import jax.numpy as jnp

from emjax import EM, weighted
from emjax.e_step.e_step import e_step
from emjax.models import factor_analysis, linear_gaussian_state_space, linear_mixed_model
from experiments.benchmarks.by_hand_states import repeated
from experiments.benchmarks.contestant import Run
from experiments.benchmarks.with_emjax import runner


def factors(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of factor analysis on rows, which emjax condenses by itself."""
    points = jnp.asarray(data.pop("points"))
    settings = {"integrate": {"factor"}}
    return runner(factor_analysis.program, start, points, sizes["num_factors"], settings=settings)


def counted_factors(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of factor analysis on rows that count so many times each."""
    count, points = jnp.asarray(data.pop("count")), jnp.asarray(data.pop("points"))
    program = weighted(factor_analysis.program, "samples")
    settings = {"integrate": {"factor"}}
    return runner(program, start, count, points, sizes["num_factors"], settings=settings)


def effects(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of the mixed model."""
    names = "response", "fixed_covariates", "random_covariates", "group"
    rows = [jnp.asarray(data.pop(name)) for name in names]
    settings = {"integrate": {"effect"}}
    return runner(linear_mixed_model.program, start, *rows, sizes["num_groups"], settings=settings)


def state_space_arguments(data: dict, sizes: dict) -> tuple:
    """Return what the program of the state space takes: one sequence, all of it seen."""
    points = jnp.asarray(data.pop("points"))[:, None]
    return points, jnp.ones(points.shape[:2], bool), sizes["num_states"]


def states(chains: str) -> Callable[[dict, dict, dict], Run]:
    """Return the set-up of the state space, in the sequential or the parallel form."""

    def setup(data: dict, start: dict, sizes: dict) -> Run:
        settings = {"integrate": {"state"}, "chains": chains}
        args = state_space_arguments(data, sizes)
        return runner(linear_gaussian_state_space.program, start, *args, settings=settings)

    return setup


def states_e_step(chains: str) -> Callable[[dict, dict, dict], Run]:
    """Return the set-up of the E-step alone."""

    def setup(data: dict, start: dict, sizes: dict) -> Run:
        em = EM(linear_gaussian_state_space.program, integrate={"state"}, chains=chains)
        bound = em.on(*state_space_arguments(data, sizes))
        graph = bound.compiled.pure.graph
        prepared = graph.prepare(bound.data)

        def moments(params, prepared):
            expected = e_step(graph, graph.arrays(params, prepared))
            return expected.log_partition, expected.statistics

        params = {name: jnp.asarray(value) for name, value in start.items()}
        return repeated(moments, params, prepared)

    return setup


SETUPS = {
    "emjax": {
        "factor_analysis": factors,
        "counted_factor_analysis": counted_factors,
        "linear_mixed_model": effects,
        "linear_state_space": states("sequential"),
        "linear_state_space_e_step": states_e_step("sequential"),
    },
    "emjax, parallel": {
        "linear_state_space": states("parallel"),
        "linear_state_space_e_step": states_e_step("parallel"),
    },
}
