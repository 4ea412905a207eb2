"""The table of how long answers take."""

from experiments.benchmarks.latency import page, with_emjax, with_libraries
from experiments.benchmarks.latency.measure import collected
from experiments.benchmarks.latency.rows import TABLE, WORKS


def test_everybody_knows_the_work_that_is_asked_of_him():
    assert list(with_emjax.SETUPS) == list(WORKS)
    by_library = {name: list(setups) for name, setups in with_libraries.SETUPS.items()}
    for library, names in by_library.items():
        assert names == [work.name for work in TABLE if work.peer == library]
    assert set(by_library) == {work.peer for work in TABLE} - {""}


def test_the_table_has_the_median_of_all_processes_and_the_ratio_to_the_library():
    replies = [
        {"seconds": [seconds, 2 * seconds], "compilations": [1, 0]} for seconds in (0.3, 0.2, 9.0)
    ]
    latencies = {
        "emjax": collected(replies),
        "scikit-learn": collected([{"seconds": [0.1, 0.1], "compilations": [0, 0]}]),
    }
    assert page.cells(WORKS["second"], latencies) == [
        WORKS["second"].title,
        "0.30, 0.60",
        "1, 0",
        "scikit-learn 0.10, 0.10",
        "3, 6",
    ]


def test_what_fails_has_no_numbers_and_says_why():
    latencies = {
        "emjax": collected([{"problem": "ValueError: no data"}]),
        "hmmlearn": collected([{"seconds": [0.1], "compilations": [0]}]),
    }
    work = WORKS["chain"]
    assert page.cells(work, latencies)[1:] == ["–", "–", "hmmlearn 0.10", "–"]
    assert page.problems([work], [latencies]) == ["chain, emjax: ValueError: no data"]


def test_work_that_no_library_does_stands_alone():
    latencies = {"emjax": collected([{"seconds": [1.0], "compilations": [2]}])}
    assert page.cells(WORKS["diagnose"], latencies)[1:] == ["1.0", "2", "–", "–"]
