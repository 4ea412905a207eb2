"""Shapes of conjugacy, for `emjax.Family`: arguments of a distribution whose maximizer has a closed
form.
"""

from emjax.families.conjugate import (
    COVARIANCE,
    LOCATION,
    LOCATION_VECTOR,
    PRECISION,
    RATE,
    SCALE,
    SCALE_TRIL,
    SIMPLEX,
    SIMPLEX_LOGITS,
    UNIT_INTERVAL,
    UNIT_INTERVAL_LOGITS,
    Conjugate,
)
from emjax.families.jacobians import Jacobian

__all__ = [
    "COVARIANCE",
    "LOCATION",
    "LOCATION_VECTOR",
    "PRECISION",
    "RATE",
    "SCALE",
    "SCALE_TRIL",
    "SIMPLEX",
    "SIMPLEX_LOGITS",
    "UNIT_INTERVAL",
    "UNIT_INTERVAL_LOGITS",
    "Conjugate",
    "Jacobian",
]
