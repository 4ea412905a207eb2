"""How much each level of agreement says for a match or against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from emjax.plot.emissions import Emission, category_log_probs, emissions_of, posterior_of
from emjax.plot.fits import AnyFit, bound_of
from emjax.plot.style import BLUE, GREY, INK, VERMILLION, grid, label, panel, signed, styled

FOR, AGAINST = BLUE, VERMILLION
PROBABILITIES = {
    "1%": 0.01,
    "10%": 0.1,
    "50%": 0.5,
    "90%": 0.9,
    "99%": 0.99,
    "99.9%": 0.999,
    "99.99%": 0.9999,
    "99.999%": 0.99999,
}


@dataclass(frozen=True, eq=False)
class _Field:
    """A comparison of records.

    - `weights`: log₂ p(level | match) / p(level | no match) of each level.
    - `levels`: that of each row, NaN where it is missing.
    - `words`: what the levels are called.
    """

    name: str
    weights: np.ndarray
    levels: np.ndarray
    words: tuple[str, ...]


@styled
def match_weights(
    fit: AnyFit,
    row: int | None = None,
    levels: Mapping[str, Sequence[str]] | None = None,
    ax: Any = None,
) -> Axes:
    """Draw what each level of each field weighs, log₂ of a likelihood ratio; return the axes.

    Of a latent of two values, 1 for a match, and categorical sites that depend on it alone: a bar
    for each level in bits; each bit doubles the odds of a match, or halves them. `row`: the
    waterfall of that row of the data instead: from the weight before comparing, field by field, to
    the total. `levels`: what the levels of a field are called, {field: from level 0 on}. `ax`: the
    axes to draw on. Errors: `ValueError` for a program without such sites.
    """
    fields, latent = _fields(fit, levels or {})
    if row is None:
        return _draw_levels(fields, ax)
    number = len(fields[0].levels)
    if not -number <= row < number:
        raise ValueError(f"row={row}: there are {number}, counted from 0.")
    total = posterior_of(fit, latent)[row]
    return _draw_waterfall(fields, range(number)[row], np.log2(total[1]) - np.log2(total[0]), ax)


def _fields(fit: AnyFit, levels: Mapping[str, Sequence[str]]) -> tuple[list[_Field], str]:
    """Return the fields of a program of comparisons, and the latent that says what matches."""
    bound = bound_of(fit, "match_weights")
    for name, latent in bound.compiled.graph.latents.items():
        if len(latent.support) != 2:
            continue
        found = [each for each in emissions_of(fit, bound, name)[0] if _is_comparison(each)]
        if found:
            return [_field(each, levels) for each in found], name
    raise ValueError(
        "emjax.plot.match_weights draws categorical sites that a latent of two values chooses: "
        "match = numpyro.sample('match', dist.Bernoulli(rate)), then numpyro.sample('name', "
        "dist.Categorical(probs[match]), obs=level). The program has none."
    )


def _is_comparison(emission: Emission) -> bool:
    is_categorical = emission.site.distribution.__name__.startswith(("Categorical", "Bernoulli"))
    return is_categorical and len(emission.latents) == 1 and emission.num_features == 1


def _field(emission: Emission, names: Mapping[str, Sequence[str]]) -> _Field:
    site = emission.site.name
    with np.errstate(divide="ignore", invalid="ignore"):
        log_probs = category_log_probs(emission)[..., 0] / np.log(2)
        weights = log_probs[:, 1] - log_probs[:, 0]
    words = tuple(map(str, names.get(site, range(len(weights)))))
    if len(words) != len(weights):
        raise ValueError(f"levels: '{site}' has {len(weights)} levels, and not {len(words)}.")
    return _Field(site, weights, emission.data[:, 0], words)


def _draw_levels(fields: list[_Field], ax: Any) -> Axes:
    """Draw a bar for each level of each field."""
    number = sum(len(field.weights) for field in fields)
    ax = panel(ax, 6.5, 0.8 + 0.26 * number + 0.2 * len(fields))
    bottom, places, names = 0.0, [], []
    for field in fields:
        rows = bottom + np.arange(len(field.weights))
        weights = field.weights[::-1]
        ax.barh(rows, weights, height=0.78, color=np.where(weights > 0, FOR, AGAINST))
        for row, weight in zip(rows, weights, strict=True):
            side = 1 if weight > 0 else -1
            ha = "left" if side > 0 else "right"
            text = f" {signed(weight)} "
            label(ax, weight, row, text, ha=ha, va="center")
        places += rows.tolist()
        # the field is named at its highest level
        names += [f"{field.name}  {field.words[-1]}", *field.words[-2::-1]]
        bottom = rows[-1] + 1.8
    ax.set_yticks(places, names)
    ax.set(xlabel="match weight (bits)")
    ax.invert_yaxis()
    ax.margins(x=0.1, y=0.02)
    ax.tick_params(axis="y", length=0)
    ax.axvline(0, color=GREY, linewidth=0.8)
    grid(ax, "x")
    return ax


def _draw_waterfall(fields: list[_Field], row: int, total: float, ax: Any) -> Axes:
    """Draw how the weight of one row adds up, from that before comparing to the total."""
    names, steps = [], []
    for field in fields:
        level = field.levels[row]
        is_missing = np.isnan(level)
        word = "missing" if is_missing else field.words[int(level)]
        names.append(f"{field.name}\n{word}")
        steps.append(0.0 if is_missing else float(field.weights[int(level)]))
    # what is left are the odds before anything is compared
    names, steps = ["before\ncomparing", *names], [total - sum(steps), *steps]
    ends = np.cumsum(steps)
    starts = np.concatenate([[0.0], ends[:-1]])
    ax = panel(ax, max(5.0, 1.0 + 0.95 * (len(steps) + 1)), 3.6)
    ax.bar(range(len(steps)), steps, bottom=starts, color=_sides(steps), width=0.66)
    ax.bar(len(steps), total, color=GREY, width=0.66)
    for k, end in enumerate(ends):
        ax.plot([k - 0.33, k + 1.33], [end, end], color=INK, linewidth=0.8)
    for k, (start, step) in enumerate(zip([*starts, 0.0], [*steps, total], strict=True)):
        label(ax, k, max(start, start + step) + 0.2, signed(step), ha="center", va="bottom")
    ax.set_xticks(range(len(steps) + 1), [*names, "in all"])
    ax.set(ylabel="match weight (bits)")
    ax.set_ylim(min(0, *ends) - 1.0, max(0, *ends) + 2.0)
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.tick_params(axis="x", length=0)
    _draw_probabilities(ax)
    grid(ax)
    return ax


def _sides(steps: list[float]) -> np.ndarray:
    return np.where(np.array(steps) >= 0, FOR, AGAINST)


def _draw_probabilities(ax: Axes) -> None:
    """Draw a second scale on the right: the probabilities of the weights."""
    right = ax.secondary_yaxis("right")
    weights = [np.log2(p / (1 - p)) for p in PROBABILITIES.values()]
    right.set_yticks(weights, list(PROBABILITIES))
    right.set_ylabel("probability of a match")
    right.spines["right"].set_visible(True)
