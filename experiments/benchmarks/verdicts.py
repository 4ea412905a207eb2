"""What the measurements of a row say.

Ratios, agreement of the log-likelihoods, and whether the goals are met.
"""

from typing import NamedTuple

import numpy as np

from experiments.benchmarks.contestant import DIFFERENT
from experiments.benchmarks.measure import Measurement
from experiments.benchmarks.row import FASTEST, Goal, Row

SHORT = {"float64": "f64", "float32": "f32"}
AGREES = {"float64": 1e-6, "float32": 1e-4}  # relative differences of log-likelihoods


class Verdict(NamedTuple):
    """A goal, and what was measured.

    - `goal`: what is wanted.
    - `ratio`: time of the peer / time of the subject; NaN without both.
    """

    goal: Goal
    ratio: float

    @property
    def met(self) -> bool:
        """Say whether the ratio reaches the goal; False where it was not measured."""
        return self.ratio >= self.goal.factor

    @property
    def sentence(self) -> str:
        """Return the goal and the result in words."""
        goal, precision = self.goal, SHORT[self.goal.precision]
        subject = "" if goal.subject == "emjax" else f"{goal.subject}: "
        if goal.factor < 1:
            wanted = f"at most {1 / goal.factor:.3g} × the time of {goal.peer} {precision}"
            return f"{subject}{wanted}: {outcome(1 / self.ratio, ' ×', self.met)}"
        wanted = f"{numeral(goal.factor)} × as fast as {goal.peer} {precision}"
        return f"{subject}{wanted}: {outcome(self.ratio, ' ×', self.met)}"


class Limit(NamedTuple):
    """The largest value that is allowed, and the one that was measured, in a unit."""

    what: str
    unit: str
    most: float
    value: float

    @property
    def met(self) -> bool:
        """Say whether the value is within the limit."""
        return self.value <= self.most

    @property
    def sentence(self) -> str:
        """Return the limit and the result in words."""
        return (
            f"{self.what} under {numeral(self.most)} {self.unit}: "
            f"{outcome(self.value, f' {self.unit}', self.met)}"
        )


def outcome(value: float, unit: str, met: bool) -> str:
    """Return what was measured, and whether that is enough."""
    if np.isnan(value):
        return "not measured"
    return f"{numeral(value)}{unit}, {'met' if met else 'missed'}"


def measurement_of(
    measurements: list[Measurement], implementation: str, precision: str
) -> Measurement | None:
    """Return the measurement of an implementation in a precision, if it took part."""
    pair = implementation, precision
    return next((m for m in measurements if (m.implementation, m.precision) == pair), None)


def ratio(measurements: list[Measurement], subject: str, peer: str, precision: str) -> float:
    """Return time of the peer / time of the subject, in the same precision; NaN without both."""
    ours = measurement_of(measurements, subject, precision)
    if peer == FASTEST:
        theirs = fastest(measurements, precision)
    else:
        theirs = measurement_of(measurements, peer, precision)
    return theirs.seconds / ours.seconds if ours and theirs else float("nan")


def is_peer(implementation: str) -> bool:
    """Say whether an implementation is neither emjax nor written by hand in JAX."""
    return not implementation.startswith(("emjax", "hand-written"))


def fastest(measurements: list[Measurement], precision: str) -> Measurement | None:
    """Return the peer that takes the least time for a step, in this precision."""
    peers = [
        m
        for m in measurements
        if is_peer(m.implementation) and m.precision == precision and m.seconds > 0
    ]
    return min(peers, key=lambda m: m.seconds, default=None)


def verdicts(row: Row, measurements: list[Measurement]) -> list[Verdict | Limit]:
    """Return what became of each goal and of each limit of the row."""
    results: list[Verdict | Limit] = [
        Verdict(goal, ratio(measurements, goal.subject, goal.peer, goal.precision))
        for goal in row.goals
    ]
    ours = next((m for m in measurements if m.implementation == "emjax"), None)
    if row.limits and ours:
        results.append(
            Limit("peak memory beyond the data", "GiB", row.limits.memory, ours.memory / 2**30)
        )
        if np.isfinite(row.limits.seconds):
            results.append(Limit("a step", "s", row.limits.seconds, ours.seconds))
    return results


def difference(measurements: list[Measurement], of: Measurement) -> float:
    """Return (log-likelihood − emjax's) / |emjax's|, emjax in float64 where it took part so."""
    for m in measurements:
        if m.implementation == "emjax" and np.isfinite(m.log_likelihood):
            return (of.log_likelihood - m.log_likelihood) / abs(m.log_likelihood)
    return float("nan")


def agreement(measurements: list[Measurement], of: Measurement) -> str:
    """Return the difference, marked where it is larger than rounding explains."""
    value = difference(measurements, of)
    if np.isnan(value):
        return ""
    disagrees = abs(value) > AGREES[of.precision] and of.implementation not in DIFFERENT
    return f"{value:+.1e}{' DISAGREES' if disagrees else ''}"


def exponent(samples: list[int], seconds: list[float]) -> float:
    """Return the slope of log seconds against log N."""
    return float(np.polyfit(np.log(samples), np.log(seconds), 1)[0])


def numeral(value: float) -> str:
    """Return two significant digits or the whole number.

    A dash stands for none, where timing lost against noise.
    """
    if np.isnan(value) or value <= 0:
        return "–"
    return f"{value:.0f}" if value >= 9.95 else f"{value:.2g}"


def time(seconds: float) -> str:
    """Return seconds with two significant digits, never in powers of ten."""
    if np.isnan(seconds) or seconds <= 0:
        return "–"
    magnitude = int(np.floor(np.log10(max(seconds, 1e-9))))
    return f"{seconds:.{max(0, 1 - magnitude)}f}"
