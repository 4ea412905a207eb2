"""The page docs/benchmarks.md, from what was measured in this run and nothing else."""

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.benchmarks import limits, screen, verdicts
from experiments.benchmarks.kept import Facts, Results
from experiments.benchmarks.limits import Rates
from experiments.benchmarks.measure import Measurement
from experiments.benchmarks.row import FASTEST, Row, is_peer
from experiments.benchmarks.rows import ROWS, SERIES, described

FIGURE = "benchmarks.svg"
SUMMARY = "benchmarks_summary.svg"

INTRODUCTION = """# How fast is emjax?

Seconds for one step of EM: emjax on a plain NumPyro program, an EM written by hand for that one
model in JAX, and the libraries that one would use instead. This page is written by a program, from
what was measured on one machine, each row in one run:

```bash
pip install ".[benchmarks]"
{command}
```

Everyone gets the same data, the same start and the same number of steps, with priors and floors
switched off; the log-likelihoods of the parameters at the end are compared (last column of the
details). Each implementation runs in a process of its own; the rounds alternate between them, so
that a disturbance of the machine hits all alike. The time of a step is the difference between a
long run and a short one over the difference of their steps: loading, compiling and preparing are
not in it. Reported is the median of all rounds: seven where time allowed, three of libraries, one
of those whose runs take more than ten seconds.

**Machine.** {processor}; {memory} of memory.<br>
**Rates**, the highest that were measured, all cores: {rates}.<br>
**Versions.** {versions}.
"""

COLUMNS = """Hand-written JAX is what an expert would write for the one model: tables of natural
parameters, log Z of the data, its gradient as the E-step, blocks that fit the cache, all of it
compiled (`experiments/benchmarks/by_hand*.py`). f64 and f32 are double and single precision. A goal
is a ratio of times in this run.

The limit is the least time that this machine could take for a step, whoever wrote it: the largest
of the times for its matrix products, for reading its data from memory once if they outgrow the
cache, and for its exponentials and logarithms, each at the rate above, the others hidden behind it.
What a step gathers and scatters, and that one step of a recursion waits for the step before it, is
not in the limit: rows that do little else are far from it. A machine is a quarter faster in one
hour than in another: times compare within a row, which is measured at once, better than with the
limit.
"""

NO_DEVICE = """## On an accelerator

No device was measured: the machine has none. Where there is one, `python -m experiments.benchmarks
--device --write` checks what it computes against this processor, times the larger rows on it, and
writes what it found here, in less than eight minutes.
"""
DEVICE = "<!-- device -->", "<!-- end of device -->"

DETAILS = """
## Details

Time relative to emjax's in the same precision: above 1, emjax is faster. Compiling: what the first
call takes longer than the next. Memory: the peak beyond the data in the form in which the
implementation holds them, compiling included. Δ log-likelihood: the relative difference from
emjax's after the long run; parameters of every implementation are put into one function, in
float64.
"""


def write(path: Path, facts: Facts, results: Results) -> None:
    """Write the page; what it says of a device stays as it was.

    Its second figure is drawn by `python -m experiments.benchmarks.curves`.
    """
    table = [(row, measurements) for row, measurements in results if row.name not in SERIES]
    series = [(row, measurements) for row, measurements in results if row.name in SERIES]
    names = [row.name for row, _ in results]
    stated = facts._asdict() | {"rates": limits.in_words(facts.rates)}
    parts = [INTRODUCTION.format(command=command(names, facts.options), **stated)]
    parts += ["## Results\n", summary(facts, results)]
    parts.append(f"![Times of libraries and hand-written code, emjax's being one]({SUMMARY})\n")
    parts += [overview(table, facts.rates), COLUMNS.strip() + "\n"]
    if (path.parent / FIGURE).exists():
        parts.append(
            f"## Against N, K and D\n\n![Seconds for a step of a full Gaussian mixture]({FIGURE})\n"
        )
    if series:
        parts.append(growth(series))
    parts.append(device_section(path.read_text(encoding="utf-8") if path.exists() else ""))
    parts.append(DETAILS.strip() + "\n")
    parts += [details(row, measurements, facts.rates) for row, measurements in results]
    path.write_text(filled("\n".join(parts)), encoding="utf-8")


def device_section(before: str) -> str:
    """Return what the page said of a device, between its marks; that there was none, if nothing."""
    begin, end = DEVICE
    told = before.partition(begin)[2].partition(end)[0].strip() or NO_DEVICE.strip()
    return f"{begin}\n\n{told}\n\n{end}\n"


def write_device(path: Path, section: str) -> None:
    """Write what was found on a device into the page, in place of what it says of one."""
    begin, end = DEVICE
    page = path.read_text(encoding="utf-8")
    if begin not in page:
        page = page.replace("## Details", f"{begin}\n{end}\n\n## Details", 1)
    before, _, rest = page.partition(begin)
    after = rest.partition(end)[2]
    text = f"{before}{device_section(begin + section + end).rstrip()}{after}"
    path.write_text(filled(text), encoding="utf-8")


def command(names: list[str], options: str) -> str:
    """Return the command line that measures and writes the page, over several lines."""
    only = f" --only {' '.join(names)}" if names != list(ROWS) else ""
    line = f"python -m experiments.benchmarks{only} {options} --write"
    return " \\\n    ".join(textwrap.wrap(line, 94, break_on_hyphens=False))


def filled(page: str) -> str:
    """Return the page with its prose in lines of at most 100 columns.

    Tables, headings, pictures and code stay as they are.
    """
    blocks = page.split("\n\n")
    kept = ("|", "#", "!", "```", "<!--")
    return "\n\n".join(b if b.lstrip().startswith(kept) else filled_block(b) for b in blocks)


def filled_block(block: str) -> str:
    """Return a paragraph or a list; an item, and what follows a <br>, begins on a line of its own.

    The newline at the end of the page stays.
    """
    items = re.split(r"\n(?=- )|(?<=<br>)\n", block.rstrip("\n"))
    lines = [
        textwrap.fill(
            " ".join(item.split()),
            100,
            subsequent_indent="  " if item.startswith("- ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for item in items
    ]
    return "\n".join(lines) + block[len(block.rstrip("\n")) :]


def markdown(columns: list[str], rows: list[list[str]], numeric: int = 0) -> str:
    """Return a table; the last `numeric` columns are to the right."""
    rule = ["---"] * (len(columns) - numeric) + ["---:"] * numeric
    lines = ["| " + " | ".join(cells) + " |" for cells in [columns, rule, *rows]]
    return "\n".join(lines) + "\n"


def overview(results: Results, rates: Mapping[str, Rates]) -> str:
    """Return a line for each row: the data, everyone's time, the goals."""
    columns = ["model", "data", "libraries, s a step", "hand-written JAX", "emjax"]
    return markdown(
        [*columns, "emjax / the limit", "goals"],
        [overview_cells(row, measurements, rates) for row, measurements in results],
    )


def overview_cells(
    row: Row, measurements: list[Measurement], rates: Mapping[str, Rates]
) -> list[str]:
    """Return the cells of one row."""
    names = list(dict.fromkeys(m.implementation for m in measurements))
    peers = filter(is_peer, names)
    columns = ["<br>".join(times(measurements, name) for name in peers)]
    for kind in ("hand-written JAX", "emjax"):
        variants = [times(measurements, name) for name in names if name.startswith(kind)]
        # the column's head says the kind
        shorter = [text.removeprefix(f"{kind} ").removeprefix(f"{kind}, ") for text in variants]
        columns.append("<br>".join(shorter))
    verdicts_of_row = verdicts.verdicts(row, measurements, rates)
    goals = "<br>".join(marked(verdict) for verdict in verdicts_of_row)
    return [
        row.title,
        described(row.sizes),
        *columns,
        beside_limit(row, measurements, rates),
        goals,
    ]


def beside_limit(row: Row, measurements: list[Measurement], rates: Mapping[str, Rates]) -> str:
    """Return how many times the limit a step of emjax takes, and what binds."""
    lines = []
    for m in measurements:
        least = verdicts.bound_of(row, rates, m.precision)
        value = verdicts.times_the_limit(row, m, rates)
        if m.implementation == "emjax" and least and value > 0:
            name = verdicts.SHORT[m.precision]
            lines.append(f"{name} {verdicts.numeral(value)} × ({least.what})")
    return "<br>".join(lines)


def marked(verdict: verdicts.Verdict | verdicts.Limit) -> str:
    """Return a goal and its result, with a sign that is seen before it is read."""
    sentence = verdict.sentence
    return sentence if "not measured" in sentence else f"{'✓' if verdict.met else '✗'} {sentence}"


def summary(facts: Facts, results: Results) -> str:
    """Return the numbers that matter most.

    They are the time beside hand-written code and the fastest library, and how many goals are met.
    """
    by_hand, libraries, goals = [], [], []
    for row, measurements in results:
        for precision in verdicts.SHORT:
            ratio = verdicts.ratio(measurements, "emjax", "hand-written JAX", precision)
            by_hand.append(1 / ratio)
            libraries.append(verdicts.ratio(measurements, "emjax", FASTEST, precision))
        for verdict in verdicts.verdicts(row, measurements, facts.rates):
            if "not measured" not in verdict.sentence:
                goals.append(verdict)
    text = f"**In short.** {sum(v.met for v in goals)} of {len(goals)} goals are met."
    if spread := spread_of(by_hand):
        low, middle, high = spread
        text += (
            f" A step of emjax takes {low} to {high} times as long as the hand-written code for "
            f"the same model, {middle} in the median."
        )
    if spread := spread_of(libraries):
        low, middle, high = spread
        text += (
            f" A step of the fastest library for each row takes {low} to {high} times as long as "
            f"emjax's, {middle} in the median."
        )
    return text + "\n"


def spread_of(ratios: list[float]) -> list[str]:
    """Return the least, the middle and the largest of those that were measured, if any were."""
    found = [ratio for ratio in ratios if ratio > 0]
    return [verdicts.numeral(value) for value in np.quantile(found, (0, 0.5, 1))] if found else []


def times(measurements: list[Measurement], implementation: str) -> str:
    """Return the name and its times: `scikit-learn f64 1.1, f32 0.7`."""
    of = [m for m in measurements if m.implementation == implementation]
    if all(np.isnan(m.seconds) for m in of):
        return f"{implementation} not measured"
    return f"{implementation} " + ", ".join(
        f"{verdicts.SHORT[m.precision]} {verdicts.time(m.seconds)}" for m in of
    )


def growth(series: Results) -> str:
    """Return time and memory of emjax against the number of points, and the exponents."""
    ours = []
    for row, measurements in series:
        m = verdicts.measurement_of(measurements, "emjax", "float32")
        if m is not None and np.isfinite(m.seconds):
            ours.append((row.sizes["num_samples"], m))
    lines = [[f"{n:,}", verdicts.time(m.seconds), f"{m.memory / 2**20:,.0f}"] for n, m in ours]
    text = (
        "## As the points grow\n\nA full Gaussian mixture of 16 components in 8 dimensions, "
        "float32, emjax.\n\n"
    )
    text += markdown(["points", "s a step", "MiB beyond the data, peak"], lines, numeric=3)
    large = [(n, m.seconds) for n, m in ours if n >= 100_000]
    if len(large) > 1:
        slope = verdicts.exponent(*map(list, zip(*large, strict=True)))
        most, m = ours[-1]
        text += (
            f"\nFrom 100,000 points up, time grows as N to the power {slope:.2f} (goal: 0.95 to "
            f"1.05); memory beyond the data at {most:,} points: {m.memory / 2**30:.2f} GiB (goal "
            "for 20,000,000: under 1 GiB).\n"
        )
    return text


def details(row: Row, measurements: list[Measurement], rates: Mapping[str, Rates]) -> str:
    """Return every number of a row, and the notes."""
    text = f"### {row.title}: {described(row.sizes)}\n\n"
    lines = [screen.cells(row, measurements, m, rates) for m in measurements]
    table = markdown(screen.COLUMNS, lines, numeric=len(screen.COLUMNS) - 2)
    text += table.replace("DISAGREES", "**disagrees**")
    notes = screen.notes(row, measurements, rates)
    return text + ("\n" + "\n".join(f"- {note}" for note in notes) + "\n" if notes else "")
