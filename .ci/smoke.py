"""Whether an installed emjax does its work, without its checkout: `python -P .ci/smoke.py`.

Every room is there, a fit comes to the numbers that a lecture has, and so do scikit-learn's face
and a figure, where scikit-learn and matplotlib are.
"""

import importlib
import io
import pkgutil
import sys
from importlib.metadata import metadata
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np

import emjax
from emjax.models import coins

CHECKOUT = Path(__file__).resolve().parent.parent
EXTRAS = {"emjax.plot": "matplotlib", "emjax.sklearn": "sklearn"}
# Do & Batzoglou (2008), Nature Biotechnology 26(8), figure 1: the two biases
PUBLISHED = [0.80, 0.52]


def is_installed(module: str) -> bool:
    """Whether what a module of emjax needs beside emjax is installed."""
    return all(
        find_spec(needed) is not None
        for room, needed in EXTRAS.items()
        if module == room or module.startswith(f"{room}.")
    )


def check_package() -> None:
    """Check where emjax was imported from, what it is called, and that all of it is there."""
    home = Path(emjax.__file__).parent
    assert not home.is_relative_to(CHECKOUT), f"{home} is of the checkout: run with `python -P`"
    assert emjax.__version__ == metadata("emjax")["Version"]
    assert (home / "py.typed").exists()
    found = [module.name for module in pkgutil.walk_packages(emjax.__path__, "emjax.", raise_on)]
    assert {"emjax.models", *EXTRAS} <= set(found), found
    for module in filter(is_installed, found):
        importlib.import_module(module)


def raise_on(name: str) -> None:
    """Raise what importing a package raised, unless an extra that it needs is missing."""
    if is_installed(name):
        raise


def check_fit() -> emjax.Fit:
    """Return a fit of two coins of unknown bias, whose estimates are those of the lecture."""
    heads = np.array([5, 9, 8, 4, 7])
    fit = emjax.EM(coins.program).run(jax.random.key(0), heads)
    assert fit.status == emjax.Status.CONVERGED, fit
    assert np.allclose(fit.params["bias"], PUBLISHED, atol=0.005), fit.params
    return fit


def check_face() -> None:
    """Check that scikit-learn's interface learns two states that are far apart."""
    from emjax.sklearn import GaussianHMM

    states = np.repeat([0, 1, 0], 20)
    x = 5.0 * states + np.random.default_rng(0).normal(size=60)
    found = GaussianHMM(n_components=2, random_state=0).fit(x[:, None]).predict(x[:, None])
    # which is called 0 is by chance
    assert (found == states).all() or (found != states).all(), found


def check_figure(fit: emjax.Fit) -> None:
    """Check that a figure is drawn, and written."""
    import matplotlib

    matplotlib.use("Agg")
    import emjax.plot

    drawn = io.BytesIO()
    emjax.plot.objective(fit).figure.savefig(drawn)
    assert drawn.getvalue().startswith(b"\x89PNG")


def main() -> None:
    check_package()
    fit = check_fit()
    print(fit)
    if is_installed("emjax.sklearn"):
        check_face()
    if is_installed("emjax.plot"):
        check_figure(fit)
    absent = [needed for needed in EXTRAS.values() if find_spec(needed) is None]
    print(f"emjax {emjax.__version__}, Python {sys.version.split()[0]}: passed", end="")
    print(f", without {', '.join(absent)}" if absent else "")


if __name__ == "__main__":
    main()
