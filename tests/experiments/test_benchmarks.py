"""What the benchmarks say of what they measured: goals, limits, the page, the README, the guard."""

import re
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks import device, guard, kept, limits, page, picture, readme, verdicts
from experiments.benchmarks.limits import Rates
from experiments.benchmarks.measure import Effort, Measurement
from experiments.benchmarks.row import F64, FASTEST, READING, Goal, Row, Work, goals_of
from experiments.benchmarks.rows import ROWS
from experiments.benchmarks.work import work_of

ROOT = Path(__file__).parents[2]
RATES = {
    "float64": Rates(multiply_adds=1e9, bytes=8e9, transcendentals=1e8, cache=1e6),
    "float32": Rates(multiply_adds=2e9, bytes=8e9, transcendentals=2e8, cache=1e6),
}
FACTS = kept.Facts("a processor", "1 GiB", "Python", "", RATES)


def timed(name, seconds, precision="float64"):
    return Measurement(name, precision, seconds, (seconds, seconds), 1.0, 1e6, -10.0)


def labels(seconds=0.03):
    """The largest Dawid–Skene row: its data are 120 MB of integers."""
    others = [timed("hand-written JAX", 0.02), timed("NumPy", 0.06)]
    return ROWS["labels10m"], [timed("emjax", seconds), *others]


def test_every_row_has_the_goals_of_every_row():
    for row in ROWS.values():
        for precision in row.contestants.get("hand-written JAX", ()):
            assert Goal(1 / 1.1, "hand-written JAX", precision) in goals_of(row), row.name
    assert Goal(1.0, FASTEST, "float64") in goals_of(ROWS["multinomials"])
    # sampling and another factorization are no rivals
    alone = Row("", "", "plsa", {}, {}, (1, 2), {"emjax": F64, "tomotopy": F64})
    assert goals_of(alone) == ()


def test_work_is_known_and_positive_at_the_sizes_of_a_row():
    for row in ROWS.values():
        work = work_of(row)
        assert work is None or max(work) > 0, row.name
    full = work_of(ROWS["points10k"])
    assert full == Work(2 * 10_000 * 16 * 45, 80_000, 17 * 10_000, 0)


def test_the_limit_is_the_largest_of_three_times_and_says_which():
    assert limits.bound(Work(3e9, 0, 1e8), RATES["float64"], "float64") == (3, "matrix products")
    assert limits.bound(Work(1e8, 4e9), RATES["float64"], "float64") == (4, "memory")
    assert limits.bound(Work(1e8, 4e9), RATES["float32"], "float32") == (2, "memory")
    assert limits.bound(Work(0, 0, 5e8), RATES["float64"], "float64").seconds == 5
    # what fits into the cache is not read from memory
    assert limits.reading(Work(numbers=1e5), RATES["float64"], "float64") == 0


def test_a_step_is_compared_with_reading_the_data_once():
    row, measurements = labels()
    verdict = next(v for v in verdicts.verdicts(row, measurements, RATES) if v.goal.peer == READING)
    np.testing.assert_allclose(verdict.ratio, (120e6 / 8e9) / 0.03)
    assert verdict.met
    assert verdict.sentence.endswith("reading its data once f64: 2 ×, met")


def test_results_are_kept_and_read_again(tmp_path):
    row, measurements = labels()
    measurements[2] = Measurement("NumPy", "float64", problem="MemoryError")
    kept.keep(tmp_path, row, measurements)
    kept.keep_facts(tmp_path, FACTS)
    slower = {name: rates._replace(bytes=1.0) for name, rates in RATES.items()}
    assert kept.keep_facts(tmp_path, FACTS._replace(rates=slower)) == FACTS  # the best that was
    [(again, found)] = kept.read(tmp_path)
    assert again == row and not kept.is_small([(again, found)])
    assert found[:2] == measurements[:2]
    assert found[2].problem == "MemoryError" and np.isnan(found[2].seconds)
    assert kept.read_facts(tmp_path) == FACTS
    kept.keep(tmp_path, row._replace(sizes=row.sizes | row.quick), measurements)
    assert kept.is_small(kept.read(tmp_path))


def test_libraries_have_fewer_rounds_and_slow_ones_a_single_one():
    effort = Effort(7, 1.0)
    rounds = {
        name: [n for n in range(7) if effort.takes_part(name, n, seconds)]
        for name, seconds in (("emjax", 60.0), ("scikit-learn", 1.0), ("dynamax", 60.0))
    }
    assert rounds == {"emjax": [*range(7)], "scikit-learn": [0, 3, 6], "dynamax": [0]}
    late = {
        name: [n for n in range(7) if effort.takes_part(name, n, seconds, is_late=True)]
        for name, seconds in (("emjax", 1.0), ("emjax, parallel", 60.0), ("scikit-learn", 1.0))
    }
    assert late == {"emjax": [*range(7)], "emjax, parallel": [0, 1, 2], "scikit-learn": [0]}


def test_page_picture_and_readme_come_from_one_set_of_results(tmp_path):
    path = tmp_path / "benchmarks.md"
    results = [labels(), (ROWS["points10k"], [timed("emjax", 0.001, "float32")])]
    page.write(path, FACTS, results)
    text = path.read_text()
    assert "No device was measured" in text
    assert "takes 1.5 to 1.5 times as long as the hand-written" in " ".join(text.split())
    assert re.search(r"\| NumPy +\| float64 .* \| 2 \| 1 \|", text)  # of emjax, of the limit
    page.write_device(path, "## On an accelerator\n\nAn imaginary one.")
    page.write(path, FACTS, results)
    assert "An imaginary one." in path.read_text() and "No device" not in path.read_text()
    picture.draw(tmp_path / "summary.svg", results)
    assert "1 of 1" in (tmp_path / "summary.svg").read_text()
    before = (
        "| NumPy | a | b | c | d | 9 |\n\nA step takes 3 to 4 times as long, 3.5 in the median."
    )
    after = (
        "| NumPy | a | b | c | d | 2 |\n\nA step takes 1.5 to 1.5 times as long, 1.5 in the median."
    )
    assert readme.rewritten(before, text) == after


def test_readme_claims_what_the_page_shows():
    text, shown = ((ROOT / name).read_text() for name in ("README.md", "docs/benchmarks.md"))
    assert readme.relative_times(shown)["scikit-learn"]
    assert readme.rewritten(text, shown) == text, "python -m experiments.benchmarks --write"


def test_guard_measures_once_more_before_it_fails():
    rounds = []

    def cost(times):
        def measure(number):
            rounds.append(number)
            return guard.Cost(times[len(rounds) - 1], 1.0)

        rounds.clear()
        return guard.judged(measure)

    assert cost([1.2]) == (guard.Cost(1.2, 1.0), True) and rounds == [guard.ROUNDS]
    assert cost([1.4, 1.1])[1] and rounds == [guard.ROUNDS, guard.MORE_ROUNDS]
    assert not cost([1.4, 1.3])[1]
    assert not cost([float("nan")] * 2)[1]


@pytest.mark.parametrize("found, agrees", [(1e-12, True), (1e-3, False)])
def test_a_device_must_agree_with_the_processor(found, agrees):
    expected = {"loc": np.array([0.0, 2.0])}
    apart = device.difference({"loc": expected["loc"] + [0, 2 * found]}, expected)
    np.testing.assert_allclose(apart, found, rtol=1e-3)
    assert device.Found(device.CASES[0], "float64", "", apart).agrees is agrees
