"""Where EM crawls, leaps take turns with its own steps: in fewer steps, and never lower."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from numpyro.distributions.constraints import Constraint

from emjax import EM, Accelerator, Status
from emjax.run import crawling, pieces, pure
from emjax.run.crawling import LOOK

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
# two clouds that overlap: EM crawls
X = np.concatenate([RNG.normal(0, 1, 60), RNG.normal(2.0, 1.2, 60)])
# no leap needs so many more
MANY = 1000
WRONG = Accelerator(
    lambda u: jnp.zeros((), int),
    lambda count, u, image: (count + 1, image + 3.0, count % 3 == 2),
    lambda count: count,
)


def mixture(x):
    weights = numpyro.param("weights", jnp.array([0.3, 0.7]), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    scale = numpyro.param("scale", jnp.array([1.0, 1.0]), constraint=constraints.positive)
    with numpyro.plate("samples", len(x)):
        component = numpyro.sample("component", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[component], scale[component]), obs=x)


def run(**settings):
    how = {key: settings.pop(key) for key in ("checkpoint", "every") if key in settings}
    return EM(mixture, **{"tol": 1e-13, "max_steps": MANY, **settings}).run(KEY, X, **how)


@pytest.fixture(scope="module")
def plain():
    return run(acceleration=None)


@pytest.fixture
def every_run_is_long(monkeypatch):
    monkeypatch.setattr(pieces, "MANY_PIECES", 0)


def test_where_it_crawls_em_leaps_by_default(plain, every_run_is_long):
    found = run()
    assert found.status == plain.status == Status.CONVERGED
    assert LOOK < found.num_steps <= plain.num_steps / 2
    assert found.objective[-1] >= plain.objective[-1]
    assert (np.diff(found.objective) >= -1e-12).all()


def test_the_first_steps_are_plain_em_to_the_bit(plain, every_run_is_long):
    np.testing.assert_array_equal(run().objective[: LOOK + 1], plain.objective[: LOOK + 1])
    few, own = run(max_steps=LOOK), run(max_steps=LOOK, acceleration=None)
    np.testing.assert_array_equal(few.params["loc"], own.params["loc"])


def test_once_leaps_have_settled_the_objective_is_above_that_of_plain_em(plain, every_run_is_long):
    found = np.asarray(run().objective)
    settled = np.arange(LOOK + crawling.TRIAL, len(found))
    assert (found[settled] >= np.asarray(plain.objective)[settled]).all()


def test_a_short_run_is_plain_em_to_the_last_bit(plain):
    found = run()
    assert found.num_steps == plain.num_steps
    np.testing.assert_array_equal(found.objective, plain.objective)


def test_leaps_that_lead_nowhere_cost_a_tenth_of_the_steps_at_most(
    plain, monkeypatch, every_run_is_long
):
    monkeypatch.setattr(pure, "squarem", lambda: WRONG)
    found = run()
    assert found.status == Status.CONVERGED
    assert plain.num_steps < found.num_steps <= 1.1 * plain.num_steps
    assert abs(found.objective[-1] - plain.objective[-1]) <= 1e-10
    assert (np.diff(found.objective) >= -1e-12).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"acceleration": None},
        {"e_step": "hard"},
        {"stop": "aitken"},
        {"polish": "newton"},
        {"m_step": {"loc": lambda value, objective: value}},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_nothing_leaps_beside_what_is_for_em_alone(settings):
    assert not EM(mixture, **settings).settings.leaps_where_it_crawls


def test_a_run_that_is_killed_between_leaps_ends_in_the_same_bits(
    tmp_path, monkeypatch, every_run_is_long
):
    whole, stop = run(), KeyboardInterrupt
    advanced = pieces.Pieces._advanced

    def killed(self, at, constants, stop_at):
        if int(at.step) >= LOOK + 10:
            raise stop
        return advanced(self, at, constants, stop_at)

    monkeypatch.setattr(pieces.Pieces, "_advanced", killed)
    with pytest.raises(stop):
        run(checkpoint=tmp_path / "run", every=5)
    monkeypatch.setattr(pieces.Pieces, "_advanced", advanced)
    found = run(checkpoint=tmp_path / "run", every=5)
    np.testing.assert_array_equal(found.objective, whole.objective)
    np.testing.assert_array_equal(found.params["loc"], whole.params["loc"])


class Anything(Constraint):
    """A constraint that NumPyro has no bijection for."""

    lower_bound, upper_bound, event_dim = -np.inf, np.inf, 0

    def __call__(self, x):
        return x == x

    def feasible_like(self, prototype):
        return jnp.zeros_like(prototype)

    def tree_flatten(self):
        return (), ((), {})


def test_where_there_is_no_space_to_leap_in_em_goes_on_by_itself(every_run_is_long):
    def program(x):
        loc = numpyro.param("loc", jnp.array([-1.0, 1.0]), constraint=Anything())
        with numpyro.plate("samples", len(x)):
            component = numpyro.sample("component", dist.Categorical(jnp.array([0.5, 0.5])))
            numpyro.sample("x", dist.Normal(loc[component], 1.5), obs=x)

    found = EM(program, tol=1e-13).run(KEY, X)
    assert found.status == Status.CONVERGED
    assert found.num_steps > LOOK


def test_a_bar_is_shown_though_the_program_was_compiled_without_one(capfd):
    run(max_steps=3)
    assert "EM:" not in capfd.readouterr().err
    run(max_steps=3, progress_bar=True)
    assert "EM:" in capfd.readouterr().err
