"""Types of what users pass, for type checkers.

Where annotations are executed, as in the tests, anything passes them: wrong input is to reach our
own errors, which name the fix.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from os import PathLike
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emjax.run.acceleration import Accelerator
    from emjax.run.result import EMResult

    Program = Callable[..., Any]
    Names = Collection[str]
    Strategy = Callable[..., Any] | str | None
    OwnMaximizers = Mapping[str, Any] | None
    Params = Mapping[str, Any] | EMResult
    # a fit in place of an EM brings its own
    ParamsOrNone = Params | None
    Draws = Mapping[str, Any]
    Result = EMResult
    ResultOrNone = EMResult | None
    InitParams = Mapping[str, Any] | None
    Acceleration = str | Accelerator | None
    Path = str | PathLike[str]
    Every = int | timedelta | None
    Real = float
    StepSize = float | Callable[..., Any] | None
    Whole = int
else:
    Program = Names = Strategy = OwnMaximizers = Any
    Params = ParamsOrNone = Draws = Result = ResultOrNone = Any
    InitParams = Acceleration = StepSize = Path = Every = Real = Whole = Any
