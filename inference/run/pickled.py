"""Whether a program and its settings can be pickled: if not, what to do instead.

What is traced and compiled of them is left out of a pickle, and made again when it is asked for.
"""

from __future__ import annotations

import dataclasses
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from emjax.run.settings import Settings

# modules that pickle a function by its code, where Python's own pickles its name
BY_VALUE = ("cloudpickle", "dill")


def check_can_be_pickled(model: Callable, settings: Settings) -> None:
    """Raise `pickle.PicklingError` for a program, or a setting, that has no name to be found by.

    Nothing is raised where whoever pickles takes code as well as names.
    """
    if _is_by_value():
        return
    for what, value in _parts(model, settings):
        try:
            pickle.dumps(value)
        # whatever it is made of may raise anything
        except Exception as error:
            raise pickle.PicklingError(
                f"{what} cannot be pickled ({error}): a pickle has the names of functions, not "
                "their code. Define it at the top level of a module, with what varies as an "
                "argument of the program, em.run(key, x, 3), or in functools.partial(program, "
                "num_classes=3); or use cloudpickle.dumps, which has the code, too. "
                "fit.save(path) keeps a fit without its program."
            ) from error


def _parts(model: Callable, settings: Settings) -> Iterator[tuple[str, Any]]:
    """Yield what a pickle holds, and what it is, in words."""
    yield f"The program {_named(model)}", model
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name == "m_step" and isinstance(value, Mapping):
            for name, own in value.items():
                yield f"The setting m_step={{'{name}': …}} of EM", own
        else:
            yield f"The setting {field.name} of EM", value


def _named(model: Callable) -> str:
    return f"'{getattr(model, '__qualname__', type(model).__name__)}'"


def _is_by_value() -> bool:
    """Whether the one who pickles takes the code of functions."""
    # a pickler does not say who it is to what it pickles
    frame = sys._getframe(1)
    while frame is not None:
        if any(name in BY_VALUE for name in frame.f_globals.get("__name__", "").split(".")):
            return True
        frame = frame.f_back
    return False
