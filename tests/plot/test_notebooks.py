"""Figures in a notebook, whose backend is set up by the first of them."""

import matplotlib

from emjax.plot.style import styled


def test_the_first_figure_of_a_notebook_does_not_hide_the_others():
    @styled
    def draw():
        # as matplotlib's inline backend does when it is first asked for a figure
        matplotlib.interactive(True)

    size = matplotlib.rcParams["font.size"]
    try:
        draw()
        assert matplotlib.is_interactive()
        assert matplotlib.rcParams["font.size"] == size
    finally:
        matplotlib.interactive(False)
