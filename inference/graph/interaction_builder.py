"""Build the terms of normals that read Gaussian latents: a plain one, and interactions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from emjax.graph.by_element import addable, by_element
from emjax.graph.outputs import Outputs
from emjax.graph.regressions import LocationView, Regression
from emjax.graph.residuals import (
    Product,
    Residual,
    coefficients_name,
    interaction_family,
    interaction_statistics,
    products_of,
    residual_of,
)
from emjax.graph.site_input import Data, SiteInput, data_of, statistics_of
from emjax.graph.term_builder import TermBuilder, latent_axes_of
from emjax.graph.terms import Term, natural_tables, of_shape
from emjax.program.records import Site
from emjax.tables.named import constant, varying_dims


class InteractionBuilder(TermBuilder):
    """Builds the terms of a program some of whose normals read Gaussian latents.

    - `known`: which coefficients of Gaussian latents are data (see `known_coefficients`).
    - `views`: the locations, by site, whose parameters and coefficients are added up once.
    """

    def __init__(
        self,
        outputs: Outputs,
        floor: Any,
        known: Collection[tuple[int, int]] = (),
        views: Mapping[str, LocationView] = MappingProxyType({}),
    ):
        super().__init__(outputs, floor)
        self.known, self.views = known, views

    def terms(self, site: Site) -> list[Term]:
        """Return a site's terms.

        That of a normal that reads Gaussian latents is followed by its interaction with them.
        """
        read = self.site_input(site)
        residual, data = residual_of(self.affine, site, read.elements), data_of(read)
        plain = self.term(read, data)
        if residual is None:
            return [plain]
        if site.name in self.views:
            return self.added_up(read, data, residual, plain)
        return [plain, *self.interactions(read, data, residual)]

    def interactions(self, read: SiteInput, data: Data, residual: Residual) -> list[Term]:
        """Return a normal's interaction with Gaussian latents.

        It is two terms where some of its products can be summed, once, by the element that rows of
        data read.
        """
        value = read.site.outputs.value
        known = [i for i in range(len(residual.reads)) if (value, i) in self.known]
        products = products_of(len(residual.reads), read.site.is_observed, known)
        whole = self.interaction(read, data, residual, products)
        summed = addable(whole)
        if not summed:
            return [whole]
        (axis,) = residual.reads
        shape = self.affine.program.gaussians[str(axis.source)].elements
        terms = [by_element(self.interaction(read, data, residual, summed), shape)]
        if rest := [product for product in products if product not in summed]:
            terms.append(self.interaction(read, data, residual, rest))
        return terms

    def added_up(self, read: SiteInput, data: Data, residual: Residual, plain: Term) -> list[Term]:
        """Return the terms of a site whose location is affine in parameters and a Gaussian latent.

        All coefficients are data.
        """
        regression = Regression.of(read, self.views[read.site.name])
        whole = self.interaction(read, data, residual, products_of(1, True, [0]))
        (axis,), (coefficients,) = residual.reads, residual.coefficients
        shape = self.affine.program.gaussians[str(axis.source)].elements
        by_elements = regression.of_elements(whole, coefficients, shape)
        return [regression.of_all(plain), by_elements]

    def interaction(
        self, read: SiteInput, data: Data, residual: Residual, products: Sequence[Product]
    ) -> Term:
        """Return products of a normal's interaction with Gaussian latents."""
        site, rank, elements = read.site, read.rank, read.elements
        known = {i for product in products for i in product.known}
        tables = dict(enumerate(residual.coefficients))
        family = interaction_family(read.family, read.event, products)
        given = {coefficients_name(i): table for i, table in tables.items()}
        given |= dict(read.arguments)
        arguments = {name: given[name] for name in family.arguments}
        origin = data.origin if family.centered else None
        naturals = natural_tables(family, arguments, origin, data.value, elements)
        axes = (*latent_axes_of([*naturals, *read.masks], rank), *residual.reads)
        weight_of_one = self.weight_of_one(read.weight, axes)
        recipe = statistics_of(read, data, weight_of_one)
        recipe = interaction_statistics(recipe, products, {i: tables[i] for i in sorted(known)})
        formed = recipe.formed(elements)
        latent_axes = latent_axes_of([*naturals, *(each.value for each in formed)], rank)
        kept = varying_dims((*latent_axes, *residual.reads), rank)
        return Term(
            site=site,
            family=family,
            elements=elements,
            arguments=arguments,
            statistics=self.reduced(read, recipe, formed, naturals, kept),
            base=constant(np.zeros((1,) * rank)),
            origin=origin,
            value=data.value,
            latent_axes=latent_axes,
            naturals=tuple(map(of_shape, naturals)),
            kept=kept,
            prior_arguments={},
            without_multiplicity=weight_of_one is not read.weight,
            reads=residual.reads,
            products=tuple(products),
        )
