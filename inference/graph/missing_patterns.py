"""Sites whose events may lack coordinates: their elements, grouped by which they lack."""

from __future__ import annotations

import math
from collections.abc import Sequence

from emjax.graph.recipes import Statistic
from emjax.graph.site_input import SiteInput
from emjax.numerics.arrays import broadcast, evaluate
from emjax.tables.named import Named, constant


def patterns_of(
    read: SiteInput, naturals: Sequence[Named], formed: Sequence[Statistic]
) -> dict[str, Named]:
    """Return a site's elements grouped by which coordinates they lack; {} where that is no gain.

    `formed`: what its marginal is a function of.
    """
    if not read.is_incomplete or read.family.patterns is None:
        return {}
    observed, x = read.given["observed"][0], formed[0].value
    # tables that differ from element to element have no matrix in common
    varies = any(size != 1 for table in naturals for size in table.compact[: read.rank])
    if varies or observed.axes or x.axes or any(table.row_axes for table in naturals):
        return {}
    num_rows, size = math.prod(read.elements), observed.shape[-1]
    if not read.family.patterns.are_worth_it(num_rows, size):
        return {}
    shape = *read.elements, size
    rows = [broadcast(each.array, shape).reshape(num_rows, size) for each in (observed, x)]
    groups = evaluate(read.family.patterns.grouped, *rows)
    return {name: constant(array) for name, array in groups.items()}
