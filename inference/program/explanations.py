"""Sentences for what fails in a program: each names the site or the argument, and pastes the fix.

A rule for each kind of error, in this order; the first that has something to say is taken. What has
no rule is said in the words of whose error it is, at the line of the program.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from emjax.program.array_like import is_array, kind_of, no_numbers
from emjax.program.failures import (
    LOOKS_AT_VALUES,
    OF_PYTHON,
    DependsOnData,
    Failure,
    described,
)
from emjax.program.looked_at import TRUTH, value_looked_at

AT_LEAST_ONE_ROW = "Pass data of at least one row."
TRANSFORMED = (
    "is within a function that JAX transforms (jit, vmap, lax.scan, grad), which hides it from EM. "
    "Write numpyro.plate for vmap, numpyro.contrib.control_flow.scan for lax.scan, and no jit: EM "
    "compiles the program itself."
)


@contextmanager
def failures_explained() -> Iterator[None]:
    """Raise a `ValueError` that says what is wrong in the program, in place of a library's error.

    What says that values are looked at goes on: the program may be traced with them.
    """
    try:
        yield
    except LOOKS_AT_VALUES:
        raise
    except Exception as error:
        # a size that an argument gives is looked at, as by `int(...)`
        if "Tracer" in str(error) and SIZE.search(str(error)):
            raise DependsOnData from error
        failure = Failure.of(error)
        sentence = explanation(failure)
        if sentence is None:
            raise
        raise ValueError(sentence + failure.place) from error


@contextmanager
def function_explained(what: str) -> Iterator[None]:
    """Raise a `ValueError` that says what is wrong in a function that the user has given.

    `what`: the function, in words.
    """
    try:
        yield
    except LOOKS_AT_VALUES as error:
        raise ValueError(looked_at(error, what)) from error
    except Exception as error:
        failure = Failure.of(error)
        sentence = explanation(failure)
        if sentence is None:
            raise
        raise ValueError(f"{what}: {sentence}{failure.place}") from error


def explanation(failure: Failure) -> str | None:
    """Return what went wrong, in words; None where the error is the program's own."""
    if failure.is_of_emjax:
        return None
    is_of_program = not failure.is_raised and isinstance(failure.error, OF_PYTHON)
    if not failure.library and not is_of_program:
        return None
    message = str(failure.error)
    for pattern, rule in RULES:
        match = re.search(pattern, message)
        sentence = match and rule(failure, match)
        if sentence:
            return sentence
    return _as_it_stands(failure) if failure.library else None


def looked_at(error: BaseException, who: str = "The program") -> str:
    """Return that a program looks at values that there are none of, where, and what to write."""
    cause = error.__cause__ if isinstance(error, DependsOnData) else None
    failure = Failure.of(cause or error)
    # what is no array, such as a data frame, asks for values of what meets it
    return (_not_numbers(failure) or value_looked_at(failure, who)) + failure.place


def reads_as_given(error: BaseException | None, given: Sequence[Any]) -> bool:
    """Whether a program reads arguments, of which arrays were made, as what they are.

    `error`: what it failed with; `given`: the arguments.
    """
    if match := re.search(OF_FRAMES, str(error)):
        return match[1] is None or any(hasattr(argument, match[1]) for argument in given)
    # several columns, by a list of their names
    return "non-tuple sequence" in str(error)


# ── rules ─────────────────────────────────────────────────────────────────────────────────────────


def _ambiguous(failure: Failure, _: Any) -> str:
    if size := _plate_size(failure, _):
        return size
    if failure.symbols:
        return value_looked_at(failure)
    return (
        f"A{TRUTH[1:]} needs one truth value, and here is an array of "
        "them. Write jnp.where(condition, a, b) for a choice element by element, condition.any() "
        "or condition.all() for one of all data."
    )


def _looks_at_elements(failure: Failure, _: Any) -> str:
    return value_looked_at(failure) if failure.symbols else ""


def _plate_size(failure: Failure, _: Any) -> str:
    """Return what is wrong with the size of a plate."""
    given = failure.statement_arguments
    if "size" not in given:
        return ""
    size = given["size"]
    if isinstance(size, int | np.integer):
        return f"{failure.statement} has {size} elements. {AT_LEAST_ONE_ROW}"
    return (
        f"{failure.statement}: its size {described(size)}, and is to be a whole number. Write "
        f"numpyro.plate('{given['name']}', len(x))."
    )


def _size(failure: Failure, _: Any) -> str:
    """Return which number is no size."""
    for name, value in failure.read.items():
        is_size = isinstance(value, int | np.integer) and value >= 0
        if isinstance(value, int | float | str | np.number) and not is_size:
            fix = f": {name}={int(value)}" if _is_whole_float(value) else " of at least 0"
            return f"A size must be a whole number, and {name} is {value!r}. Pass an int{fix}."
    return f"A size must be a whole number of at least 0, an int. {_first_line(failure)}"


def _is_whole_float(value: Any) -> bool:
    return isinstance(value, float | np.floating) and float(value).is_integer()


def _more_than_rows(failure: Failure, match: re.Match) -> str:
    number, rows = match.groups()
    return (
        f"{_where(failure)}the program starts from {number} rows of the data, and there are "
        f"{rows}: more components than rows. Use at most {rows}, or draw with replacement."
    )


def _no_rows(failure: Failure, _: Any) -> str:
    return (
        f"{_where(failure)}the program draws a start from data that are empty. {AT_LEAST_ONE_ROW}"
    )


def _empty(failure: Failure, _: Any) -> str:
    for name, value in failure.read.items():
        if is_array(value) and 0 in value.shape:
            return f"{name} is empty: it has shape {tuple(value.shape)}. Pass data with entries."
    return ""


def _not_numbers(failure: Failure, _: Any = None) -> str:
    """Return which value that the line reads is no array of numbers."""
    for name, value in failure.read.items():
        # a string or None may be an option
        is_option = value is None or isinstance(value, str | dict)
        if not is_option and (reason := no_numbers(name, value, name)):
            return _where(failure) + reason
    return ""


def _batch_shape(failure: Failure, _: Any) -> str:
    """Return that a distribution does not fit into its plates."""
    for frame, _ in reversed(failure.frames):
        values = frame.f_locals
        if "expected_shape" not in values or "dist_batch_shape" not in values:
            continue
        batch, expected = tuple(values["dist_batch_shape"]), tuple(values["expected_shape"])
        plates = ", ".join(f"'{p.name}' ({p.size})" for p in values["cond_indep_stack"])
        extra = len(batch) - len(expected)
        fix = "Give the plate as many elements as there are rows, or correct the shapes."
        if extra > 0 and batch[: len(expected)] == expected:
            fix = f"What belongs to one element is one event: dist.…(...).to_event({extra})."
        return (
            f"Site '{values['msg']['name']}': its distribution has batch shape {batch}, and its "
            f"plates {plates} ask for {expected}, counted from the right. {fix}"
        )
    return ""


def _shapes(failure: Failure, _: Any) -> str:
    return (
        f"{_where(failure)}Shapes do not go together: {_first_line(failure)} Axes are matched from "
        "the last one: read a parameter at its latent (loc[z]), add an axis (x[:, None]), or "
        "correct the data."
    )


def _index(failure: Failure, _: Any) -> str:
    # what is indexed is read first
    for name, value in list(failure.read.items())[1:]:
        if isinstance(value, list | tuple):
            return (
                f"{name} is a {kind_of(value)}, and indexes an array. Pass an array: "
                f"np.asarray({name})."
            )
        if is_array(value) and value.dtype.kind == "f":
            return (
                f"{name} indexes an array, and holds no whole numbers ({value.dtype}). Pass "
                f"{name}.astype(int)."
            )
    return ""


def _too_few_axes(failure: Failure, match: re.Match) -> str:
    frame, _ = failure.line or (None, 0)
    wanted, found = match.groups()
    arrays = {name: v for name, v in failure.read.items() if is_array(v) and str(v.ndim) == found}
    if frame is None or not arrays:
        return ""
    name, value = next(iter(arrays.items()))
    return (
        f"{name} has shape {tuple(value.shape)}, and the program takes {wanted} axes. A single "
        f"series is one column: pass {name}[:, None]."
    )


def _of_frame(failure: Failure, match: re.Match) -> str:
    """Return that an array is asked for what data frames have."""
    name = next((name for name, value in failure.read.items() if is_array(value)), "")
    if not name:
        return ""
    if match[1] is None:
        return f"{name} is an array, which has no columns by name. Pass the column as an argument."
    return f"{name} is an array, which has no `{match[1]}`."


def _no_array(failure: Failure, _: Any) -> str:
    """Return which value that the line reads is no array, but a list, a number, None."""
    for name, value in failure.read.items():
        if isinstance(value, list | tuple):
            return f"{name} is a {kind_of(value)}. Pass an array: np.asarray({name})."
        if isinstance(value, int | float):
            return f"{name} is {value!r}. Pass an array: np.atleast_1d({name})."
        if value is None or isinstance(value, str | dict | set):
            return f"{name} {described(value)}, and the program takes an array. Pass the data."
    return ""


def _no_number(failure: Failure, _: Any) -> str:
    for name, value in failure.read.items():
        if value is None or isinstance(value, str):
            return f"{name} is {value!r}, and the program takes a number."
    return ""


def _by_zero(failure: Failure, _: Any) -> str:
    zeros = [name for name, v in failure.read.items() if isinstance(v, int | float) and v == 0]
    return f"{zeros[0]} is 0, and the program divides by it." if zeros else ""


def _transformed(failure: Failure, _: Any) -> str:
    return f"{failure.statement or 'A statement of the program'} {TRANSFORMED}"


def _where(failure: Failure) -> str:
    return f"{failure.statement}: " if failure.statement else ""


def _first_line(failure: Failure) -> str:
    line = str(failure.error).strip().partition("\n")[0]
    return line if line.endswith(".") else f"{line}."


def _as_it_stands(failure: Failure) -> str:
    """Return an error in the words of the library that raised it."""
    return f"{_where(failure)}{failure.library} says: {_first_line(failure)}"


SIZE = re.compile(
    "Shapes must be 1D sequences|cannot be interpreted as an integer|element be nonnegative"
    "|negative dimensions"
)
OF_FRAMES = "(?:Tracer|ArrayImpl|ndarray).* has no attribute '?(\\w+)|string indexing"
# (what the error says, what to say instead)
RULES: tuple[tuple[str, Callable[[Failure, Any], str]], ...] = (
    ("truth value of an array", _ambiguous),
    ("Only integer scalar arrays|unhashable type: '.*Tracer'", _looks_at_elements),
    ("", _plate_size),
    (SIZE.pattern, _size),
    (r"larger sample \(size (\d+)\) than population \(size (\d+)\)", _more_than_rows),
    ("a must be greater than 0", _no_rows),
    ("", _not_numbers),
    ("", _batch_shape),
    ("with size 0|zero-size|empty", _empty),
    ("ncompatible shapes|same shape|hape mismatch|broadcast together|roadcast", _shapes),
    ("Indexer must|non-tuple sequence|only integers, slices", _index),
    (r"values to unpack \(expected (\d+), got (\d+)\)", _too_few_axes),
    (OF_FRAMES, _of_frame),
    (r"has no len\(\)|has no attribute|not subscriptable|ndarray or scalar", _no_array),
    ("unsupported operand|must be real number|not supported between", _no_number),
    ("division by zero", _by_zero),
    ("unexpected tracer", _transformed),
)
