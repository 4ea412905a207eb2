"""A result with the values of a latent in another order: by size, by a parameter, as asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import jax
import numpy as np

from emjax.answers.relabeling import Symmetry, symmetries
from emjax.certificates.estimate import Estimate
from emjax.e_step.occupancy import counts_in_posterior
from emjax.run.bound import Bound
from emjax.run.findings import Finding
from emjax.run.pure import PureProgram
from emjax.run.result import EMResult

SIZE = "size"
Found = TypeVar("Found", bound=EMResult)


def relabeled(bound: Bound, result: Found, order: Any, latent: str | None = None) -> Found:
    """Return a result at which value k of a latent is what value order[k] was.

    It has the same log-likelihood; its posterior is permuted. Every parameter goes along with the
    values of the latent on all its axes that do. `order`: "size" (expected elements, the largest
    first), a parameter's name (its entries, or rows of them, ascending), a function of the
    parameters that returns a number for each value (ascending), or the permutation itself.
    `latent`: which one; None: the only one whose values can be exchanged. Errors: `ValueError`
    where they cannot, and for what is no order.
    """
    symmetry = _symmetry_of(bound, result, latent)
    permutation = _permutation(bound, result, order, symmetry)
    params = _as_before(result.params, symmetry.relabeled(result.params, permutation))
    restarts = result.restarts
    if restarts is not None:
        of_runs = symmetry.relabeled(restarts.params, permutation, num_leading=1)
        restarts = replace(restarts, params=_as_before(restarts.params, of_runs))
    names = Names(symmetry, bound.compiled.graph.latents, permutation)
    findings = tuple(map(names.renamed, result.findings))
    return replace(result, params=params, restarts=restarts, findings=findings)


def _as_before(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JAX's arrays, those that have not changed as they were."""
    return {
        name: before[name] if value is before[name] else jax.device_put(value)
        for name, value in after.items()
    }


def _symmetry_of(bound: Bound, result: EMResult, latent: str | None) -> Symmetry:
    """Return the exchange of a latent's values. Errors: `ValueError` where there is none."""
    latents = bound.compiled.graph.latents
    if not latents:
        raise ValueError("The program has no discrete latent, whose values could be relabeled.")
    if latent is not None and latent not in latents:
        names = ", ".join(map(repr, latents))
        raise ValueError(f"latent={latent!r} is no discrete latent of the program; it has {names}.")
    found = symmetries(Estimate.of(bound, result))
    asked = [each for each in found if latent is None or latent in each.latents]
    if len(asked) > 1:
        names = ", ".join(repr(each.latents[0]) for each in asked)
        raise ValueError(
            f"The values of several latents can be exchanged: {names}. Name one, "
            f"latent='{asked[0].latents[0]}'."
        )
    if not asked:
        names = ", ".join(map(repr, latents if latent is None else [latent]))
        raise ValueError(
            f"No exchange of parameters exchanges the values of {names}: the program treats them "
            "unequally (labels, an order, parameters that are held or computed), so that they "
            "have their meaning already."
        )
    return asked[0]


# ── the order ─────────────────────────────────────────────────────────────────────────────────────


def _permutation(bound: Bound, result: EMResult, order: Any, symmetry: Symmetry) -> np.ndarray:
    """Return which value each value was. Errors: `ValueError` for what is no order."""
    if callable(order):
        return _by_function(order, result.params, symmetry.size)
    if isinstance(order, str):
        return (
            _by_size(bound, result, symmetry)
            if order == SIZE
            else _by_name(result, order, symmetry)
        )
    permutation = np.asarray(order)
    if sorted(permutation.ravel().tolist()) != list(range(symmetry.size)):
        raise ValueError(
            f"order must be a permutation of 0 … {symmetry.size - 1}, 'size', the name of a "
            f"parameter, or a function of the parameters, not {order!r}."
        )
    return permutation.ravel()


def _by_function(order: Callable, params: Mapping[str, Any], size: int) -> np.ndarray:
    numbers = np.asarray(order(params))
    if numbers.shape != (size,):
        raise ValueError(
            f"The function that orders the values must return {size} numbers, one for each; what "
            f"it returns has the shape {numbers.shape}."
        )
    return np.argsort(numbers, kind="stable")


def _by_size(bound: Bound, result: EMResult, symmetry: Symmetry) -> np.ndarray:
    counts = bound.asked(_counts, result)
    total = np.sum([np.asarray(counts[name]) for name in symmetry.latents], axis=0)
    return np.argsort(-total, kind="stable")


def _counts(pure: PureProgram, params: Any, constants: Sequence) -> dict:
    graph = pure.graph
    return counts_in_posterior(graph, graph.arrays(params, constants), list(graph.latents))


def _by_name(result: EMResult, name: str, symmetry: Symmetry) -> np.ndarray:
    axes = symmetry.axes.get(name, ())
    if len(axes) != 1:
        known = ", ".join(repr(each) for each, of in symmetry.axes.items() if len(of) == 1)
        raise ValueError(
            f"order={name!r} has not one axis that goes with the values of "
            f"'{symmetry.latents[0]}'; those that have: {known or 'none'}. Or pass 'size', a "
            "permutation, or a function of the parameters."
        )
    rows = np.moveaxis(np.asarray(result.params[name]), axes[0], 0).reshape(symmetry.size, -1)
    # the last key counts first
    return np.lexsort(rows.T[::-1])


# ── what findings say ─────────────────────────────────────────────────────────────────────────────

OWNER = re.compile(r"(components? )([^']*?)( of ')([^']*)(')")
ENTRY = re.compile(r"('([^']*)')\[([\d, ]+)\]")
INDEX = re.compile(r"\((\d+(?:,|(?:, \d+)+))\)")
NUMBER_OF_PAIRS = " pairs in all"


class Names:
    """What values of latents, and entries of parameters, are called after an exchange."""

    def __init__(self, symmetry: Symmetry, latents: Mapping[str, Any], order: np.ndarray):
        self.symmetry, self.latents, self.now = symmetry, latents, np.argsort(order)

    def renamed(self, finding: Finding) -> Finding:
        """Return a finding that is about the same values and entries, by their new names."""
        site, where = finding.site, finding.where
        if site in self.symmetry.latents:
            where = self._values(site, where)
        elif site in self.symmetry.axes:
            where = self._indices(site, where)
        sentence = OWNER.sub(self._owner, finding.sentence)
        sentence = ENTRY.sub(self._entry, sentence)
        if where != finding.where:
            sentence = sentence.replace(f" at {finding.where}", f" at {where}")
        return replace(finding, where=OWNER.sub(self._owner, where), sentence=sentence)

    def _owner(self, match: re.Match) -> str:
        before, values, of, latent, after = match.groups()
        if latent in self.symmetry.latents:
            values = self._values(latent, values)
        return f"{before}{values}{of}{latent}{after}"

    def _values(self, latent: str, words: str) -> str:
        """Return words in which each value of a latent is called what it is now."""
        support = [str(value) for value in self.latents[latent].support]
        now = {value: support[self.now[k]] for k, value in enumerate(support)}

        def renamed(match: re.Match) -> str:
            is_count = words[match.end() :].startswith(NUMBER_OF_PAIRS)
            return match[0] if is_count else now.get(match[0], match[0])

        return re.sub(r"-?\d+", renamed, words)

    def _entry(self, match: re.Match) -> str:
        quoted, name, numbers = match.groups()
        return f"{quoted}[{', '.join(self._moved(name, numbers))}]"

    def _indices(self, name: str, words: str) -> str:
        """Return words in which each index of a parameter is what it is now: [0, 1], (0, 1)."""
        if words.startswith("["):
            return f"[{', '.join(self._moved(name, words[1:-1]))}]"

        def moved(match: re.Match) -> str:
            numbers = self._moved(name, match[1])
            return f"({numbers[0]},)" if len(numbers) == 1 else f"({', '.join(numbers)})"

        return INDEX.sub(moved, words)

    def _moved(self, name: str, numbers: str) -> list[str]:
        index = [int(number) for number in re.findall(r"\d+", numbers)]
        for axis in self.symmetry.axes.get(name, ()):
            # an entry that is a vector is named by its leading axes
            if axis < len(index):
                index[axis] = int(self.now[index[axis]])
        return [str(number) for number in index]
