"""What is said where Python asks for a value that there is none of while a program is traced."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.core
import numpy as np

from emjax.program.failures import Failure

WHAT_HAS_NO_VALUE = "a latent or a parameter (or of data that are being traced)"
TRUTH = "an `if`, `while`, `and`, `or` or `not`"
# how a program looks at values, and what to write instead
CHOICE = (
    "for a choice of values, emjax.distributions.Select(z, [...]) for one of distributions, "
    "& | ~ for `and`, `or`, `not`."
)
AN_INDEX = (
    "an index of a list, a key, a `range` or a size",
    "Index an array, jnp.array([...])[z]; pass sizes as Python numbers.",
)
A_NUMBER = (
    "an `int(...)` or `float(...)`",
    "Leave it an array, z.astype(float) for one; pass sizes as Python numbers.",
)
NUMPY = (
    "a NumPy function, or a NumPy array that it indexes",
    "Write jnp for np, and jnp.asarray(table)[z].",
)
ROWS = (
    "rows that a condition picks, x[z == 0]",
    "Keep all rows: jnp.where(z == 0, x, 0), or numpyro.handlers.mask(mask=z == 0).",
)
LARGEST = (
    "Give the plate its largest size, and mask the rest: "
    "numpyro.handlers.mask(mask=jnp.arange(largest) < z)."
)
# by what is said where Python asks for a value
WAYS: dict[str, tuple[str, str]] = {
    "__index__|scalar index|unhashable|Shapes must be": AN_INDEX,
    "numpy.ndarray conversion": NUMPY,
    "oolean ind": ROWS,
}
# a condition that is repeated as it stands: short, of no calls, and of no `and`, `or` or `not`
CONDITION = r"(?!.*\b(and|or|not)\b)[^()]{1,40}"


def value_looked_at(failure: Failure, who: str = "The program") -> str:
    """Return that a value is looked at which there is none of, how, and what to write instead."""
    numbers = [name for name, value in failure.read.items() if _is_known_number(value)]
    if numbers and not failure.symbols:
        return (
            f"{numbers[0]} is an array of one number, whose value is asked for while the program "
            f"is traced. Pass a Python number: int({numbers[0]})."
        )
    what = ", ".join(dict.fromkeys(failure.symbols.values())) or WHAT_HAS_NO_VALUE
    message = str(failure.error)
    if failure.statement.startswith("Plate"):
        way, instead = f"the size of p{failure.statement[1:]}", LARGEST
    elif re.search("truth value|boolean conversion", message):
        is_short = re.fullmatch(CONDITION, failure.expression)
        condition = failure.expression if is_short else "z == 0"
        way, instead = TRUTH, f"Write jnp.where({condition}, a, b) {CHOICE}"
    else:
        found = (said for pattern, said in WAYS.items() if re.search(pattern, message))
        way, instead = next(found, A_NUMBER)
    return f"{who} looks at the value of {what} in Python: {way}. {instead}"


def _is_known_number(value: Any) -> bool:
    """Whether a value is an array of one whole number that is not being traced."""
    is_known = isinstance(value, np.ndarray | jax.Array) and not isinstance(value, jax.core.Tracer)
    return is_known and value.ndim == 0 and np.issubdtype(value.dtype, np.integer)
