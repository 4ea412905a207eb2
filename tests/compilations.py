"""How often JAX traces, lowers and compiles something: what a first call pays for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import jax.monitoring

TRACED, LOWERED, COMPILED = (
    f"/jax/core/compile/{name}_duration"
    for name in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")
)
# how JAX itself places a constant, once in a process
STAGING = "jit(stage)"


@dataclass
class Compilations:
    """The names of the functions that were traced, lowered and compiled, in this order.

    Operations on arrays outside a compiled function have the name of a primitive, and are compiled
    once in a process for each shape: a test sees them only if none before it had such a shape.
    """

    traced: list[str] = field(default_factory=list)
    lowered: list[str] = field(default_factory=list)
    compiled: list[str] = field(default_factory=list)


@contextmanager
def compilations(from_nothing: bool = False) -> Iterator[Compilations]:
    """Count within a `with` statement: `with compilations() as count:`, `len(count.compiled)`.

    `from_nothing`: what other tests have compiled is forgotten before, so that counts do not depend
    on them; it costs them their compilations.
    """
    count = Compilations()
    lists = {TRACED: count.traced, LOWERED: count.lowered, COMPILED: count.compiled}

    def listen(event: str, duration: float, **about) -> None:
        name = str(about.get("fun_name", ""))
        if event in lists and name != STAGING:
            lists[event].append(name)

    if from_nothing:
        jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield count
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
