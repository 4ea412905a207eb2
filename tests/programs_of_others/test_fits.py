"""Fits of programs of others end where SciPy does, as docs/programs.md has it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax import EM, Status
from tests.programs_of_others import capture_recapture, choices
from tests.programs_of_others.cases import SOURCES, of_captures
from tests.programs_of_others.page import PAGE, cells_of

KEY = jax.random.key(0)
CELLS = cells_of(PAGE.read_text(encoding="utf-8"))
CAPTURES, CHORALES, WITH_PRIORS, *_ = SOURCES


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    yield
    jax.clear_caches()


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("source", "name"),
    [
        (CAPTURES, "model 2"),
        (CAPTURES, "model 5"),
        (CHORALES, "model 2"),
        (CHORALES, "model 6"),
        (WITH_PRIORS, "model 1, priors"),
    ],
    ids=["survival by year", "survival by sex and year", "model 2", "model 6", "sparse priors"],
)
def test_fit_ends_where_scipy_does(source, name):
    case = SOURCES[source][name]
    result = EM(case.program, **case.settings).run(KEY, *case.args, **case.kwargs)
    assert result.status == Status.CONVERGED
    assert float(result.objective[-1]) > float(CELLS[source, name][3]) - 2e-5


def by_hand(captures: np.ndarray, phi: float, rho: float) -> float:
    """The likelihood of Cormack, Jolly and Seber, in nats.

    From its first capture to its last an animal survives each year, and is captured or missed;
    `unseen` is the probability never to be seen after a year. Source: Lebreton, Burnham, Clobert &
    Anderson (1992), Ecological Monographs 62(1).
    """
    num_years = captures.shape[1]
    unseen = np.ones(num_years)
    for t in reversed(range(num_years - 1)):
        unseen[t] = 1 - phi + phi * (1 - rho) * unseen[t + 1]
    total = 0.0
    for history in captures:
        years = np.flatnonzero(history)
        after = history[years[0] + 1 : years[-1] + 1]
        total += len(after) * np.log(phi) + after.sum() * np.log(rho)
        total += (1 - after).sum() * np.log(1 - rho) + np.log(unseen[years[-1]])
    return total


def test_captures_as_meant_are_those_of_the_textbook_and_survival_is_smaller():
    captures, sex = of_captures()["model 1"].args
    em = EM(capture_recapture.constant_survival_as_meant)
    params = {"phi": jnp.array(0.6), "rho": jnp.array(0.7)}
    log_likelihood = em.log_likelihood(params, captures, sex)
    # `clamp_probs` makes of certainty a probability of 1 − 2e-16
    np.testing.assert_allclose(log_likelihood, by_hand(captures, 0.6, 0.7), rtol=1e-12)
    meant = em.run(KEY, captures, sex).params
    np.testing.assert_allclose([meant["phi"], meant["rho"]], [0.620, 0.793], atol=1e-3)
    published = EM(capture_recapture.constant_survival).run(KEY, captures, sex).params
    np.testing.assert_allclose([published["phi"], published["rho"]], [0.708, 0.829], atol=1e-3)


def test_latent_without_end_is_refused_with_a_remedy():
    with pytest.raises(ValueError, match="Site 'a' is latent and Poisson: its support has no end"):
        EM(choices.sum_of_counts).run(KEY)
