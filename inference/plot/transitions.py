"""How a chain moves: its transition matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from emjax.plot.fits import AnyFit, array_of, axes_of, bound_of, chosen
from emjax.plot.style import PROBABILITY, heat_map, panel, panels, styled


@styled
def transitions(fit: AnyFit, parameter: str | None = None, ax: Any = None) -> Axes | np.ndarray:
    """Draw the probability of each move of a chain as a heat map; return the axes.

    Rows are where a move comes from, columns where it goes to. Of several matrices, such as one for
    each group, a panel each. `parameter`: which one; default: the first whose last axis lists the
    next values of a latent. `ax`: the axes to draw on. Errors: `ValueError` for a program without
    one.
    """
    bound = bound_of(fit, "transitions", needs_data=False)
    axes = axes_of(bound)
    name = chosen(
        "parameter",
        parameter,
        [name for name, each in axes.items() if len(each) > 1 and _is_next(each[-1].name)],
        "emjax.plot.transitions draws the transition matrix of a chain, and no parameter is one: "
        "numpyro.sample('state', dist.Categorical(transition[previous])) within a scan.",
    )
    of_parameter, table = axes[name], array_of(fit, name)
    latent = of_parameter[-1].name.removeprefix("next_")
    rows = next((d for d, axis in enumerate(of_parameter) if axis.name == latent), table.ndim - 2)
    outer = [d for d in range(table.ndim - 1) if d != rows]
    tables = table.transpose([*outer, rows, table.ndim - 1])
    tables = tables.reshape(-1, *tables.shape[-2:])
    size = max(2.4, 0.55 * table.shape[-1] + 1.2)
    if len(tables) == 1:
        drawn = np.array([[panel(ax, size + 0.6, size)]])
    else:
        drawn = panels(ax, 1, len(tables), size, size)
    for one, (number, matrix) in zip(drawn.flat, enumerate(tables), strict=True):
        labels = [axis.labels for axis in (of_parameter[rows], of_parameter[-1])]
        heat_map(one, matrix, *labels, cmap=PROBABILITY, vmin=0, vmax=1)
        one.set_aspect("equal")
        one.set(xlabel=f"to {latent}", ylabel=f"from {latent}")
        one.set_title(name if len(tables) == 1 else f"{name}[{number}]")
    return drawn[0, 0] if len(tables) == 1 else drawn[0]


def _is_next(name: str) -> bool:
    return name.startswith("next_")
