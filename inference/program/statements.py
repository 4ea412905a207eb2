"""What NumPyro's messages say of a statement that is being run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# where a statement's `infer` holds the part of its multiplicity that are sampling weights
SAMPLING_WEIGHT = "sampling weight"


def is_scan(msg: Mapping[str, Any]) -> bool:
    """Whether a statement is a `scan`; NumPyro's `cond` is of the same type, without a history."""
    return msg["type"] == "control_flow" and "history" in msg["kwargs"]


def has_run(msg: Mapping[str, Any]) -> bool:
    """Whether a site of a `scan` comes again, its values stacked over time, after all steps ran."""
    return bool(msg.get("_control_flow_done"))
