"""The numbers of the README, read from the page of benchmarks: what one claims the other shows.

A row of its table "How it compares" that begins with the name of a library ends with the range of
the times of its steps, emjax's being one, over all rows and precisions. Of several variants of a
library ("hmmlearn, scaling", "hmmlearn, log"), the faster one counts in each row.
"""

import re

from experiments.benchmarks.contestant import DIFFERENT
from experiments.benchmarks.page import filled_block

HAND_WRITTEN = re.compile(
    r"takes ([\d.,]+) to ([\d.,]+) times as long(?: as the hand-written code for the same model)?, "
    r"([\d.,]+) in the median"
)
RELATIVE = "its time / emjax's"


def relative_times(page: str) -> dict[str, list[str]]:
    """Return, of each library, its times relative to emjax's as the page prints them."""
    found: dict[str, list[str]] = {}
    for section in page.partition("\n## Details")[2].split("\n### ")[1:]:
        for name, times in of_section(section).items():
            found.setdefault(name, []).extend(times)
    return found


def of_section(section: str) -> dict[str, list[str]]:
    """Return the same of one row: the least of a library's variants in each precision."""
    lines = [line for line in section.splitlines() if line.startswith("|")]
    columns, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    fastest: dict[tuple[str, str], str] = {}
    for cells in rows[1:]:  # after the rule
        row = dict(zip(columns, cells, strict=True))
        name, time = row["implementation"], row[RELATIVE]
        key = name.partition(",")[0], row["precision"]
        if name in DIFFERENT or not re.fullmatch(r"[\d.,]+", time):
            continue
        fastest[key] = min(fastest.get(key, time), time, key=number)
    found: dict[str, list[str]] = {}
    for (library, _), time in fastest.items():
        found.setdefault(library, []).append(time)
    return found


def number(text: str) -> float:
    """Return the number that a numeral of the page stands for."""
    return float(text.replace(",", ""))


def span(times: list[str]) -> str:
    """Return the range of times in words."""
    low, high = min(times, key=number), max(times, key=number)
    return low if low == high else f"{low} – {high}"


def rewritten(readme: str, page: str) -> str:
    """Return the README with the numbers of the page; what the page does not have stays."""
    times = relative_times(page)
    lines = readme.split("\n")
    for position, line in enumerate(lines):
        cells = line.strip("|").split("|")
        library = cells[0].strip()
        if line.startswith("| ") and library in times and len(cells) == 6:
            lines[position] = f"|{'|'.join(cells[:-1])}| {span(times[library])} |"
    blocks = "\n".join(lines).split("\n\n")
    claim = HAND_WRITTEN.search(" ".join(page.split()))
    for position, block in enumerate(blocks):
        words = " ".join(block.split())
        if claim and not block.startswith(("|", "#", "`")) and HAND_WRITTEN.search(words):
            low, high, middle = claim.groups()
            sentence = f"takes {low} to {high} times as long, {middle} in the median"
            blocks[position] = filled_block(HAND_WRITTEN.sub(sentence, words))
    return "\n\n".join(blocks)
