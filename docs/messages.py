"""What emjax says when something is wrong, read off its source: for the page of errors, and its
test.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import emjax

SOURCE = Path(emjax.__file__).parent
# what stands for a part of a message that varies
VARIES = "…"
ERRORS = ("ValueError", "TypeError", "MemoryError", "IndexError", "ImportError", "AttributeError")


def words(node: ast.expr) -> str:
    """Return a string as it is printed, with what varies as `VARIES`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(words(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return words(node.left) + words(node.right)
    return VARIES


def strings() -> Iterator[str]:
    """Yield every string in emjax's source that is a message or a part of one."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
                yield words(node)


def raised() -> dict[str, list[str]]:
    """Return the messages of all errors, {room: each once, in the order of the source}."""
    found: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).parts
        room = found.setdefault(parts[0] if len(parts) > 1 else "", [])
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
                continue
            if ast.unparse(node.exc.func) in ERRORS and node.exc.args:
                message = words(node.exc.args[0])
                # what is put together elsewhere says nothing here
                if message.strip(VARIES + " .:;,") and message not in room:
                    room.append(message)
    return found
