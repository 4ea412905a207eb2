"""The program as a graph: which nodes, arrows, plates; nothing lies on anything else."""

import itertools

import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch
from numpyro.distributions import constraints

import emjax.plot
from emjax import EM
from emjax.models import (
    annotators,
    dawid_skene,
    linear_mixed_model,
    mixture_emission_hmm,
    mixture_of_factor_analyzers,
    record_linkage,
)
from emjax.plot.boxes import way_around
from emjax.plot.layout import layout_of
from emjax.plot.nodes import diagram_of

RNG = np.random.default_rng(0)
ROW = np.arange(12)


def hierarchy(x):
    """Estimates that read others, in a plate and outside."""
    center = numpyro.sample("center", dist.Normal(0.0, 1.0))
    spread = numpyro.param("spread", 1.0, constraint=constraints.positive)
    with numpyro.plate("groups", 3):
        mean = numpyro.sample("mean", dist.Normal(center, spread))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.ones(3) / 3))
        numpyro.sample("x", dist.Normal(mean[z], 1.0), obs=x)


PROGRAMS = {
    "annotators": (EM(annotators.program), RNG.random((6, 4))),
    "dawid_skene": (EM(dawid_skene.program), ROW // 3, ROW % 3, ROW % 2, 4, 3, 2),
    "hierarchy": (EM(hierarchy), np.arange(5.0)),
    "hidden_markov": (
        EM(mixture_emission_hmm.program),
        RNG.normal(size=(9, 3, 2)),
        np.array([9, 5, 9]),
        2,
        2,
    ),
    "mixed_model": (
        EM(linear_mixed_model.program, integrate={"effect"}),
        RNG.normal(size=12),
        np.ones((12, 1)),
        np.ones((12, 1)),
        ROW // 3,
        4,
    ),
    "factor_analyzers": (
        EM(mixture_of_factor_analyzers.program, integrate={"factor"}),
        RNG.normal(size=(12, 3)),
        2,
        1,
    ),
    "linkage": (
        EM(record_linkage.program),
        dict.fromkeys(("birth", "forename", "surname", "town"), ROW % 3),
        dict.fromkeys(("birth", "forename", "surname", "town"), 3),
    ),
}


@pytest.fixture(autouse=True)
def closed_figures():
    with matplotlib.rc_context({"backend": "agg"}):
        yield
    plt.close("all")


def diagram(name):
    em, *data = PROGRAMS[name]
    return diagram_of(em.on(*data))


def arrows_of(name):
    """{node: what it reads}."""
    return {node.name: set(node.parents) for node in diagram(name).nodes}


def test_nodes_read_what_the_program_says():
    assert arrows_of("hidden_markov") == {
        "initial": set(),
        "transition": set(),
        "weights": set(),
        "loc": set(),
        "scale": set(),
        "state": {"initial", "transition"},
        "component": {"state", "weights"},
        "data": {"state", "component", "loc", "scale"},
    }
    assert arrows_of("factor_analyzers")["data"] == {
        "component",
        "factor",
        "loadings",
        "loc",
        "scale",
    }
    assert arrows_of("hierarchy") == {
        "center": set(),
        "spread": set(),
        "mean": {"center", "spread"},
        "z": set(),
        "x": {"mean", "z"},
    }


def test_chains_read_themselves_and_time_is_a_plate():
    found = diagram("hidden_markov")
    by_name = {node.name: node for node in found.nodes}
    assert [name for name, node in by_name.items() if node.reads_itself] == ["state"]
    assert by_name["data"].plates == ("sequences", "time")
    assert found.plates == {"sequences": 3, "time": 9} and found.steps == {"time"}


def test_parameters_have_the_maximizers_of_the_plan():
    em, *data = PROGRAMS["factor_analyzers"]
    plan = em.plan(*data)
    methods = {node.name: node.method for node in diagram("factor_analyzers").nodes if node.method}
    assert methods == {each.name: each.method for each in plan.parameters}
    ax = emjax.plot.graph(em, *data)
    written = [text.get_text() for text in ax.texts]
    assert written.count("least squares") == 2 and written.count("closed form") == 2
    assert "integrated out" in written and "component × 3 × 1" in written


@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_lies_on_anything_else(name):
    found = diagram(name)
    layout = layout_of(found)
    assert set(layout.nodes) == {node.name for node in found.nodes}
    for one, other in itertools.combinations(layout.nodes.values(), 2):
        apart = max(
            abs(one.x - other.x) - (one.width + other.width) / 2,
            abs(one.y - other.y) - (one.height + other.height) / 2,
        )
        assert apart > 0
    for plate, box in layout.plates.items():
        for node in found.nodes:
            inside = layout.nodes[node.name]
            is_member = plate in node.plates
            if is_member:
                assert box.left < inside.left and inside.right < box.right
                assert box.bottom < inside.bottom and inside.top < box.top
            else:
                assert not (box.left < inside.x < box.right and box.bottom < inside.y < box.top)


def test_what_is_drawn_are_the_nodes_arrows_and_plates():
    em, *data = PROGRAMS["annotators"]
    ax = emjax.plot.graph(em, *data)
    found = diagram("annotators")
    sites = [node for node in found.nodes if not node.is_estimated]
    assert len([p for p in ax.patches if isinstance(p, Ellipse)]) == len(sites) == 2
    arrows = [p for p in ax.patches if isinstance(p, FancyArrowPatch)]
    assert len(arrows) == sum(len(node.parents) for node in found.nodes) == 4
    boxes = [p for p in ax.patches if isinstance(p, FancyBboxPatch)]
    assert len(boxes) == 2
    written = [text.get_text() for text in ax.texts]
    assert {"annotators  4", "images  6", "scores", "Uniform", "Normal"} <= set(written)


def test_small_axes_have_small_text():
    em, *data = PROGRAMS["annotators"]
    axes = plt.figure(figsize=(4, 2)).add_subplot(1, 4, 1)
    assert emjax.plot.graph(em, *data, ax=axes) is axes
    assert max(text.get_fontsize() for text in axes.texts) < 6
    with pytest.raises(ValueError, match=r"emjax.plot.graph draws a fit"):
        emjax.plot.graph(annotators.program, *data)


def test_an_arrow_goes_around_a_site_that_is_in_its_way():
    layout = layout_of(diagram("hidden_markov"))
    middle = layout.nodes["component"]
    far = way_around(layout.nodes, "state", "data")
    assert middle.right < far < layout.plates["sequences"].right
    assert way_around(layout.nodes, "state", "component") is None
