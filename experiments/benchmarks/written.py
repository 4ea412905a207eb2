"""What `--write` writes, all of it from one set of results: the page, its picture, the README."""

from experiments.benchmarks import page, picture, readme
from experiments.benchmarks.kept import Facts, Results
from experiments.benchmarks.measure import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
README = ROOT / "README.md"


def write(facts: Facts, results: Results) -> None:
    """Write the page and its picture; then the numbers of the README, from the page."""
    picture.draw(PAGE.parent / page.SUMMARY, results)
    page.write(PAGE, facts, results)
    text = readme.rewritten(README.read_text(encoding="utf-8"), PAGE.read_text(encoding="utf-8"))
    README.write_text(text, encoding="utf-8")
    print(f"\n  page: {PAGE}\n  {README}")
