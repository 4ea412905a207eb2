"""The table of primitives: what it says of those that we know, and what becomes of those that we do
not.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

from emjax import EM
from emjax.numerics.jaxprs import inlined, interpreted
from emjax.numerics.primitives import TRAITS, Kind, Linear, Traits, traits
from emjax.tables.evaluation import evaluated
from emjax.tables.moves import MOVES

ELEMENTWISE = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e
    bitcast_convert_type cbrt ceil clamp clz complex conj convert_element_type copy copy_p cos cosh
    digamma div eq eq_to erf erf_inv erfc exp exp2 expm1 floor ge gt igamma igamma_grad_a igammac
    integer_pow is_finite le le_to lgamma log log1p logistic lt lt_to max min mul mulhi ne neg
    nextafter not or optimization_barrier polygamma population_count pow real imag reduce_precision
    regularized_incomplete_beta rem round rsqrt select_n shift_left shift_right_arithmetic
    shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh xor zeta
"""
MOVEMENT = "broadcast_in_dim transpose squeeze slice rev reshape tile"
COPYING = """
    concatenate gather select_n copy copy_p convert_element_type dynamic_slice stack split unstack
    pad dynamic_update_slice scatter
"""
LINEAR = """
    scatter-add scatter-sub add add_any sub neg reduce_sum mul div dot_general cumsum
    conv_general_dilated triangular_solve
"""


def names_of(kind: Kind) -> set[str]:
    return {name for name, known in TRAITS.items() if known.kind is kind}


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (Kind.ELEMENTWISE, ELEMENTWISE),
        (Kind.MOVES, MOVEMENT),
        (
            Kind.REDUCES,
            "reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax "
            "argmin",
        ),
        (
            Kind.MIXES,
            "cumsum cumprod cummax cummin cumlogsumexp sort lu_pivots_to_permutation cholesky "
            "top_k fft tridiagonal_solve triangular_solve lu eigh eig svd qr householder_product "
            "geqrf",
        ),
        (
            Kind.CALLS,
            "jit pjit closed_call core_call remat remat2 checkpoint custom_lin",
        ),
        (Kind.DERIVES, "custom_jvp_call custom_vjp_call"),
        (Kind.JOINS, "concatenate stack"),
        (Kind.SPLITS, "split unstack"),
        (
            Kind.PLACES,
            "pad dynamic_update_slice scatter scatter-add scatter-sub scatter-max scatter-min "
            "scatter-mul",
        ),
        (Kind.OTHER, "iota platform_index conv_general_dilated"),
    ],
)
def test_primitives_of_each_kind(kind, names):
    assert names_of(kind) == set(names.split())


def test_kinds_of_a_single_primitive():
    single = {name: known.kind for name, known in TRAITS.items() if len(names_of(known.kind)) == 1}
    assert single == {
        "cond": Kind.BRANCHES,
        "scan": Kind.LOOPS,
        "gather": Kind.GATHERS,
        "dynamic_slice": Kind.SLICES,
        "dot_general": Kind.CONTRACTS,
        "custom_linear_solve": Kind.SOLVES,
    }


def test_what_moves_entries_and_what_is_affine():
    copying = {*MOVEMENT.split(), *COPYING.split()}
    assert {name for name, known in TRAITS.items() if known.copies} == copying
    linear = {name for name, known in TRAITS.items() if known.linear is not Linear.NONE}
    assert linear == copying | set(LINEAR.split())


def test_what_is_cheaper_to_form_again_than_to_keep():
    assert {name for name, known in TRAITS.items() if known.is_cheap} == {
        "add",
        "sub",
        "mul",
        "neg",
        "integer_pow",
        "square",
        "max",
        "min",
        "select_n",
        "and",
        "or",
        "not",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "convert_element_type",
        "broadcast_in_dim",
        "reshape",
        "squeeze",
        "transpose",
        "reduce_sum",
        "dot_general",
        "jit",
        "copy",
    }


def test_every_movement_has_a_rule():
    assert names_of(Kind.MOVES) == set(MOVES)


def test_every_mixture_says_along_which_axes():
    for name in names_of(Kind.MIXES):
        assert TRAITS[name].mixes is not None, name


@pytest.mark.parametrize(
    "function",
    [
        lambda x, i: x < 2.0,
        lambda x, i: (x + 1.0) * x - 3.0,
        lambda x, i: jnp.maximum(-x, x),
        lambda x, i: jnp.where(i > 0, x, 2 * x),
        lambda x, i: jnp.concatenate([i, i[:, ::-1]], axis=1).reshape(-1)[1:5],
        lambda x, i: (i & 1) | jnp.arange(3),
        lambda x, i: i.astype(float).T[:, None],
    ],
)
def test_known_arrays_stay_known_and_are_what_jax_says(function):
    known = [np.linspace(0, 5, 6).reshape(2, 3), np.arange(6).reshape(2, 3)]
    closed = inlined(jax.make_jaxpr(function)(*known))

    def literal(atom):
        return np.asarray(atom.val, atom.aval.dtype)

    def equation(eqn, arrays):
        result = evaluated(eqn, *arrays)
        assert isinstance(result, np.ndarray), eqn
        assert result.dtype == eqn.outvars[0].aval.dtype, eqn
        return [result]

    inputs = [*map(np.asarray, closed.consts), *known]
    (result,) = interpreted(closed.jaxpr, inputs, literal, equation)
    np.testing.assert_array_equal(result, function(*map(jnp.asarray, known)))


# ── primitives that are not in the table ──────────────────────────────────────────────────────────

unheard_of = Primitive("unheard_of")
unheard_of.def_abstract_eval(lambda x: x)
unheard_of.def_impl(lambda x: 3 * x)
batching.defvectorized(unheard_of)
mlir.register_lowering(unheard_of, mlir.lower_fun(lambda x: 3 * x, multiple_results=False))


def test_an_unknown_primitive_is_evaluated_as_it_is():
    def model(x, tripled):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.3, 0.7])))
        with numpyro.plate("rows", len(x)):
            loc = jnp.array([0.0, 1.0])
            loc = unheard_of.bind(loc) if tripled else 3 * loc
            numpyro.sample("x", dist.Normal(loc[z], 1), obs=x)

    eqn = jax.make_jaxpr(unheard_of.bind)(1.0).eqns[0]
    assert traits(eqn) == Traits()
    x = jnp.array([0.1, 2.9, 3.3])
    expected = EM(model).log_likelihood({}, x, False)
    np.testing.assert_allclose(EM(model).log_likelihood({}, x, True), expected, rtol=1e-12)


def test_an_unknown_primitive_that_meets_the_elements_of_a_latent_enumerates_them_jointly():
    def model(x, tripled):
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.3, 0.7])))
            value = unheard_of.bind(z) if tripled else 3 * z
            numpyro.sample("x", dist.Normal(value, 1), obs=x)

    x = jnp.array([0.1, 2.9, 3.3])
    expected = EM(model).log_likelihood({}, x, False)
    np.testing.assert_allclose(EM(model).log_likelihood({}, x, True), expected, rtol=1e-12)


def test_an_unknown_primitive_is_no_movement_of_entries():
    def model(x):
        loc = numpyro.param("loc", jnp.zeros(2))
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.3, 0.7])))
            numpyro.sample("x", dist.Normal(unheard_of.bind(loc)[z], 1), obs=x)

    plan = str(EM(model).plan(jnp.array([0.1, 2.9, 3.3])))
    assert "unheard_of" in plan
