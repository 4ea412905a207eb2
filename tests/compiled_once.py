"""What is the same to XLA is compiled once: the cases of a parametrized test whose difference is in
no equation, and an `EM` made anew of a program that cannot be told to be the same.
"""

from collections import OrderedDict
from hashlib import sha256

from jax._src import compiler

# of a file's tests, which are alike, and few enough that their code is no matter for the memory
MOST_KEPT = 200
KEPT: OrderedDict[tuple, object] = OrderedDict()


def share_what_is_compiled() -> None:
    """Have XLA compile anew only what differs in its text, its options or its devices.

    What calls Python is compiled each time. A JAX that has another name for it is left as it is.
    """
    compiled_anew = getattr(compiler, "backend_compile_and_load", None)
    if compiled_anew is None:
        return

    def compiled(backend, module, executable_devices, options, host_callbacks, *args, **kwargs):
        def anew():
            return compiled_anew(
                backend, module, executable_devices, options, host_callbacks, *args, **kwargs
            )

        if host_callbacks or args or kwargs:
            return anew()
        text = module.operation.get_asm(enable_debug_info=False)
        devices = tuple(map(str, executable_devices))
        key = sha256(text.encode()).digest(), options.SerializeAsString(), devices
        if key not in KEPT:
            KEPT[key] = anew()
        KEPT.move_to_end(key)
        if len(KEPT) > MOST_KEPT:
            KEPT.popitem(last=False)
        return KEPT[key]

    compiler.backend_compile_and_load = compiled
