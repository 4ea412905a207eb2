"""Photograph the site, page by page, in headless Chromium: `python docs/look.py [PAGE …]`.

Each page on a desk, in light, and on a phone, in the dark. It fails where an image is broken, a
page scrolls sideways, a script fails, something is fetched from elsewhere, or the search finds
nothing. It needs `pip install playwright` and a Chromium, on the PATH or in `CHROMIUM`.
"""

import argparse
import os
import shutil
import sys
import threading
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
from playwright.sync_api import Page as Tab

BUILT = Path(__file__).resolve().parent / "_build"
SITE, PICTURES = BUILT / "html", BUILT / "screenshots"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# on which it is looked at: (width, height) in pixels, and whether it is dark there
SCREENS = {"desk": ((1280, 900), "light"), "phone": ((390, 844), "dark")}
BROKEN = "() => [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"
SIDEWAYS = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
# words, and a page that the search has to find by them
SEARCHES = {"Weibull": "howto/own_family", "Parquet": "large_data", "GaussianHMM": "hmmlearn"}


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and says nothing about it."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@dataclass
class Looked:
    """What was wrong on one page, on one screen."""

    problems: list[str] = field(default_factory=list)

    def watch(self, tab: Tab, home: str) -> None:
        """Note what fails while a page is loaded."""
        tab.on("pageerror", lambda error: self.problems.append(f"a script failed: {error}"))
        tab.on("request", lambda request: self._requested(request.url, home))
        tab.on("requestfailed", lambda request: self.problems.append(f"no {request.url}"))

    def _requested(self, address: str, home: str) -> None:
        if not address.startswith((home, "data:", "blob:")):
            self.problems.append(f"fetches {address}")

    def look(self, tab: Tab) -> None:
        """Note what is wrong with a page as it stands."""
        # images that are not in sight are loaded late
        tab.evaluate("() => document.images.length && scrollTo(0, document.body.scrollHeight)")
        tab.wait_for_load_state("networkidle")
        self.problems += [f"broken image {source}" for source in tab.evaluate(BROKEN)]
        if (pixels := tab.evaluate(SIDEWAYS)) > 1:
            self.problems.append(f"scrolls sideways by {pixels} pixels")


def photographed(browser: Browser, home: str, page: str, screen: str) -> list[str]:
    """Return what is wrong with a page on a screen, of which a picture is kept."""
    (width, height), scheme = SCREENS[screen]
    tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    looked = Looked()
    looked.watch(tab, home)
    tab.goto(f"{home}/{page}")
    looked.look(tab)
    picture = PICTURES / screen / f"{page.replace('/', '.').removesuffix('.html')}.png"
    tab.screenshot(path=picture, full_page=True)
    tab.close()
    return [f"{page} ({screen}): {problem}" for problem in looked.problems]


def not_found(browser: Browser, home: str, words: str, page: str) -> list[str]:
    """Return a sentence where the search does not lead from words to a page."""
    tab = browser.new_page()
    tab.goto(f"{home}/search.html?q={words}")
    tab.wait_for_selector("#search-results p.search-summary", timeout=20_000)
    tab.wait_for_timeout(1000)
    results = tab.locator("#search-results li a").evaluate_all("all => all.map(a => a.href)")
    tab.close()
    is_found = any(page in result for result in results)
    return [] if is_found else [f"the search for '{words}' does not find {page}"]


def main() -> int:
    """Return the exit status: 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", help="such as howto/errors.html; all, if none")
    pages = parser.parse_args().pages
    every = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
    chosen = pages or [page for page in every if not page.startswith("_")]
    for screen in SCREENS:
        (PICTURES / screen).mkdir(parents=True, exist_ok=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = f"http://127.0.0.1:{server.server_port}"
    problems = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for page in chosen:
            for screen in SCREENS:
                problems += photographed(browser, home, page, screen)
        for words, page in SEARCHES.items():
            problems += not_found(browser, home, words, page) if not pages else []
        browser.close()
    print("\n".join(problems) or f"nothing is wrong with {len(chosen)} pages")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
