"""What NumPyro's messages say of a statement that is being run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

# where a statement's `infer` holds its `SamplingWeight`
SAMPLING_WEIGHT = "sampling weight"


class SamplingWeight(NamedTuple):
    """The part of a statement's multiplicity that are sampling weights.

    - `weight`: over its elements, divided by `mean`.
    - `mean`: that of the weights of the outermost plate that has some.
    """

    weight: Any
    mean: Any


def is_scan(msg: Mapping[str, Any]) -> bool:
    """Whether a statement is a `scan`; NumPyro's `cond` is of the same type, without a history."""
    return msg["type"] == "control_flow" and "history" in msg["kwargs"]


def has_run(msg: Mapping[str, Any]) -> bool:
    """Whether a site of a `scan` comes again, its values stacked over time, after all steps ran."""
    return bool(msg.get("_control_flow_done"))
