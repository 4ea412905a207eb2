"""Densities of programs of others are those of the oracles, as docs/programs.md has them."""

import jax
import numpy as np
import pytest

from emjax import EM, Status
from tests.programs_of_others.cases import CASES
from tests.programs_of_others.page import PAGE, cells_of

CELLS = cells_of(PAGE.read_text(encoding="utf-8"))
EIGHT_DIGITS = 6e-9  # behind the point, which the page has
PRIOR_OF_A_LATENT = "model2"  # whose prior is no part of the likelihood, nor of a log-prior


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    yield
    jax.clear_caches()


def by_oracle(source: str, name: str) -> float:
    return float(CELLS[source, name][1].split()[0])


def test_page_has_every_program_at_the_oracles_density_and_at_scipys_maximum():
    assert list(CELLS) == list(CASES)
    for key, (ours, oracle, maximum, by_scipy, status, *_) in CELLS.items():
        assert ours == oracle.split()[0], key
        assert float(maximum) > float(by_scipy) - 1e-6 * (1 + abs(float(by_scipy))), key
        assert status == str(Status.CONVERGED), key


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("source", "name"),
    [key for key in CASES if key[1] != PRIOR_OF_A_LATENT],
    ids=lambda words: words.split("/")[-1].split("`")[0],
)
def test_density_is_that_of_the_oracle(source, name):
    case = CASES[source, name]
    log_likelihood = EM(case.program).log_likelihood(case.point, *case.args, **case.kwargs)
    density = log_likelihood + jax.jit(case.log_prior)(case.point)
    np.testing.assert_allclose(density, by_oracle(source, name), rtol=0, atol=EIGHT_DIGITS)


def test_prior_that_reads_a_latent_is_inside_the_sum():
    ((key, case),) = ((key, case) for key, case in CASES.items() if key[1] == PRIOR_OF_A_LATENT)
    em = EM(case.program, max_steps=1)
    objective = em.run(jax.random.key(0), *case.args, init_params=case.point).objective
    np.testing.assert_allclose(objective[0], by_oracle(*key), rtol=0, atol=EIGHT_DIGITS)


@pytest.mark.parametrize("name", ["plates_4", "plates_6"], ids=["funsor", "joint table"])
def test_page_has_the_oracles_numbers(name):
    ((key, case),) = ((key, case) for key, case in CASES.items() if key[1] == name)
    density = case.log_density  # its joint table is not made inside `jit`
    expected = by_oracle(*key)
    np.testing.assert_allclose(jax.jit(density)(case.point), expected, rtol=0, atol=EIGHT_DIGITS)
