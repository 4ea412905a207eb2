"""What the measurements of a row say.

Ratios, agreement of the log-likelihoods, physical limits, and whether the goals are met.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from experiments.benchmarks import limits
from experiments.benchmarks.contestant import DIFFERENT
from experiments.benchmarks.limits import Rates
from experiments.benchmarks.measure import Measurement
from experiments.benchmarks.row import FASTEST, READING, Goal, Row, goals_of, is_rival
from experiments.benchmarks.work import work_of

SHORT = {"float64": "f64", "float32": "f32"}
AGREES = {"float64": 1e-6, "float32": 1e-4}  # relative differences of log-likelihoods
NO_RATES: Mapping[str, Rates] = MappingProxyType({})


class Verdict(NamedTuple):
    """A goal, and what was measured.

    - `goal`: what is wanted.
    - `ratio`: time of the peer / time of the subject; NaN without both.
    - `peer`: who is meant by the fastest library.
    """

    goal: Goal
    ratio: float
    peer: str = ""

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
        peer = f"{goal.peer} {precision}" + (f" ({self.peer})" if self.peer else "")
        wanted = f"{numeral(goal.factor)} × as fast as" if goal.factor > 1 else "faster than"
        return f"{subject}{wanted} {peer}: {outcome(self.ratio, ' ×', self.met)}"


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
    measurements: Sequence[Measurement], implementation: str, precision: str
) -> Measurement | None:
    """Return the measurement of an implementation in a precision, if it has numbers."""
    pair = implementation, precision
    return next(
        (m for m in measurements if (m.implementation, m.precision) == pair and m.seconds > 0), None
    )


def ratio(measurements: Sequence[Measurement], subject: str, peer: str, precision: str) -> float:
    """Return time of the peer / time of the subject, in the same precision; NaN without both."""
    ours = measurement_of(measurements, subject, precision)
    if peer == FASTEST:
        theirs = fastest(measurements, precision)
    else:
        theirs = measurement_of(measurements, peer, precision)
    return theirs.seconds / ours.seconds if ours and theirs else float("nan")


def fastest(measurements: Sequence[Measurement], precision: str) -> Measurement | None:
    """Return the library that takes the least time for a step of EM, in this precision."""
    rivals = [
        m
        for m in measurements
        if is_rival(m.implementation) and m.precision == precision and m.seconds > 0
    ]
    return min(rivals, key=lambda m: m.seconds, default=None)


def verdicts(
    row: Row, measurements: Sequence[Measurement], rates: Mapping[str, Rates] = NO_RATES
) -> list[Verdict | Limit]:
    """Return what became of each goal and of each limit of the row."""
    results: list[Verdict | Limit] = []
    for goal in goals_of(row):
        if goal.peer == READING:
            results.append(Verdict(goal, beside_reading(row, measurements, rates, goal)))
            continue
        value = ratio(measurements, goal.subject, goal.peer, goal.precision)
        peer = fastest(measurements, goal.precision) if goal.peer == FASTEST else None
        results.append(Verdict(goal, value, peer.implementation if peer else ""))
    ours = next((m for m in measurements if m.implementation == "emjax"), None)
    if row.limits and ours:
        results.append(
            Limit("peak memory beyond the data", "GiB", row.limits.memory, ours.memory / 2**30)
        )
        if np.isfinite(row.limits.seconds):
            results.append(Limit("a step", "s", row.limits.seconds, ours.seconds))
    return results


# ── physical limits ───────────────────────────────────────────────────────────────────────────────


def beside_reading(
    row: Row, measurements: Sequence[Measurement], rates: Mapping[str, Rates], goal: Goal
) -> float:
    """Return the time of reading the data once / time of a step; NaN where one is unknown."""
    ours, work = measurement_of(measurements, goal.subject, goal.precision), work_of(row)
    if ours is None or work is None or goal.precision not in rates:
        return float("nan")
    return limits.reading(work, rates[goal.precision], goal.precision) / ours.seconds


def bound_of(row: Row, rates: Mapping[str, Rates], precision: str) -> limits.Bound | None:
    """Return the least time of a step of the row, where it is known."""
    work = work_of(row)
    return limits.bound(work, rates[precision], precision) if work and precision in rates else None


def times_the_limit(row: Row, m: Measurement, rates: Mapping[str, Rates]) -> float:
    """Return time of a step / least time of a step.

    NaN where it is unknown, and for those who do other work: on distinct rows, or no EM.
    """
    least = bound_of(row, rates, m.precision)
    is_other = m.implementation in DIFFERENT or m.implementation.endswith(
        ("compressed", "distinct rows")
    )
    if least is None or is_other or least.seconds <= 0:
        return float("nan")
    return m.seconds / least.seconds


# ── agreement, numerals ───────────────────────────────────────────────────────────────────────────


def difference(measurements: Sequence[Measurement], of: Measurement) -> float:
    """Return (log-likelihood − emjax's) / |emjax's|, emjax in float64 where it took part so."""
    for m in measurements:
        if m.implementation == "emjax" and np.isfinite(m.log_likelihood):
            return (of.log_likelihood - m.log_likelihood) / abs(m.log_likelihood)
    return float("nan")


def agreement(measurements: Sequence[Measurement], of: Measurement) -> str:
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
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.2g}"


def time(seconds: float) -> str:
    """Return seconds with two significant digits, never in powers of ten."""
    if np.isnan(seconds) or seconds <= 0:
        return "–"
    magnitude = int(np.floor(np.log10(max(seconds, 1e-9))))
    return f"{seconds:.{max(0, 1 - magnitude)}f}"
