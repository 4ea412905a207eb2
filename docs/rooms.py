"""Draw the rooms of the engine and who imports whom: `python docs/rooms.py [--check]`.

Rooms stand on a staircase, in the order of the table in docs/design.md. From each room a line runs
to the left, and from each a line runs down; where they meet in a number, the room on the right
imports the room above, that many files from that many (pairs of files). An import against the flow
of data would have to stand above the stairs, and is an error.
"""

import argparse
import ast
import re
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENGINE = ROOT / "inference"
PICTURE = ROOT / "docs" / "rooms.svg"
FRONT_DOOR = "."  # em.py, fit.py, plan.py, compare.py: what a user calls
FIRST_BEHIND_THE_FRONT_DOOR = "refits"
FACADES = {"__init__", "conjugate", "distributions"}  # names for users, imported by nobody inside

COLUMN, ROW = 42, 34
BOX_HEIGHT = 24
MARGIN = 20
CHARACTER = 7.2  # the width of a character of 12 pixels in a monospaced font
INK, PAPER, BAND = "#1f2933", "#ffffff", "#f4f6f8"
ROOM, DOOR, LINE, HEAD = "#dbe7f3", "#f6dfb8", "#b8c4d0", "#6b7c8d"
TINTS = {1: PAPER, 5: "#eaf1f8", 10: "#cfe0f0"}  # from so many imports on
LEGEND = (
    "Data flow down the stairs.",
    "A room imports those that stand above its numbers;",
    "a number counts pairs of files.",
)


def floors() -> list[tuple[str, ...]]:
    """The rooms, floor by floor, in the order of the design page; the front door among them."""
    table = []
    for line in (ROOT / "docs" / "design.md").read_text().splitlines():
        rooms = re.findall(r"`([\w/]+)/`", line.split("|")[1]) if line.startswith("| `") else ()
        # there are tables of other things, too
        if rooms:
            table.append(tuple(rooms))
    front = next(n for n, rooms in enumerate(table) if FIRST_BEHIND_THE_FRONT_DOOR in rooms)
    table.insert(front, (FRONT_DOOR,))
    return table


def files_used(path: Path) -> set[Path]:
    """The files of the engine that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    ours = [name.split(".")[1:] for name in names if name and name.startswith("emjax.")]
    candidates = {ENGINE.joinpath(*parts).with_suffix(".py") for parts in ours}
    return {file for file in candidates if file.exists()}


def imports(floor_of: dict[str, int]) -> Counter[tuple[int, int]]:
    """How many pairs of files there are for each (floor that imports, floor that is imported)."""
    count = Counter()
    for path in sorted(ENGINE.rglob("*.py")):
        room = path.parent.relative_to(ENGINE).as_posix()
        if room == FRONT_DOOR and path.stem in FACADES:
            continue
        for used in files_used(path):
            pair = floor_of[room], floor_of[used.parent.relative_to(ENGINE).as_posix()]
            if pair[0] < pair[1]:
                raise SystemExit(f"{path} imports {used}, against the flow of data")
            if pair[0] > pair[1]:
                count[pair] += 1
    return count


def label(rooms: tuple[str, ...]) -> str:
    if rooms == (FRONT_DOOR,):
        return "em · plan · compare"
    return " · ".join(room.rpartition("/")[2] if "/" in room else room for room in rooms)


def text(x: float, y: float, content: str, anchor: str = "start", color: str = INK) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{color}" '
        f'textLength="{CHARACTER * len(content):g}">{content}</text>'
    )


def line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" stroke="{LINE}" stroke-width="1.5"/>'


def picture() -> str:
    """The picture, as the text of an SVG file."""
    table = floors()
    floor_of = {room: floor for floor, rooms in enumerate(table) for room in rooms}
    count = imports(floor_of)
    labels = [label(rooms) for rooms in table]
    left = [MARGIN + COLUMN * floor for floor in range(len(table))]
    middle = [MARGIN + ROW * floor + ROW / 2 for floor in range(len(table))]
    trunk = [x + COLUMN / 2 for x in left]  # where lines to a room run down from it
    width = max(x + CHARACTER * len(name) for x, name in zip(left, labels, strict=True))
    width, height = width + 2 * MARGIN + 8, ROW * len(table) + 2 * MARGIN

    parts = [f'<rect width="{width:g}" height="{height:g}" rx="8" fill="{PAPER}"/>']
    for floor in range(0, len(table), 2):
        y = middle[floor] - ROW / 2
        parts.append(f'<rect x="8" y="{y:g}" width="{width - 16:g}" height="{ROW}" fill="{BAND}"/>')
    for floor, y in enumerate(middle):
        used = [below for above, below in count if above == floor]
        users = [above for above, below in count if below == floor]
        if used:
            parts.append(line(trunk[min(used)], y, left[floor], y))
        if users:
            head = y + BOX_HEIGHT / 2
            parts.append(line(trunk[floor], head + 6, trunk[floor], middle[max(users)]))
            tip = f"M{trunk[floor]:g} {head:g}l-4.5 8h9z"
            parts.append(f'<path d="{tip}" fill="{HEAD}"/>')
    for floor, (x, y, name) in enumerate(zip(left, middle, labels, strict=True)):
        color = DOOR if table[floor] == (FRONT_DOOR,) else ROOM
        parts.append(
            f'<rect x="{x:g}" y="{y - BOX_HEIGHT / 2:g}" width="{CHARACTER * len(name) + 20:g}" '
            f'height="{BOX_HEIGHT}" rx="5" fill="{color}" stroke="{HEAD}"/>'
        )
        parts.append(text(x + 10, y + 4, name))
    for (above, below), number in sorted(count.items()):
        x, y = trunk[below], middle[above]
        tint = TINTS[max(least for least in TINTS if number >= least)]
        parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="10" fill="{tint}" stroke="{HEAD}"/>')
        parts.append(text(x, y + 4, str(number), "middle"))
    for number, sentence in enumerate(LEGEND):
        parts.append(text(width - MARGIN, middle[number] + 4, sentence, "end", HEAD))
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" '
        f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}">',
        "<title>The rooms of emjax, and how many files of one import files of another</title>",
        '<g font-family="monospace" font-size="12">',
        *parts,
        "</g>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="say whether the picture is up to date, and draw none"
    )
    drawn = picture()
    if not parser.parse_args().check:
        PICTURE.write_text(drawn)
        return 0
    if PICTURE.exists() and PICTURE.read_text() == drawn:
        return 0
    print("docs/rooms.svg is not what the imports say: run `python docs/rooms.py`")
    return 1


if __name__ == "__main__":
    sys.exit(main())
