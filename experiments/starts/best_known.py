"""The file of the best optima that are known: `experiments/data/best_known_optima.json`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "data" / "best_known_optima.json"


def best_known() -> dict[str, dict[str, Any]]:
    """Return the file: what is known of each data set's best optimum."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def write(known: Mapping[str, dict[str, Any]]) -> None:
    """Write the file, a line for each thing that is said of a data set."""
    entries = []
    for name, facts in known.items():
        lines = [
            f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}"
            for key, value in facts.items()
        ]
        joined = ",\n".join(lines)
        entries.append(f"{json.dumps(name, ensure_ascii=False)}: {{\n{joined}\n}}")
    text = ",\n".join(entries)
    FILE.write_text(f"{{\n{text}\n}}\n", encoding="utf-8")
