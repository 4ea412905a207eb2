"""Draw the picture of the front page: a program, its plan, and a figure of its fit.

`python docs/picture.py` writes docs/picture.png.
"""

import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpyro
import numpyro.distributions as dist
from matplotlib.axes import Axes
from numpyro.distributions import constraints
from sklearn.datasets import load_iris

import emjax.plot
from emjax import EM

PICTURE = Path(__file__).resolve().parent / "picture.png"
INK, HEAD = "#1f2933", "#1b5e8c"


# fmt: off
def species(x, K=3):
    share = numpyro.param("share", jnp.ones(K) / K, constraint=constraints.simplex)
    mean = numpyro.param("mean", x[jnp.array([0, 50, 100])])
    spread = numpyro.param(
        "spread", jnp.tile(jnp.eye(2), (K, 1, 1)),
        constraint=constraints.positive_definite)
    with numpyro.plate("flowers", len(x)):
        kind = numpyro.sample("kind", dist.Categorical(share))
        numpyro.sample("x", dist.MultivariateNormal(mean[kind], spread[kind]), obs=x)
# fmt: on


def write(ax: Axes, title: str, text: str) -> None:
    """Write monospaced text into a panel."""
    ax.set_axis_off()
    ax.set_title(title, loc="left", color=HEAD, fontsize=11, fontweight="bold")
    ax.text(0, 1, text, family="monospace", fontsize=8, color=INK, va="top", linespacing=1.35)


def main() -> None:
    """Fit the program to petals of iris, and draw it."""
    jax.config.update("jax_enable_x64", True)
    petals = load_iris(as_frame=True).data[["petal length (cm)", "petal width (cm)"]]
    fit = EM(species).run(jax.random.key(0), petals)
    figure = plt.figure(figsize=(12, 4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.5, 1))
    program, plan = left.subplots(2, 1, height_ratios=(1.45, 1))
    write(program, "The program", inspect.getsource(species).strip())
    write(plan, "print(EM(species).plan(petals))", str(fit.plan()))
    ax = emjax.plot.clusters(fit, ax=right.subplots())
    ax.set_title("emjax.plot.clusters(fit)", loc="left", color=HEAD, fontsize=11, fontweight="bold")
    figure.savefig(PICTURE, dpi=160)


if __name__ == "__main__":
    main()
