"""Distributions that NumPyro lacks: one that an index chooses, and a normal whose vector is partly
observed.
"""

from emjax.families.distributions import PartiallyObserved, Select

__all__ = ["PartiallyObserved", "Select"]
