"""What is wrong with the built site: `python docs/check.py [SITE]`.

A link to a page or a heading that is not there, an image that is missing or empty, a cell that
raised though it was not meant to, something that would have to be fetched to read a page.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

# what an element of HTML loads, and from which attribute
LOADED = {"img": "src", "script": "src", "iframe": "src", "source": "src", "object": "data"}
RAISES = "tag_raises-exception"


@dataclass
class Page(HTMLParser):
    """What a page links to and loads, its anchors, and cells that raised.

    - `links`, `loaded`: addresses, as they are written.
    - `anchors`: the ids of its elements.
    - `num_errors`: how many cells raised that were not meant to.
    """

    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    num_errors: int = 0
    is_meant: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of an element."""
        found = {name: value or "" for name, value in attrs}
        classes = found.get("class", "").split()
        if "cell" in classes:
            self.is_meant = RAISES in classes
        if "traceback" in classes and not self.is_meant:
            self.num_errors += 1
        if identity := found.get("id") or found.get("name"):
            self.anchors.add(identity)
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in LOADED and found.get(LOADED[tag]):
            self.loaded.append(found[LOADED[tag]])
        if tag == "link" and found.get("rel") in ("stylesheet", "icon", "preload"):
            self.loaded.append(found["href"])


@cache
def read(path: Path) -> Page:
    """Return what is in a page."""
    page = Page()
    page.feed(path.read_text())
    return page


def problems_of(site: Path) -> list[str]:
    """Return what is wrong with a site, a sentence for each; empty if nothing is."""
    problems = []
    for path in sorted(site.rglob("*.html")):
        if "_static" not in path.parts:
            where = path.relative_to(site)
            problems += [f"{where}: {problem}" for problem in _problems(path)]
    return problems


def _problems(path: Path) -> Iterator[str]:
    page = read(path)
    if page.num_errors:
        yield f"{page.num_errors} cells raised"
    for address in page.loaded:
        if urlparse(address).scheme in ("http", "https") or address.startswith("//"):
            yield f"fetches {address}"
        elif not address.startswith("data:"):
            file = _target(path, address)
            if not file.is_file() or not file.stat().st_size:
                yield f"{address} is not there, or empty"
    for address in page.links:
        if not urlparse(address).scheme and (problem := _link_problem(path, address)):
            yield problem


def _link_problem(path: Path, address: str) -> str:
    target = _target(path, address)
    if not target.exists():
        return f"the link {address} leads nowhere"
    anchor = unquote(urldefrag(address).fragment)
    if anchor and target.suffix == ".html" and anchor not in read(target).anchors:
        return f"the link {address} leads to no heading"
    return ""


def _target(path: Path, address: str) -> Path:
    """Return the file that an address means on a page."""
    relative = unquote(urlparse(address).path)
    return (path.parent / relative).resolve() if relative else path


if __name__ == "__main__":
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "_build" / "html"
    found = problems_of(root)
    print("\n".join(found) or "nothing is wrong")
    sys.exit(bool(found))
