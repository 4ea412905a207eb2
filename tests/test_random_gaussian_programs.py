"""Gaussian latents, integrated exactly, against one matrix for everything, on random programs.

`HYPOTHESIS_PROFILE=thorough pytest tests/test_random_gaussian_programs.py` draws 500 programs; the
default, the first 30 of them, the even ones of rows, the odd ones of time. A failure prints the
program as a script.
"""

import itertools
import os
from dataclasses import replace

import jax
import numpy as np
import pytest

from emjax import EM
from emjax.run.compilation import CompiledFunction
from tests.models.gaussian_cases import every_gaussian_case
from tests.oracles.by_numpy import evaluated, in_place_of_compilation
from tests.oracles.linear_gaussian import GaussianJoint, gaussian_joint
from tests.oracles.random_gaussian_programs import GaussianProgram, copied
from tests.oracles.random_programs import Choices
from tests.oracles.random_rows import random_rows
from tests.oracles.random_series import random_series

IS_THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
NUM_PROGRAMS = 500 if IS_THOROUGH else 30
CHAINS = ("sequential", "checkpointed", "parallel")
TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}
checked = itertools.count(1)


def program_of(seed: int) -> GaussianProgram:
    numbers = np.random.default_rng(seed)
    choices = Choices(lambda low, high: int(numbers.integers(low, high + 1)), numbers)
    return random_series(choices) if seed % 2 else random_rows(choices)


def joint_of(program: GaussianProgram, params=None) -> GaussianJoint:
    params = program.params if params is None else params
    return gaussian_joint(program.model, program.integrate, params, program.data)


@pytest.fixture(autouse=True)
def nothing_is_compiled(monkeypatch):
    monkeypatch.setattr(CompiledFunction, "__call__", in_place_of_compilation)
    yield
    if next(checked) % 25 == 0:
        jax.clear_caches()


FOUND = (45, 102) if NUM_PROGRAMS < 100 else ()
"""Programs that were refused once, and need not have been."""


@pytest.mark.sampled
@pytest.mark.parametrize("seed", (*range(NUM_PROGRAMS), *FOUND))
def test_random_program_is_the_normal_of_everything(seed):
    program = program_of(seed)
    copies, origin = copied(program)
    joint = joint_of(copies)
    chains = CHAINS[seed // 2 % 3]
    em = EM(program.model, integrate=program.integrate, chains=chains)
    # what is traced takes its time: in the suite, a program is asked for one thing or another
    if IS_THOROUGH or seed % 3:
        assert_joint(em, program, copies, joint, origin)
    if seed % 3 == 0:
        assert_a_step_climbs(em, program, copies, joint)
    if seed % 7 == 0:
        assert_gradient(em, program, copies)


def assert_joint(em, program, copies, joint, origin):
    about = {"err_msg": str(program)}
    height = em.log_likelihood(program.params, program.data)
    np.testing.assert_allclose(height, joint.log_likelihood, **TOLERANCE, **about)
    posterior = em.posterior(program.params, program.data)
    for name in program.labels:
        expected = joint.posterior[name]
        of_copies = of(posterior[name], origin, program.plate_of.get(name, ""))
        np.testing.assert_allclose(of_copies, expected, **TOLERANCE, **about)
    for name in program.integrate:
        assert_moments(posterior[name], name, copies, joint, origin)


def assert_moments(found, name, program, joint, origin):
    """Given which labels the moments are is for elimination to say: those that the latent meets."""
    plate = program.plate_of.get(name, "")
    mean, covariance = (of(found[key], origin, plate) for key in ("mean", "covariance"))
    num_labels = mean.ndim - len(joint.shapes[name])
    exists = np.ones(mean.shape[: len(joint.shapes[name]) - (name in program.vectors)], bool)
    if "lengths" in program.arrays and name == "f":
        # beyond the end of its sequence a state goes on, for the oracle it is Normal(0, I)
        exists = np.arange(len(mean))[:, None] < program.arrays["lengths"]
    for labels in itertools.combinations(program.labels, num_labels):
        index = [
            (label, program.label_index(name, label, joint.latents[label].shape))
            for label in labels
        ]
        expected = joint.element_moments(name, name in program.vectors, index)
        is_mean = mean.shape == expected[0].shape and close(mean[exists], expected[0][exists])
        if is_mean and close(covariance[exists], expected[1][exists]):
            return
    raise AssertionError(f"{name} has other moments:\n{program}")


def close(actual, expected) -> bool:
    return np.allclose(actual, expected, **TOLERANCE, equal_nan=True)


def of(value, origin, plate) -> np.ndarray:
    """Return what is true of each copy of an element."""
    value = np.asarray(value)
    return value[origin[plate]] if plate in origin else value


def assert_a_step_climbs(em, program, copies, joint):
    state = replace(em.init(jax.random.key(0), program.data), params=program.params)
    after, objective = evaluated(em.update, state, program.data)
    np.testing.assert_allclose(objective, joint.objective, **TOLERANCE, err_msg=str(program))
    after = joint_of(copies, after.params).objective
    assert not after < joint.objective - 1e-9 * (1 + abs(joint.objective)), str(program)


def assert_gradient(em, program, copies):
    """By Fisher's identity, a gradient is that of the expected log-likelihood of the E-step."""
    kinds = program.constraints
    numbers = np.random.default_rng(1)
    along = {name: numbers.normal(size=np.shape(value)) for name, value in program.params.items()}
    along = {
        name: value if kinds[name] in ("real", "positive") else 0 * value
        for name, value in along.items()
    }

    def height(size):
        moved = {name: value + size * along[name] for name, value in program.params.items()}
        return joint_of(copies, moved).log_likelihood

    slope = (8 * (height(1e-3) - height(-1e-3)) - (height(2e-3) - height(-2e-3))) / 12e-3
    gradient = evaluated(jax.grad(em.log_likelihood), program.params, program.data)
    total = sum(np.sum(gradient[name] * along[name]) for name in along)
    np.testing.assert_allclose(total, slope, rtol=1e-7, atol=1e-7, err_msg=str(program))


# The oracle itself: no engine below this line
# --------------------------------------------------------------------------------------------------


@every_gaussian_case
def test_the_oracle_gives_each_model_its_marginal_density(case):
    first, *others = case.args
    args = (first[:5], *others) if "factor" in case.integrate else case.args
    joint = gaussian_joint(case.program, case.integrate, case.start, *args)
    height = case.log_likelihood(case.start, *args)
    np.testing.assert_allclose(joint.log_likelihood, height, rtol=1e-11)


def test_a_seed_is_a_program():
    assert str(program_of(4)) == str(program_of(4))
