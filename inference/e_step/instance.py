"""A factor graph at given parameters and data: all that log Z is a function of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike

from emjax.elimination.factors import Variable
from emjax.graph.condensed import Condensed
from emjax.graph.factor_graph import FactorGraph
from emjax.graph.slots import filled, filled_term
from emjax.graph.terms import Term, naturals_of
from emjax.program.latents import GaussianLatent
from emjax.tables.named import Named


@dataclass(frozen=True, eq=False)
class Instance:
    """A factor graph at given parameters and data.

    - `terms`: without slots.
    - `naturals`: the natural-parameter tables η of each term.
    - `latents`: those to sum out.
    - `gaussians`: those to integrate out first; `gaussian_variables` are what elimination knows.
    - `constant`: the part of log Z that depends on neither, in nats.
    - `chains`: how chains are summed out (see `EM`).
    """

    terms: tuple[Term, ...]
    naturals: tuple[Sequence[Named], ...]
    latents: Mapping[str, Variable]
    constant: Any
    # no default: whoever makes an instance of a part of another must hand it on
    chains: str
    gaussians: Mapping[str, GaussianLatent] = field(default_factory=dict)
    gaussian_variables: Mapping[str, Variable] = field(default_factory=dict)

    @property
    def variables(self) -> Mapping[str, Variable]:
        """All latents, those to sum out and those to integrate out."""
        return {**self.latents, **self.gaussian_variables}

    @property
    def tables(self) -> list[list]:
        """The natural-parameter tables as plain arrays."""
        arrays = []
        for tables in self.naturals:
            arrays.append([jnp.asarray(table.array) for table in tables])
        return arrays

    def at(self, tables: Sequence[Sequence]) -> Instance:
        """Return the instance at other natural-parameter tables, plain arrays."""
        naturals = []
        for named, arrays in zip(self.naturals, tables, strict=True):
            pairs = zip(named, arrays, strict=True)
            naturals.append([replace(table, array=array) for table, array in pairs])
        return replace(self, naturals=tuple(naturals))


def instance_of(
    graph: FactorGraph,
    arrays: Sequence,
    which: Callable | None = None,
    temperature: ArrayLike = 1.0,
    predicted: bool = False,
    tables: Sequence[Sequence] | None = None,
) -> Instance:
    """Return the instance at the parameters and data that a graph's arrays were computed at.

    `which`: a filter on terms; `predicted`: with the latents that no observation depends on, and
    with all of their elements, where few can stand for many;
    `tables`: the natural-parameter tables of all terms, plain arrays, if they are at hand.
    """
    terms = [*graph.terms, *graph.predicted] if predicted else list(graph.terms)
    alike = Condensed() if predicted else graph.condensed
    terms = [alike.terms.get(i, term) for i, term in enumerate(terms)]
    if which is not None:
        terms = [term for term in terms if which(term)]
    # what no observation depends on sums to one, and only its own posterior reads it
    left_out = set() if predicted else {term.site.name for term in graph.predicted}
    latents, gaussians = {}, {}
    for order, (name, latent) in enumerate({**graph.latents, **graph.gaussians}.items()):
        if name in left_out:
            continue
        if name in graph.gaussians:
            size, shape = latent.size, alike.shapes.get(name, latent.elements)
            variable = _variable(graph, name, order, arrays, size, shape)
            if name in alike.counts:
                count = jnp.full((1,) * len(shape), alike.counts[name])
                variable = replace(variable, multiplicity=count, multiplicity_key=name)
            gaussians[name] = variable
        else:
            size, shape = latent.support.shape[0], latent.shape
            latents[name] = _variable(graph, name, order, arrays, size, shape)
    terms = [filled_term(term, arrays) for term in terms]
    # a base that varies along elements is part of its term's factor
    constants = [_constant(term, temperature) for term in terms if term.base_is_constant]
    naturals = map(naturals_of if tables is None else lambda term: term.naturals, terms)
    instance = Instance(
        tuple(terms),
        tuple(naturals),
        latents,
        sum(constants, jnp.zeros(())),
        graph.chains,
        graph.gaussians,
        gaussians,
    )
    return instance if tables is None else instance.at(tables)


def _constant(term: Term, temperature: ArrayLike):
    """Return Σ log h(x) in nats.

    A latent's is −log K for each masked element, of K equal values, which is to make τ log Σ exp
    zero at any temperature.
    """
    base = jnp.asarray(term.base.array).reshape(())
    return temperature * base if term.site.kind == "latent" else base


def _variable(
    graph: FactorGraph,
    name: str,
    order: int,
    arrays: Sequence,
    size: int,
    shape: tuple[int, ...],
) -> Variable:
    """Return a latent of a graph as a variable to sum out, the `order`-th of its program.

    `size`: how many values or coordinates an element has; `shape`: that of its elements.
    """
    latent = {**graph.latents, **graph.gaussians}[name]
    multiplicity = filled(graph.multiplicities[name], arrays)
    array = multiplicity.array
    if multiplicity.is_static and bool((array == 1).all()):
        array = None
    else:
        # as in broadcasting, outer plates that it does not vary along may be left out
        lead = (1,) * (len(shape) - array.ndim)
        array = jnp.asarray(array).reshape(lead + array.shape)
    return Variable(
        name,
        size,
        shape,
        array,
        graph.multiplicities[name].root,
        frozenset(latent.plates),
        order,
    )
