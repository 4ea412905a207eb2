"""Measure programs of others: `python -m tests.programs_of_others [--only WORD] [--write]`."""

import argparse
import dataclasses
import json
from pathlib import Path

import jax

from tests.programs_of_others.cases import SOURCES
from tests.programs_of_others.measure import Row, measured
from tests.programs_of_others.page import PAGE, page


def main(argv: list[str] | None = None) -> None:
    """Print the rows that are asked for, or write them all to docs/programs.md."""
    parser = argparse.ArgumentParser(prog="python -m tests.programs_of_others")
    parser.add_argument("--only", default="", metavar="WORD", help="sources or names with it")
    parser.add_argument("--write", action="store_true", help="write docs/programs.md")
    parser.add_argument(
        "--kept", type=Path, metavar="FILE", help="rows measured before, and those that are new"
    )
    chosen = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", True)
    kept = _read(chosen.kept)
    rows = []
    for source, cases in SOURCES.items():
        for name, case in cases.items():
            if chosen.only not in f"{source}: {name}":
                continue
            row = kept.get((source, name)) or measured(source, name, case)
            rows.append(row)
            print(f"{name:28} {row.by_oracle - row.log_density:9.1e}", row, flush=True)
            if chosen.kept and (source, name) not in kept:
                with chosen.kept.open("a", encoding="utf-8") as file:
                    print(json.dumps(dataclasses.asdict(row), ensure_ascii=False), file=file)
            jax.clear_caches()
    if chosen.write:
        PAGE.write_text(page(rows), encoding="utf-8")


def _read(kept: Path | None) -> dict[tuple[str, str], Row]:
    if kept is None or not kept.exists():
        return {}
    rows = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    return {(row["source"], row["name"]): Row(**row) for row in rows}


if __name__ == "__main__":
    main()
