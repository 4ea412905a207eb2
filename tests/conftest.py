"""Tests run in float64 unless they ask for float32, and compile quickly rather than well
(`test_optimized.py` says which do not).
"""

import collections
import dataclasses
import functools
import inspect
import os
import typing
import zlib

from experiments import quick_compilation

quick_compilation.ask_for_it()

import equinox as eqx  # noqa: E402
import jax  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402
from beartype import BeartypeConf, beartype  # noqa: E402

from tests.compiled_once import share_what_is_compiled  # noqa: E402

jax.config.update("jax_enable_x64", True)
share_what_is_compiled()


def has_shapes(annotation) -> bool:
    """Whether an annotation says the shape of an array, however deep inside it."""
    if isinstance(annotation, type) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return any(has_shapes(part) for part in typing.get_args(annotation))


def has_dunder(function) -> bool:
    """Whether a function is one of Python's own names, such as `__call__`."""
    return function.__name__.startswith("__")


def is_program(function) -> bool:
    """Whether a function is a program behind scikit-learn's interface, made an `EM` of again and
    again. These share what is compiled of it, if they see that it is the same: not of a wrapper.
    """
    is_named_so = function.__name__.endswith("program")
    return is_named_so and function.__module__.startswith("emjax.sklearn")


checked = beartype(conf=BeartypeConf(violation_type=jaxtyping.TypeCheckError))


def where_it_pays(jaxtyped):
    """Return jaxtyping's decorator for what says shapes; all else gets beartype alone, which
    takes a tenth of the time: of a thousand calls while a program is traced, one has shapes.

    What starts with an underscore gets neither: pyright reads it, and half of all calls are such.
    """

    def decorated(fn=None, **options):
        if fn is None:
            return functools.partial(decorated, **options)
        if inspect.isfunction(fn) and "<locals>" in fn.__qualname__:
            # to decorate a closure at every call takes half of the time to trace a program
            return fn
        if inspect.isfunction(fn) and fn.__name__.startswith("_") and not has_dunder(fn):
            return fn
        if inspect.isfunction(fn) and is_program(fn):
            return fn
        is_record = dataclasses.is_dataclass(fn) and not issubclass(fn, eqx.Module)
        function = fn.__init__ if is_record else fn
        if not inspect.isfunction(function):
            return jaxtyped(fn, **options)
        if any(has_shapes(annotation) for annotation in function.__annotations__.values()):
            return jaxtyped(fn, **options)
        if is_record:
            fn.__init__ = checked(fn.__init__)
            return fn
        return checked(fn)

    return decorated


if os.environ.get("HYPOTHESIS_PROFILE") != "thorough":
    # the import hook of `--jaxtyping-packages` looks it up here
    jaxtyping.jaxtyped = where_it_pays(jaxtyping.jaxtyped)


def pytest_collection_finish() -> None:
    """Have no garbage searched for in what was imported."""
    quick_compilation.leave_imports_alone()


class Monkeypatch(pytest.MonkeyPatch):
    """A monkeypatch: what was traced before it is not shared with what is traced after it."""

    has_set = False

    def setattr(self, *args, **kwargs):
        self._share_nothing()
        super().setattr(*args, **kwargs)

    def setitem(self, *args, **kwargs):
        self._share_nothing()
        super().setitem(*args, **kwargs)

    def undo(self):
        if self.has_set:
            self._share_nothing()
        super().undo()

    def _share_nothing(self) -> None:
        # not before: the import hook is installed by then
        from emjax.run.compiler import KEPT

        KEPT.clear()
        self.has_set = True


@pytest.fixture
def monkeypatch():
    patch = Monkeypatch()
    yield patch
    patch.undo()


ONE_COMPILED_OF = 5


@pytest.fixture
def mostly_by_numpy(request):
    """Have what emjax compiles traced, and evaluated by NumPy: to compile what runs a few times
    takes most of the time. Of five tests, one is compiled all the same: by its name, always the
    same one; and all are that are marked `compiled` or count compilations, and where another level
    of optimization is asked for.
    """
    # not before: the import hook is installed by then
    from emjax.run.compilation import CompiledFunction
    from tests.oracles.by_numpy import in_place_of_compilation

    compiled = CompiledFunction.__call__
    is_quick = quick_compilation.LITTLE_OPTIMIZATION in os.environ["XLA_FLAGS"]
    is_about_it = request.node.get_closest_marker("compiled") or has_to_do_with_compilation(request)
    is_one_of = zlib.crc32(request.node.nodeid.encode()) % ONE_COMPILED_OF == 0
    if is_quick and not is_about_it and not is_one_of:
        CompiledFunction.__call__ = in_place_of_compilation
    yield
    CompiledFunction.__call__ = compiled


def has_to_do_with_compilation(request) -> bool:
    """Whether a test names what counts compilations, or what is compiled."""
    names = {*inspect.unwrap(request.function).__code__.co_names, *request.fixturenames}
    return bool({"compilations", "CompiledFunction"} & names)


ONE_CASE_OF = 3


def pytest_addoption(parser) -> None:
    """Add `--gradients`: every run of every test that has converged is asked for its derivative;
    and `--thorough`: all cases of all tests.
    """
    parser.addoption("--gradients", action="store_true", help="check that what converged has")
    parser.addoption(
        "--thorough", action="store_true", help="all cases of tests that are `sampled`"
    )


def pytest_collection_modifyitems(config, items: list) -> None:
    """Of a test that is `sampled`, run one case in three: of different tests different ones, so
    that each model is asked something. A case that is named is run.
    """
    is_thorough = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
    if is_thorough or config.getoption("--thorough") or any("[" in arg for arg in config.args):
        return
    functions = [item.nodeid.split("[")[0] for item in items]
    cases, number = collections.Counter(functions), collections.Counter()
    kept, left = [], []
    for item, function in zip(items, functions, strict=True):
        first = zlib.crc32(function.encode()) % min(ONE_CASE_OF, cases[function])
        is_left = number[function] % ONE_CASE_OF != first
        number[function] += 1
        (left if is_left and item.get_closest_marker("sampled") else kept).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = kept


@pytest.fixture(autouse=True)
def what_converged_has(request):
    """Check every run of a test that says it has converged, where that is asked for."""
    if not request.config.getoption("--gradients"):
        yield
        return
    # not before: the import hook is installed by then
    from tests.gradients import Ended

    ended = Ended()
    with pytest.MonkeyPatch.context() as patch:
        ended.watch(patch)
        yield
    ended.check()
