"""Programs with Gaussian latents, integrated out: each step is that derived by hand."""

import inspect

import jax
import pytest

from emjax import EM, compare_updates
from tests.models.gaussian_cases import GAUSSIAN_CASES, every_gaussian_case


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    yield
    jax.clear_caches()


def test_every_program_is_listed():
    modules = {case.module for case in GAUSSIAN_CASES.values()}
    programs = {
        value
        for module in modules
        for name, value in vars(module).items()
        if name.endswith("program") and inspect.isfunction(value)
    }
    assert programs == {case.program for case in GAUSSIAN_CASES.values()}


@every_gaussian_case
def test_em_is_the_update_derived_by_hand(case):
    em = EM(case.program, integrate=case.integrate)
    comparison = compare_updates(em, case.step, case.start, *case.args, num_steps=50)
    assert set(comparison.differences) == set(case.start)
    assert comparison.largest <= 1e-10
