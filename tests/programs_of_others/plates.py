"""What NumPyro's `test_enum_elbo` sums out: plates within plates, beside each other and crossed,
masks and multiplicities; as plates and as loops.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.ops.indexing import Vindex

TWO = np.array([0.45, 0.55])
ROWS = np.array([[0.6, 0.4], [0.4, 0.6]])
STEEP_ROWS = np.array([[0.75, 0.25], [0.55, 0.45]])
CUBE = np.array([[[0.4, 0.6], [0.3, 0.7]], [[0.3, 0.7], [0.2, 0.8]]])
THREE_WIDE = np.array([[[0.4, 0.5, 0.1], [0.3, 0.5, 0.2]], [[0.3, 0.4, 0.3], [0.4, 0.4, 0.2]]])
ONTO_THREE = np.array([[0.3, 0.4, 0.3], [0.4, 0.4, 0.2]])
THREE_BY_THREE = np.array([[0.1, 0.6, 0.3], [0.3, 0.4, 0.3], [0.4, 0.4, 0.2]])
SQUARE = np.array([[0, 1], [0, 0]])
OBLONG = np.array([[0, 1, 2], [1, 2, 2]])


def simplex(name, start):
    return numpyro.param(name, jnp.asarray(start), constraint=constraints.simplex)


def line_probs():
    """The parameters of x → y → z."""
    probs_z = simplex("probs_z", [[0.3, 0.7], [0.2, 0.8]])
    return simplex("probs_x", [0.4, 0.6]), simplex("probs_y", STEEP_ROWS), probs_z


def level_probs():
    """The parameters of a → b → c, the last of three values."""
    probs_b = simplex("probs_b", [[0.3, 0.7], [0.6, 0.4]])
    return simplex("probs_a", TWO), probs_b, simplex("probs_c", ONTO_THREE)


def latent(name, probs):
    return numpyro.sample(name, dist.Categorical(probs), infer={"enumerate": "parallel"})


def seen(name, probs, value):
    numpyro.sample(name, dist.Categorical(probs), obs=value)


def unobserved_leaf(scale=1):
    """enumerate_1: nothing depends on y, and z on nothing."""
    with handlers.scale(scale=scale):
        x = latent("x", simplex("probs_x", [0.4, 0.6]))
        latent("y", simplex("probs_y", STEEP_ROWS)[x])
        seen("z", simplex("probs_z", [0.3, 0.7]), jnp.array(0))


def line(scale=1):
    """enumerate_2: x → y → z."""
    probs_x, probs_y, probs_z = line_probs()
    with handlers.scale(scale=scale):
        x = latent("x", probs_x)
        y = latent("y", probs_y[x])
        seen("z", probs_z[y], 0)


def line_scaled_in_part(scale=1):
    """enumerate_3: y and z are scaled, x is not."""
    probs_x, probs_y, probs_z = line_probs()
    x = latent("x", probs_x)
    with handlers.scale(scale=scale):
        y = latent("y", probs_y[x])
        seen("z", probs_z[y], 0)


def plate_of_leaves(data, known, scale=1):
    """plate_1: x → y → [z], some z masked."""
    probs_x, probs_y, probs_z = line_probs()
    x = latent("x", probs_x)
    with handlers.scale(scale=scale):
        y = latent("y", probs_y[x])
        with numpyro.plate("data", len(data)), handlers.mask(mask=known):
            seen("z", probs_z[y], data)


def plate_below_the_root(data, known, scale=1):
    """plate_2: x → [y → z], some rows masked with their latents."""
    probs_x, probs_y, probs_z = line_probs()
    x = latent("x", probs_x)
    rows = numpyro.plate("data", len(data))
    with handlers.scale(scale=scale), rows, handlers.mask(mask=known):
        y = latent("y", probs_y[x])
        seen("z", probs_z[y], data)


def plate_of_lines(data, known, scale=1):
    """plate_3: [x → y → z], some rows masked."""
    probs_x, probs_y, probs_z = line_probs()
    rows = numpyro.plate("data", len(data))
    with handlers.scale(scale=scale), rows, handlers.mask(mask=known):
        x = latent("x", probs_x)
        y = latent("y", probs_y[x])
        seen("z", probs_z[y], data)


def outside_and_inside(outer, inner, scale=1):
    """plate_4: a → outer; [b → inner ← a]; either may be unobserved."""
    with handlers.scale(scale=scale):
        locs = numpyro.param("locs", jnp.array([-1.0, 1.0]))
        scales = numpyro.param("scales", jnp.array([1.0, 2.0]), constraint=constraints.positive)
        probs_a, probs_b = simplex("probs_a", [0.4, 0.6]), simplex("probs_b", [0.6, 0.4])
        a = latent("a", probs_a)
        if outer is not None:
            numpyro.sample("outer_obs", dist.Normal(0.0, scales[a]), obs=outer)
        with numpyro.plate("inner", 2):
            b = latent("b", probs_b)
            if inner is not None:
                numpyro.sample("inner_obs", dist.Normal(locs[b], scales[a]), obs=inner)


def global_and_local(data):
    """plate_5: a global, b local, and c of both."""
    probs_b, probs_c = simplex("probs_b", [0.6, 0.4]), simplex("probs_c", THREE_WIDE)
    a = latent("a", simplex("probs_a", TWO))
    with numpyro.plate("b_axis", len(data)):
        b = latent("b", probs_b)
        seen("c", Vindex(probs_c)[a, b], data)


def global_and_local_in_loops(data):
    probs_b, probs_c = simplex("probs_b", [0.6, 0.4]), simplex("probs_c", THREE_WIDE)
    a = latent("a", simplex("probs_a", TWO))
    for i in range(len(data)):
        b = latent(f"b_{i}", probs_b)
        seen(f"c_{i}", Vindex(probs_c)[a, b], data[i])


def two_globals(data):
    """plate_6: a and b global, and [c] of both."""
    probs_c = simplex("probs_c", THREE_WIDE)
    a = latent("a", simplex("probs_a", TWO))
    b = latent("b", simplex("probs_b", [0.6, 0.4]))
    with numpyro.plate("b_axis", len(data)):
        seen("c", Vindex(probs_c)[a, b], data)


def ladder(data, scale=1):
    """plate_7: a → b, [a → c; b, c → d → e]."""
    with handlers.scale(scale=scale):
        probs_c, probs_d = simplex("probs_c", STEEP_ROWS), simplex("probs_d", CUBE)
        probs_e = simplex("probs_e", STEEP_ROWS)
        a = latent("a", simplex("probs_a", TWO))
        b = latent("b", simplex("probs_b", ROWS)[a])
        with numpyro.plate("data", len(data)):
            c = latent("c", probs_c[a])
            d = latent("d", Vindex(probs_d)[b, c])
            seen("obs", probs_e[d], data)


def plates_apart(b_data, d_data, scale=1):
    """plates_1: two plates that have nothing to do with each other."""
    with handlers.scale(scale=scale):
        probs_a, probs_b = simplex("probs_a", TWO), simplex("probs_b", ROWS)
        probs_c, probs_d = simplex("probs_c", [0.75, 0.25]), simplex("probs_d", CUBE[0])
        with numpyro.plate("a_axis", len(b_data)):
            a = latent("a", probs_a)
            seen("b", probs_b[a], b_data)
        with numpyro.plate("c_axis", len(d_data)):
            c = latent("c", probs_c)
            seen("d", probs_d[c], d_data)


def plates_of_one_root(b_data, c_data, scale=1):
    """plates_2: [b] ← a → [c], both plates on one dimension."""
    with handlers.scale(scale=scale):
        probs_b, probs_c = simplex("probs_b", ROWS), simplex("probs_c", STEEP_ROWS)
        a = latent("a", simplex("probs_a", TWO))
        with numpyro.plate("b_axis", len(b_data)):
            seen("b", probs_b[a], b_data)
        with numpyro.plate("c_axis", len(c_data)):
            seen("c", probs_c[a], c_data)


def nested_plates(data, scale=1):
    """plates_3: a → [[b]]."""
    with handlers.scale(scale=scale):
        probs_b = simplex("probs_b", ROWS)
        a = latent("a", simplex("probs_a", TWO))
        with numpyro.plate("outer", 2), numpyro.plate("inner", 2):
            seen("b", probs_b[a], data)


def tree_of_plates(data, scale=1):
    """plates_4: a → [b → [c]]."""
    with handlers.scale(scale=scale):
        probs_b, probs_c = simplex("probs_b", ROWS), simplex("probs_c", CUBE[0])
        a = latent("a", simplex("probs_a", TWO))
        with numpyro.plate("outer", 2):
            b = latent("b", probs_b[a])
            with numpyro.plate("inner", 2):
                seen("c", probs_c[b], data)


def tree_with_a_shortcut(data, scale=1):
    """plates_5: a → [b → [c ← a]]."""
    with handlers.scale(scale=scale):
        probs_b, probs_c = simplex("probs_b", ROWS), simplex("probs_c", CUBE)
        a = latent("a", simplex("probs_a", TWO))
        with numpyro.plate("outer", 2):
            b = latent("b", probs_b[a])
            with numpyro.plate("inner", 2):
                seen("c", Vindex(probs_c)[a, b], data)


def crossed_plates(data, scale=1):
    """plates_6: [b] × [c] → d, all below a: "intractable" to NumPyro, which wants one as a loop."""
    with handlers.scale(scale=scale):
        probs_b, probs_c = simplex("probs_b", ROWS), simplex("probs_c", STEEP_ROWS)
        probs_d = simplex("probs_d", CUBE)
        b_axis = numpyro.plate("b_axis", data.shape[-1], dim=-1)
        c_axis = numpyro.plate("c_axis", data.shape[-2], dim=-2)
        a = latent("a", simplex("probs_a", TWO))
        with b_axis:
            b = latent("b", probs_b[a])
        with c_axis:
            c = latent("c", probs_c[a])
        with b_axis, c_axis:
            seen("d", Vindex(probs_d)[b, c], data)


def crossed_plate_and_loop(data, scale=1):
    """plates_6, with a loop over the second axis, inside the plate of the first."""
    with handlers.scale(scale=scale):
        probs_b, probs_c = simplex("probs_b", ROWS), simplex("probs_c", STEEP_ROWS)
        probs_d = simplex("probs_d", CUBE)
        b_axis = numpyro.plate("b_axis", data.shape[0])
        a = latent("a", simplex("probs_a", TWO))
        with b_axis:
            b = latent("b", probs_b[a])
        c = [latent(f"c_{j}", probs_c[a]) for j in range(data.shape[1])]
        with b_axis:
            for j in range(data.shape[1]):
                seen(f"d_{j}", Vindex(probs_d)[b, c[j]], data[:, j])


def crossed_loops(data, scale=1):
    """plates_6, with loops for both."""
    with handlers.scale(scale=scale):
        probs_b, probs_c = simplex("probs_b", ROWS), simplex("probs_c", STEEP_ROWS)
        probs_d = simplex("probs_d", CUBE)
        a = latent("a", simplex("probs_a", TWO))
        b = [latent(f"b_{i}", probs_b[a]) for i in range(data.shape[0])]
        c = [latent(f"c_{j}", probs_c[a]) for j in range(data.shape[1])]
        for i, j in np.ndindex(data.shape):
            seen(f"d_{i}_{j}", Vindex(probs_d)[b[i], c[j]], data[i, j])


def crossed_plates_of_trees(data, scale=1):
    """plates_7: [b] → [[d]], [c] → [[e]]: a tree of variables, not of plates."""
    with handlers.scale(scale=scale):
        probs_b, probs_c = simplex("probs_b", ROWS), simplex("probs_c", STEEP_ROWS)
        probs_d, probs_e = simplex("probs_d", [[0.3, 0.7], [0.2, 0.8]]), simplex("probs_e", CUBE[0])
        b_axis = numpyro.plate("b_axis", 2, dim=-1)
        c_axis = numpyro.plate("c_axis", 2, dim=-2)
        a = latent("a", simplex("probs_a", TWO))
        with b_axis:
            b = latent("b", probs_b[a])
        with c_axis:
            c = latent("c", probs_c[a])
        with b_axis, c_axis:
            seen("d", probs_d[b], data)
            seen("e", probs_e[c], data)


def global_in_the_inner_plate(data):
    """plates_8: [b], and [[c]] of b and the global a: NumPyro enumerates one as a loop."""
    probs_b, probs_c = simplex("probs_b", [0.6, 0.4]), simplex("probs_c", THREE_WIDE)
    a = latent("a", simplex("probs_a", TWO))
    with numpyro.plate("outer", 2):
        b = latent("b", probs_b)
        with numpyro.plate("inner", 2):
            seen("c", Vindex(probs_c)[a, b], data)


def two_levels(data):
    """plate_9: a → [b → c]."""
    probs_a, probs_b, probs_c = level_probs()
    a = latent("a", probs_a)
    with numpyro.plate("b_axis", len(data)):
        b = latent("b", probs_b[a])
        seen("c", probs_c[b], data)


def two_levels_of_plates(data):
    """plate_10: a → [[b → c]]."""
    probs_a, probs_b, probs_c = level_probs()
    a = latent("a", probs_a)
    with numpyro.plate("i", 2, dim=-2), numpyro.plate("j", 3, dim=-1):
        b = latent("b", probs_b[a])
        seen("c", probs_c[b], data)


def two_levels_in_the_plate(data):
    """plate_11: [a → [b → c]]."""
    probs_a, probs_b, probs_c = level_probs()
    with numpyro.plate("i", 2, dim=-2):
        a = latent("a", probs_a)
        with numpyro.plate("j", 3, dim=-1):
            b = latent("b", probs_b[a])
            seen("c", probs_c[b], data)


def three_levels(data):
    """plate_12: a → [b → [c → d]]."""
    probs_a, probs_b, probs_c = level_probs()
    probs_d = simplex("probs_d", THREE_BY_THREE)
    a = latent("a", probs_a)
    with numpyro.plate("i", 2, dim=-2):
        b = latent("b", probs_b[a])
        with numpyro.plate("j", 3, dim=-1):
            c = latent("c", probs_c[b])
            seen("d", probs_d[c], data)


def unobserved_branch(data):
    """plate_13: a → [b], a → [[c → d]]; nothing depends on b."""
    probs_a, probs_b, _ = level_probs()
    probs_c = simplex("probs_of_c", [[0.3, 0.7], [0.4, 0.6]])
    probs_d = simplex("probs_d", THREE_BY_THREE[:2])
    a = latent("a", probs_a)
    with numpyro.plate("i", 2, dim=-2):
        latent("b", probs_b[a])
        with numpyro.plate("j", 3, dim=-1):
            c = latent("c", probs_c[a])
            seen("d", probs_d[c], data)


def one_datum_for_a_plate(scale=1):
    """subsample_2 without subsampling: a plate of 3 and one of 6, a number for an observation."""
    with handlers.scale(scale=scale):
        locs = numpyro.param("locs", jnp.array([0.0, 1.0]))
        a = latent("a", simplex("probs_a", [0.4, 0.6]))
        with numpyro.plate("b_axis", size=3):
            numpyro.sample("b", dist.Normal(locs[a], 1.0), obs=0)
        with numpyro.plate("c_axis", size=6):
            numpyro.sample("c", dist.Normal(locs[a], 1.0), obs=1)


def one_datum_for_nested_plates(scale=1):
    """subsample_3 without subsampling: [a, [b, [c]]] of sizes 3, 6 and 9."""
    with handlers.scale(scale=scale):
        locs = numpyro.param("locs", jnp.array([0.0, 1.0]))
        probs_a = simplex("probs_a", [0.4, 0.6])
        with numpyro.plate("a_axis", size=3):
            a = latent("a", probs_a)
            with numpyro.plate("b_axis", size=6):
                numpyro.sample("b", dist.Normal(locs[a], 1.0), obs=0)
                with numpyro.plate("c_axis", size=9):
                    numpyro.sample("c", dist.Normal(locs[a], 1.0), obs=1)
