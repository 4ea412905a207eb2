"""What a Python object is, as a value: what a trace could tell apart is told apart."""

from __future__ import annotations

import functools
import types
from argparse import Namespace
from collections import defaultdict
from typing import Annotated, NamedTuple, Union

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from emjax.program.identity import Unidentified, identity

RATE = 1.0
LABELS = Union[int, tuple[int, ...]]  # noqa: UP007, the other kind of union


def reads_a_global(x):
    return RATE * x


def calls_another(x):
    return reads_a_global(x)


def reads_a_type(x):
    return isinstance(x, LABELS)


def recursive(x):
    return recursive(x - 1) if x else 0


def closing_over(value):
    return lambda x: value * x


class Pair(NamedTuple):
    first: int
    second: list


class Filled(dict):
    def __missing__(self, key):
        return RATE


class Slotted(dict):
    __slots__ = ("value",)


class Options:
    def __init__(self, **values):
        vars(self).update(values)


@pytest.mark.parametrize(
    "make",
    [
        lambda: closing_over(3),
        lambda: closing_over(np.arange(3)),
        lambda: closing_over(jnp.arange(3)),
        lambda: functools.partial(reads_a_global, num_components=3),
        lambda: lambda x, k=2: k * x,
        lambda: Namespace(k=3, names=["a"]),
        lambda: types.SimpleNamespace(k={"a": 1}),
        lambda: Options(k=[1, {2, 3}]),
        lambda: optax.adam(1e-2),
        lambda: jax.jit(closing_over(3)),
        lambda: Options(k=3).__init__,
        lambda: slice(1, None),
        lambda: defaultdict(list, k=[3]),
        lambda: {"k": 3}.get,
        lambda: Pair(1, [2]),
    ],
)
def test_what_is_made_anew_is_the_same(make):
    assert identity(make()) == identity(make())
    hash(identity(make()))


@pytest.mark.parametrize(
    "first, second",
    [
        (1, 1.0),
        (1, True),
        (closing_over(3), closing_over(4)),
        (closing_over(np.arange(3)), closing_over(np.arange(3.0))),
        (closing_over(np.arange(3)), closing_over(np.array([0, 1, 3]))),
        (functools.partial(max, 1), functools.partial(max, 2)),
        (functools.partial(max, key=1), functools.partial(max, key=2)),
        (lambda x: x + 1, lambda x: x + 2),
        (lambda x, k=1: k, lambda x, k=2: k),
        (Namespace(k=1), types.SimpleNamespace(k=1)),
        (Namespace(k=1), Namespace(k=2)),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ([1], (1,)),
        (optax.adam(1e-2), optax.adam(2e-2)),
        (slice(0, 2), slice(0, 3)),
        (defaultdict(closing_over(2)), defaultdict(closing_over(3))),
        ({"k": 2}.get, {"k": 3}.get),
        ({"k": 2}.get, {"k": 2}.pop),
    ],
)
def test_what_a_trace_could_tell_apart_differs(first, second):
    assert identity(first) != identity(second)


def test_a_function_is_another_one_when_a_global_changes_that_it_or_its_callee_reads(monkeypatch):
    before = identity(reads_a_global), identity(calls_another)
    monkeypatch.setitem(globals(), "RATE", 2.0)
    after = identity(reads_a_global), identity(calls_another)
    assert before[0] != after[0] and before[1] != after[1]


class Program:
    def __call__(self, x):
        return self.rate() * x

    def rate(self):
        return RATE


def test_an_object_is_another_one_when_a_global_changes_that_its_methods_read(monkeypatch):
    before = identity(Program()), identity(Program().rate)
    assert (identity(Program()), identity(Program().rate)) == before
    monkeypatch.setitem(globals(), "RATE", 2.0)
    after = identity(Program()), identity(Program().rate)
    assert before[0] != after[0] and before[1] != after[1]


class Shifted(dist.Normal):
    shift = 1.0

    def log_prob(self, value):
        return super().log_prob(value - RATE - self.shift)


def makes_one():
    return Shifted(0.0, 1.0)


COMPILED, VECTORIZED = jax.jit(reads_a_global), jax.vmap(reads_a_global)


def test_a_program_is_another_one_when_what_its_classes_read_changes(monkeypatch):
    first = identity(makes_one)
    assert identity(makes_one) == first
    monkeypatch.setattr(Shifted, "shift", 2.0)
    second = identity(makes_one)
    monkeypatch.setitem(globals(), "RATE", 3.0)
    assert len({first, second, identity(makes_one)}) == 3


def test_a_program_is_another_one_when_what_a_wrapped_function_reads_changes(monkeypatch):
    def program(x):
        return COMPILED(x)

    before = identity(program)
    monkeypatch.setitem(globals(), "RATE", 2.0)
    assert identity(program) != before
    # of this one it is not known what it holds
    with pytest.raises(Unidentified):
        identity(lambda x: VECTORIZED(x))


def test_a_program_is_another_one_when_a_module_changes_that_it_reads(monkeypatch):
    module = types.ModuleType("options_of_a_user")
    module.size = 3
    monkeypatch.setitem(globals(), "options", module)
    program = lambda x: options.size * x  # noqa: E731
    before = identity(program)
    assert identity(program) == before
    module.size = 4
    assert identity(program) != before


def test_zero_has_a_sign_and_nan_is_itself():
    assert identity(0.0) != identity(-0.0) and identity(np.nan) == identity(float("nan"))


def test_what_changes_in_place_is_another_value():
    options = Options(k=1)
    before = identity(options)
    options.k = 2
    assert identity(options) != before
    counts = {"k": 2}
    count_of = counts.get
    before = identity(count_of)
    counts["k"] = 3
    assert identity(count_of) != before


def test_what_contains_itself_is_identified():
    assert identity(recursive) == identity(recursive)
    cycle: list = []
    cycle.append(cycle)
    assert identity(cycle) == identity(cycle)


def test_types_with_arguments_are_identified():
    # what annotates a function within a program is read by the program
    assert identity(reads_a_type) == identity(reads_a_type)
    assert identity(list[int]) != identity(list[float])
    with pytest.raises(Unidentified):
        identity(Annotated[int, []])


def test_a_dictionary_is_another_one_when_a_global_changes_that_its_class_reads(monkeypatch):
    before = identity(Filled())
    assert identity(Filled()) == before
    monkeypatch.setitem(globals(), "RATE", 2.0)
    assert identity(Filled()) != before


HIDDEN = {
    "iterator": iter([1]),
    "built in": open,
    "objects": np.array([object()]),
    "a generator's method": np.random.default_rng(0).normal,
    "slots": Slotted(),
}


@pytest.mark.parametrize("value", HIDDEN.values(), ids=[*HIDDEN])
def test_hidden_state_is_no_value(value):
    if value is open:
        assert identity(value) is value
        return
    with pytest.raises(Unidentified):
        identity(value)
