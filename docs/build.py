"""Build the site and check it: `python docs/build.py`. A warning is an error.

All pages are executed, without the network. What was executed before, and has not changed, is kept
in docs/_build; `--anew` executes all of it again.
"""

import argparse
import shutil
import sys
from pathlib import Path

from check import problems_of
from sphinx.cmd.build import build_main

DOCS = Path(__file__).resolve().parent
BUILT = DOCS / "_build"


def main() -> int:
    """Return the exit status: that of Sphinx, or 1 for a page that lacks something."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--anew", action="store_true", help="execute pages again")
    if parser.parse_args().anew:
        shutil.rmtree(BUILT, ignore_errors=True)
    site = BUILT / "html"
    options = ["-q", "-b", "html", "--fail-on-warning", "--keep-going", "-j", "auto"]
    if status := build_main([*options, str(DOCS), str(site)]):
        return status
    problems = problems_of(site)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(list(site.rglob('*.html')))} pages in {site}: {len(problems)} problems")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
