"""A maximizer: how an M-step sets some of the parameters; and what is known where one is chosen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from emjax.graph.factor_graph import FactorGraph
from emjax.m_step.wiring_view import Use, WiringView


class Turn(IntEnum):
    """When a maximizer runs within an M-step.

    The maximizer of a scale depends on the location, the location's seldom on the scale: locations
    go first, scales and all other closed forms last.
    """

    FIXED = 0
    LOCATION = 1
    COMPUTED = 2
    ASKED_FOR = 3
    CLOSED_FORM = 4


def _no_state(params: Mapping[str, Any]) -> tuple:
    return ()


@dataclass(frozen=True, eq=False)
class Maximizer:
    """How some parameters are maximized together.

    - `names`: the parameters.
    - `method`: what `em.plan` calls it (`ParameterPlan` lists the names).
    - `reasons`: why each of them is maximized so, in words.
    - `update(params, state, constants, statistics)`: pure; returns new values of `names`, and the
      new state.
    - `init(params)`: the state that it starts with; most have none.
    - `turn`: when it runs, among the others.
    - `is_fixed`: it leaves its parameters where they are, so that they are not estimated.
    - `is_iterated`: its derivative is that of the maximum to which its iterations lead, and not
      that of the way there.
    - `is_partial`: an M-step goes only a part of the way to that maximum, so that its derivative
      is not that of an EM step.
    - `gap(params, constants, statistics, is_wanted)`: how far its parameters are from where Q has
      its maximum (`gap_of`); None where they are there whatever the program.
    - `uses`: where a parameter with a closed form enters.
    """

    names: tuple[str, ...]
    method: str
    reasons: tuple[str, ...]
    update: Callable
    init: Callable = _no_state
    turn: Turn = Turn.CLOSED_FORM
    is_fixed: bool = False
    is_iterated: bool = False
    is_partial: bool = False
    gap: Callable | None = None
    uses: Sequence[Use] = ()

    @property
    def reason(self) -> str:
        """Why all of them are maximized so, each reason once."""
        if len(self.names) == 1:
            return self.reasons[0]
        names_of: dict[str, list[str]] = {}
        for name, reason in zip(self.names, self.reasons, strict=True):
            names_of.setdefault(reason, []).append(f"'{name}'")
        return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in names_of.items())


@dataclass(frozen=True, eq=False)
class Request:
    """What is to be maximized.

    - `view`: the wiring of the program.
    - `overrides`: the user's own maximizers, by parameter.
    - `fixed`: the parameters that the user holds at their start.
    """

    view: WiringView
    overrides: Mapping[str, Any]
    fixed: Collection[str]

    @property
    def graph(self) -> FactorGraph:
        return self.view.graph


# Of some parameters, {name: why no kind before took it}: the maximizers of those that this kind of
# maximizer serves, and those that it leaves, with its own reason.
MaximizerKind = Callable[[Request, dict[str, str]], tuple[list[Maximizer], dict[str, str]]]
