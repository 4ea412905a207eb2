"""Posteriors as data frames: rows by the labels of the data, columns by the latent's values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from emjax.naming.axes import program_axes, support_values
from emjax.program.latents import GaussianLatent
from emjax.run.annotations import Params
from emjax.run.bound import Bound
from emjax.run.columns import pandas


def posterior_frame(bound: Bound, params: Params, latent: str | None) -> Any:
    """Return the posterior of a latent: a row for each element, a column for each value.

    Of a Gaussian latent, the mean and the standard deviation of each coordinate. Rows are labeled
    as those of the data frame that they are about, by several axes (a matrix of elements, steps of
    sequences) as their product. `latent`: which one, if there are several. Errors: `ValueError` for
    a latent that the program does not have; `ImportError` without pandas.
    """
    graph, pd = bound.compiled.graph, pandas()
    names = [*graph.latents, *graph.gaussians]
    if not names:
        raise ValueError("The program has no latent, so that there is no posterior.")
    if latent is None and len(names) != 1:
        raise ValueError(f"The program has {len(names)} latents: name one, latent= one of {names}.")
    latent = names[0] if latent is None else latent
    if latent not in names:
        raise ValueError(f"The program has no latent {latent!r}; it has {names}.")
    if latent in graph.gaussians:
        return _moments_frame(graph.gaussians[latent], bound.posterior(params)[latent])
    posterior, values = np.asarray(bound.posterior(params)[latent]), support_values(graph, latent)
    axes, rows = program_axes(bound).of_elements(latent), _rows_read_by_name(bound)
    labels = [pd.Index(axis.labels, name=axis.name or None) for axis in axes]
    along = [d for d, index in enumerate(labels) if rows is not None and len(index) == len(rows)]
    # of several axes of that length, it is not known which one they are
    if len(along) == 1:
        has_name = rows.nlevels > 1 or rows.name is not None
        labels[along[0]] = rows if has_name else rows.rename(labels[along[0]].name)
    if len(labels) == 1:
        index = labels[0]
    elif labels:
        index = pd.MultiIndex.from_product(labels)
    else:
        index = pd.RangeIndex(1)
    return pd.DataFrame(
        posterior.reshape(-1, len(values)), index=index, columns=pd.Index(values, name=latent)
    )


def _moments_frame(latent: GaussianLatent, moments: Mapping[str, Any]) -> Any:
    """Return the mean and the standard deviation of each coordinate of a Gaussian latent."""
    pd, size = pandas(), latent.size
    mean = np.asarray(moments["mean"])
    if mean.size != math.prod(latent.shape):
        raise ValueError(
            f"The moments of Gaussian latent '{latent.name}' are those given each value of a "
            "discrete one, for which a table has no place: they are in "
            f"posterior()['{latent.name}']."
        )
    variance = np.asarray(moments["covariance"]).reshape(-1, size, size)
    spread = np.sqrt(np.diagonal(variance, axis1=1, axis2=2))
    ends = [""] if size == 1 else [f"[{number}]" for number in range(size)]
    columns = {}
    for number, end in enumerate(ends):
        columns[f"mean{end}"] = mean.reshape(-1, size)[:, number]
        columns[f"sd{end}"] = spread[:, number]
    plates = latent.plates[::-1]
    is_named = len(plates) == len(latent.elements)
    ranges = [pd.RangeIndex(length) for length in latent.elements]
    if len(ranges) == 1:
        index = ranges[0].rename(plates[0] if is_named else None)
    elif ranges:
        index = pd.MultiIndex.from_product(ranges, names=plates if is_named else None)
    else:
        index = pd.RangeIndex(1)
    return pd.DataFrame(columns, index=index)


def _rows_read_by_name(bound: Bound) -> Any:
    """Return the labels of the rows of data frames whose columns the program reads by their names.

    None where there are none, or several. What it reads of them are arrays, without labels.
    """
    if bound.arguments[0] is not bound.args:
        return None
    found = []
    for leaf in jax.tree.leaves((bound.args, bound.kwargs)):
        index = getattr(leaf, "index", None)
        if hasattr(leaf, "columns") and index is not None and not callable(index):
            found.append(index)
    is_one = found and all(index.equals(found[0]) for index in found)
    return found[0] if is_one else None
