"""What goes wrong in a line of a program, in words: which line, what it reads, and the fix.

Errors of JAX, NumPy and NumPyro name neither the site nor the argument. An error that the program
raises itself, or that Python raises in it, stays what it is, unless what it was given explains it.
"""

from __future__ import annotations

import ast
import dis
import linecache
import os
import sys
import textwrap
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax

from emjax.numerics.guards import is_key
from emjax.program.array_like import is_array, is_array_like, kind_of
from emjax.program.identity import is_installed

# whose errors name neither site nor argument
LIBRARIES = {"jax": "JAX", "jaxlib": "JAX", "numpy": "NumPy", "numpyro": "NumPyro"}
# what Python raises where a program was given something else than it expects
OF_PYTHON = (TypeError, ValueError, AttributeError, IndexError, ZeroDivisionError, AssertionError)
# NumPyro's functions: what they state
STATEMENTS = {"sample": "Site", "param": "Parameter", "__init__": "Plate"}
# where emjax reads sites
OF_SITES = ("emjax.program.records", "emjax.graph.term_builder", "emjax.graph.site_input")
# instructions of Python that read a variable; some of 3.13 read two
READS = ("LOAD_FAST", "LOAD_NAME", "LOAD_GLOBAL", "LOAD_DEREF")
# what may be an argument of a program, or be made of one
PLAIN = (int, float, str, list, tuple, dict, set, range)
LONGEST = 100


class DependsOnData(Exception):
    """What must be known before the loop depends on data: they have to be traced as constants."""


# what JAX raises where Python asks for the value of an array that is being traced
LOOKS_AT_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.NonConcreteBooleanIndexError,
    DependsOnData,
)


@dataclass(frozen=True, eq=False)
class Failure:
    """An error that came out of a program, and where.

    - `frames`: (frame, number of the instruction) from the call of the program to the error.
    """

    error: BaseException
    frames: tuple[tuple[Any, int], ...]

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Return where an error was raised."""
        frames, traceback = [], error.__traceback__
        while traceback is not None:
            frames.append((traceback.tb_frame, traceback.tb_lasti))
            traceback = traceback.tb_next
        return cls(error, tuple(frames))

    # ── whose it is ───────────────────────────────────────────────────────────────────────────────

    @property
    def is_raised(self) -> bool:
        """Whether a `raise` or an `assert` of Python has raised it, not C."""
        frame, instruction = self.frames[-1]
        return frame.f_code.co_code[instruction] == dis.opmap["RAISE_VARARGS"]

    @property
    def library(self) -> str:
        """Whose error it is: "JAX", "NumPy", "NumPyro"; "Python" of what emjax handed on; or ""."""
        root = _root(self.frames[-1][0])
        if root == "emjax" and not self.is_of_emjax and not self._is_program(self.frames[-1][0]):
            # JAX removes its own frames, and says so
            notes = " ".join(getattr(self.error, "__notes__", ()))
            return "JAX" if "JAX" in notes else "Python"
        return LIBRARIES.get(root, "")

    @property
    def is_of_emjax(self) -> bool:
        """Whether emjax itself raised it: it says what is wrong."""
        return _module(self.frames[-1][0]).startswith("emjax.") and self.is_raised

    # ── where it is ───────────────────────────────────────────────────────────────────────────────

    @cached_property
    def line(self) -> tuple[Any, int] | None:
        """The program's frame that is closest to the error."""
        return next((pair for pair in reversed(self.frames) if self._is_program(pair[0])), None)

    def _is_program(self, frame: Any) -> bool:
        """Whether a frame is the program's: a package of the user's may be installed, too."""
        module = _module(frame)
        is_of_user = not is_installed(module) or _root(frame) == self._package
        return module.startswith("emjax.models.") or is_of_user

    @cached_property
    def _package(self) -> str:
        """The package of the first function that is called and is of no library."""
        not_theirs = {"emjax", *LIBRARIES, *sys.stdlib_module_names}
        roots = (_root(frame) for frame, _ in self.frames)
        return next((root for root in roots if root not in not_theirs), "")

    @cached_property
    def span(self) -> tuple[int, int, int, int]:
        """The lines and columns of the expression that failed: (first, last, start, end)."""
        frame, instruction = self.line or (None, 0)
        if frame is None:
            return 0, 0, 0, 0
        first, last, start, end = list(frame.f_code.co_positions())[instruction // 2]
        return first or 0, last or 0, start or 0, end or 0

    @cached_property
    def expression(self) -> str:
        """The program's expression that failed, as it is written; empty where it is not at hand."""
        first, last, start, end = self.span
        file = self.line[0].f_code.co_filename if self.line else ""
        lines = [linecache.getline(file, number) for number in range(first, last + 1)]
        if not any(lines):
            return ""
        # columns are counted in bytes
        lines[-1] = lines[-1].encode()[:end].decode()
        lines[0] = lines[0].encode()[start:].decode()
        return " ".join("".join(lines).split())

    @property
    def place(self) -> str:
        """The line in words, with what it reads."""
        if self.line is None:
            return ""
        file = self.line[0].f_code.co_filename
        shown = linecache.getline(file, self.span[0]).strip()
        if len(shown) > LONGEST or self.expression not in shown:
            shown = textwrap.shorten(self.expression, LONGEST, placeholder=" …")
        read = [f"{name} {described(value)}" for name, value in self.read.items()]
        where = f" (where {', '.join(read)})" if read else ""
        line = f"{os.path.basename(file)}, line {self.span[0]}"
        return f"\n    {line}: {shown}{where}" if shown else f"\n    {line}{where}"

    @cached_property
    def read(self) -> dict[str, Any]:
        """The values that the failed expression names: arguments and what was made of them."""
        if self.line is None:
            return {}
        frame, _ = self.line
        first, last, start, end = self.span
        whole = linecache.getline(frame.f_code.co_filename, first)
        # where an assignment failed, the expression is what is assigned to
        for code, begins, ends in (
            (self.expression, (first, start), (last, end)),
            (whole, (first, 0), (first + 1, 0)),
        ):
            names = _names_in(code) or _names_read(frame.f_code, begins, ends)
            values = {n: frame.f_locals.get(n, frame.f_globals.get(n, type)) for n in names}
            read = {name: value for name, value in values.items() if _is_datum(value)}
            if read:
                return read
        return {}

    @cached_property
    def statement(self) -> str:
        """The statement of NumPyro within which it was raised, in words; empty if there is none."""
        kind, name = self._statement[0], self._statement[1].get("name")
        return f"{kind} '{name}'" if kind else ""

    @property
    def statement_arguments(self) -> dict[str, Any]:
        """The arguments of that statement."""
        return self._statement[1]

    @cached_property
    def _statement(self) -> tuple[str, dict[str, Any]]:
        for frame, _ in reversed(self.frames):
            module, values = _module(frame), frame.f_locals
            # what emjax makes of a statement, or of a site
            for owner in ("self", "site", "read"):
                site = getattr(values.get(owner), "site", values.get(owner))
                if module in OF_SITES and isinstance(getattr(site, "name", None), str):
                    return "Site", {"name": site.name}
            kind = STATEMENTS.get(frame.f_code.co_name)
            if module == "numpyro.primitives" and kind and isinstance(values.get("name"), str):
                return kind, dict(values)
        return "", {}

    @cached_property
    def symbols(self) -> dict[str, str]:
        """What is read that is a latent or a parameter: {what the program calls it: in words}."""
        drawn: dict[int, tuple[str, Any]] = {}
        for frame, _ in self.frames:
            drawn |= getattr(frame.f_locals.get("self"), "drawn", {})
        read = {name: drawn.get(id(value)) for name, value in self.read.items()}
        return {name: found[0] for name, found in read.items() if found}


def _module(frame: Any) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _root(frame: Any) -> str:
    return _module(frame).partition(".")[0]


def _names_in(code: str) -> list[str]:
    """Return the names that code reads, in their order; none where it is a part of a statement."""
    try:
        tree = ast.parse(code.strip())
    except SyntaxError:
        return []
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    names.sort(key=lambda node: (node.lineno, node.col_offset))
    return list(dict.fromkeys(node.id for node in names))


def _names_read(code: Any, start: tuple[int, int], end: tuple[int, int]) -> list[str]:
    """Return the names that are read between two places, (line, column), by Python's own count."""
    names: list[str] = []
    for instruction in dis.get_instructions(code):
        at = instruction.positions
        if not instruction.opname.startswith(READS) or at is None or at.end_lineno is None:
            continue
        begins, ends = (at.lineno or 0, at.col_offset or 0), (at.end_lineno, at.end_col_offset or 0)
        if start <= begins and ends <= end:
            argument = instruction.argval
            names += argument if isinstance(argument, tuple) else (argument,)
    return list(dict.fromkeys(names))


def _is_datum(value: Any) -> bool:
    """Whether a value is a number, an array or something that could be taken for one."""
    if isinstance(value, type) or callable(value) or (is_array(value) and is_key(value)):
        return False
    is_plain = value is None or isinstance(value, PLAIN)
    return is_plain or is_array(value) or is_array_like(value) or hasattr(value, "toarray")


def described(value: Any) -> str:
    """Return what a value is, after its name."""
    if value is None or isinstance(value, int | float | str):
        return f"is {value!r}"
    if is_array(value):
        return f"has shape {tuple(value.shape)}"
    if isinstance(value, list | tuple | range) and all(isinstance(i, int | float) for i in value):
        return f"is {value!r}" if len(value) < 6 else f"is a {kind_of(value)} of {len(value)}"
    return f"is a {kind_of(value)}"
