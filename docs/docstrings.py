"""Docstrings of emjax, which are Markdown, as the reStructuredText that Sphinx reads them as."""

import re

FENCE = re.compile(r"^```")
CODE = re.compile(r"(`[^`]*`)")
# what means something in reStructuredText and nothing in the Markdown of docstrings
MARKUP = re.compile(r"(\*(?!\*)(?<!\*\*)|\||_(?=\W|$))")


def to_restructured_text(lines: list[str]) -> list[str]:
    """Return a docstring with its code blocks as directives, and with lists set apart."""
    converted: list[str] = []
    in_code = False
    for line in lines:
        if FENCE.match(line.strip()):
            in_code = not in_code
            converted += ["", ".. code-block:: python", ""] if in_code else [""]
        elif in_code:
            converted.append(f"   {line}" if line.strip() else "")
        else:
            converted.append(_escaped(line))
    return converted


def _escaped(line: str) -> str:
    """Return a line whose words say what they say in Markdown."""
    parts = CODE.split(line)
    for number, part in enumerate(parts):
        is_code = part.startswith("`")
        if not is_code:
            indent = len(part) - len(part.lstrip()) if number == 0 else 0
            parts[number] = part[:indent] + MARKUP.sub(r"\\\1", part[indent:])
    return "".join(parts)


def process(app, what, name, obj, options, lines) -> None:
    """Rewrite a docstring in place, as `autodoc-process-docstring` asks for."""
    lines[:] = to_restructured_text(lines)


def is_skipped(app, what, name, obj, skip, options) -> bool | None:
    """Whether a member is left out: fields of named tuples, which their class describes."""
    text = getattr(obj, "__doc__", None) or ""
    return True if text.startswith("Alias for field number") else None
