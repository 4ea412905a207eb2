"""Sources of values as people also write them: moved there and back, put into another array, kept
within bounds.
"""

from typing import Any

# each is the value itself
MOVES = (
    "(lambda v: jnp.pad(v, 1, constant_values=0.5)[tuple(slice(1, -1) for _ in v.shape)])({})",
    "(lambda v: jnp.stack([v, 0.5 * v])[0])({})",
    "(lambda v: jnp.stack([0.5 * v, v], axis=-1)[..., 1])({})",
    "(lambda v: jnp.zeros_like(v).at[...].set(v))({})",
    "(lambda v: jnp.zeros_like(v).at[jnp.arange(len(v))].set(v) if v.ndim else v)({})",
    "(lambda v: jnp.ones_like(v).at[:-1].set(v[:-1]).at[-1:].set(v[-1:]) if v.ndim else v)({})",
    "(lambda v: jnp.zeros_like(v).at[::-1].add(v[::-1]) if v.ndim else v)({})",
    "(lambda v: jnp.concatenate([v, 0.5 * v])[: len(v)] if v.ndim else v)({})",
    "(lambda v: jnp.tile(v, 2)[..., v.shape[-1] :] if v.ndim else v)({})",
    "jnp.flip(jnp.flip({}))",
)
# each is another value of the same kind, with a kink
CLAMPS = {
    "probability": ("jnp.clip({}, 0.2, 0.8)", "clamp_probs({})"),
    "positive": ("jnp.clip({}, 0.4, 2.5)", "jnp.maximum({}, 0.5)"),
    "real": ("jnp.clip({}, -1.5, 1.5)", "jnp.minimum({}, 1.0)"),
}
# each treats one row otherwise than the others
SETS = (
    "(lambda v: v.at[0].set(0.4) if v.ndim else v)({})",
    "(lambda v: v.at[-1].multiply(0.5) if v.ndim else v)({})",
    "(lambda v: v.at[:1].apply(jax.nn.sigmoid) if v.ndim else v)({})",
)


def rewritten(choices: Any, source: str, kind: str, event_ndim: int, rows_are_alike: bool) -> str:
    """Return the source, or one that moves its value, or one of another value of this kind.

    `rows_are_alike`: whether all rows must be treated alike.
    """
    if choices.chance(0.1):
        source = choices.pick(MOVES).format(source)
    if kind in CLAMPS and choices.chance(0.06):
        source = choices.pick(CLAMPS[kind]).format(source)
    if kind in CLAMPS and not event_ndim and not rows_are_alike and choices.chance(0.06):
        source = choices.pick(SETS).format(source)
    return source
