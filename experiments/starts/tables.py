"""The tables: how often each start comes to the best optimum, and what a fit costs."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from experiments import report
from experiments.starts.data_sets import data_sets
from experiments.starts.ends import DEFAULT, DEFAULT_TEN, STARTS, Ends
from experiments.starts.libraries import (
    LIBRARY,
    LIBRARY_OTHERS,
    LIBRARY_TEN,
    OF_FAMILY,
    is_installed,
)

# By data set, then by start: where its seeds ended.
Measured = Mapping[str, Mapping[str, Ends]]
LIBRARIES = (LIBRARY, *LIBRARY_OTHERS, LIBRARY_TEN)
SINGLE = (LIBRARY, *LIBRARY_OTHERS)
# what somebody gets who asks for no start, here and elsewhere
SETTLED = (DEFAULT, DEFAULT_TEN, *LIBRARIES)


def columns(measured: Measured) -> list[str]:
    """Return the starts that were measured anywhere, emjax's first."""
    every = {start for of_data in measured.values() for start in of_data}
    return [start for start in (*STARTS, *LIBRARIES) if start in every]


def share(ends: Ends, best: float) -> float:
    """Return the share of seeds at the best optimum."""
    return float(ends.at(best).mean())


def print_data_sets(names: Sequence[str], best: Mapping[str, float]) -> None:
    """Print what the data sets are."""
    rows = []
    for name in names:
        found = data_sets()[name]
        library = OF_FAMILY[found.family] + ("" if is_installed(found) else " (not installed)")
        rows.append([name, found.meaning, library, f"{best[name]:,.3f}"])
    report.table(
        ["data set", "what", "beside", "best optimum"],
        rows,
        caption="""Best optimum: the highest known log-likelihood, in nats, summed over the data, of
            those at which no component has collapsed or is about to
            (experiments/data/best_known_optima.json says how it was found).""",
    )


def print_starts(measured: Measured, best: Mapping[str, float], precision: str) -> None:
    """Print how many seeds of each start come to the best optimum, and what a fit costs."""
    num_seeds = len(next(iter(next(iter(measured.values())).values())).height)
    asked = [start for start in columns(measured) if start not in SETTLED]
    settled = [start for start in columns(measured) if start in SETTLED]

    def print_table(starts: Sequence[str], cell: Callable, caption: str) -> None:
        # of single precision the defaults alone are measured
        if not starts:
            return
        rows = []
        for name, of_data in measured.items():
            cells = [cell(of_data[s], best[name]) if s in of_data else "" for s in starts]
            rows.append([name, *cells])
        report.table(["data set", *map(short, starts)], rows, caption)

    print_table(
        asked,
        reached,
        f"""{precision}: how many of {num_seeds} fits come to the best optimum, by start (init=…);
        empty where a start does not serve the program.""",
    )
    print_table(
        settled,
        reached,
        f"{precision}, EM(program) with 1 and with 10 starts, and libraries: fits of {num_seeds}.",
    )
    caption = "Milliseconds a fit (median), compilation left out; after the bar, steps of EM."
    print_table(asked, milliseconds, caption)
    print_table(settled, milliseconds, "")


def reached(ends: Ends, best: float) -> str:
    """Return how many seeds came to the best optimum."""
    return str(int(ends.at(best).sum()))


def milliseconds(ends: Ends, best: float) -> str:
    """Return the median of milliseconds and of steps of a fit."""
    return f"{1000 * np.median(ends.seconds):.0f}|{np.median(ends.num_steps):.0f}"


def short(start: str) -> str:
    """Return a start's name for the head of a column."""
    return {
        "program's own": "own",
        "responsibilities": "resp.",
    }.get(start, start)


def print_verdict(measured: Measured, best: Mapping[str, float]) -> None:
    """Print where a library's start comes to the best optimum more often than the default."""
    for default, others in ((DEFAULT, SINGLE), (DEFAULT_TEN, LIBRARIES)):
        worse = [losing(name, measured[name], best[name], default, others) for name in measured]
        worse = [text for text in worse if text]
        report.remark(
            f"{default}: "
            + (f"a library's start is better on {'; '.join(worse)}." if worse else "")
            + ("" if worse else "nowhere does a start of a library come to the best more often.")
        )


def losing(
    name: str, of_data: Mapping[str, Ends], best: float, default: str, others: Sequence[str]
) -> str:
    """Return by how much the best of the others is better than the default; nothing if not."""
    known = {start: share(of_data[start], best) for start in others if start in of_data}
    if not known or default not in of_data:
        return ""
    first = max(known, key=known.get)
    mine = share(of_data[default], best)
    if known[first] <= mine:
        return ""
    return f"{name} ({OF_FAMILY[data_sets()[name].family]} {known[first]:.0%}, {mine:.0%} here)"


def better_optima(measured: Measured, best: Mapping[str, float]) -> list[str]:
    """Return a line for each fit that ended above what is called the best optimum."""
    found = []
    for name, of_data in measured.items():
        for start, ends in of_data.items():
            above = ends.better(best[name])
            if above.any():
                height = ends.height[above].max()
                found.append(f"{name}, {start}: {height:.6f} is above {best[name]:.6f}")
    return found
