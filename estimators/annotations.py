"""Types of parameters, for type checkers.

scikit-learn has it that an estimator looks at its parameters when it is fitted, and not before:
where annotations are executed, as in the tests, anything passes these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Program = Callable[..., Any]
    Named = Mapping[str, Any] | None
    Name = str | None
    Real = float
    Whole = int
    Word = str
    Switch = bool
    SwitchOrAuto = bool | str
else:
    Program = Named = Name = Real = Whole = Word = Switch = SwitchOrAuto = Any
