"""What each factor loads on."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from emjax.graph.terms import Term
from emjax.m_step.wiring_view import WiringView
from emjax.plot.fits import AnyFit, array_of, axes_of, bound_of, chosen
from emjax.plot.style import SIGNED, heat_map, panel, panels, styled
from emjax.run.bound import Bound


@styled
def loadings(fit: AnyFit, parameter: str | None = None, ax: Any = None) -> Axes | np.ndarray:
    """Draw the loadings of Gaussian latents as a heat map; return the axes.

    Rows are the observed variables, columns the coordinates of the latent. Of several matrices,
    such as one for each component, a panel each. `parameter`: which one; default: the first of two
    axes or more that multiplies a latent. `ax`: the axes to draw on. Errors: `ValueError` for a
    program without one.
    """
    bound = bound_of(fit, "loadings", needs_data=False)
    coefficients = _coefficients(bound)
    name = chosen(
        "parameter",
        parameter,
        list(coefficients),
        "emjax.plot.loadings draws a parameter that multiplies a Gaussian latent, and there is "
        "none: EM(program, integrate={'factor'}) with dist.Normal(factor @ loadings.T, scale).",
    )
    axes, table = axes_of(bound)[name], array_of(fit, name)
    matrices = table.reshape(-1, *table.shape[-2:])
    rows, columns = axes[-2], axes[-1]
    height = max(2.2, 0.3 * table.shape[-2] + 0.9)
    width = 0.6 * table.shape[-1] + 2.6
    if len(matrices) == 1:
        drawn = np.array([[panel(ax, width, height)]])
    else:
        drawn = panels(ax, 1, len(matrices), width, height, sharey=True)
    largest = float(np.abs(table).max()) or 1.0
    factor = columns.name or coefficients[name]
    for one, (number, matrix) in zip(drawn.flat, enumerate(matrices), strict=True):
        numbers = [f"{factor} {each}" for each in columns.labels]
        heat_map(one, matrix, rows.labels, numbers, cmap=SIGNED, vmin=-largest, vmax=largest)
        outer = axes[0].name or name
        one.set_title(name if len(matrices) == 1 else f"{outer} {number}")
    return drawn[0, 0] if len(matrices) == 1 else drawn[0]


def _coefficients(bound: Bound) -> dict[str, str]:
    """Return the Gaussian latent that each parameter of two axes or more multiplies, by name.

    In observations: what multiplies the states before is no loading.
    """
    graph, found = bound.compiled.graph, {}
    view = WiringView(graph)
    for term in graph.terms:
        if term.site.is_observed and term.reads:
            for name in _read_as_coefficients(view, term):
                if len(graph.parameters[name].shape) >= 2:
                    found.setdefault(name, str(term.reads[0].source))
    return found


def _read_as_coefficients(view: WiringView, term: Term) -> list[str]:
    """Return the parameters that a term reads in an argument of its own: not the normal's."""
    plain = set(term.site.arg_constraints)
    names: set[str] = set()
    for argument, table in term.arguments.items():
        if argument not in plain:
            names |= view.wire(table).parameters
    return sorted(names)
