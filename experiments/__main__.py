"""Run the experiments: `python -m experiments [NAME ...] [--quick] [--output DIR] [--list]`."""

import argparse
import ast
import importlib
import time
from pathlib import Path

from experiments import quick_compilation

EXPERIMENTS = (
    "coins", "annotators", "restarts", "segmentation", "gaussian_mixture", "acceleration", "topics",
    "motif", "hidden_markov", "semi_supervised", "model_choice", "class_number", "grades", "starts",
    "marginalized", "factors", "river", "schools", "linkage",
    "online",
)  # fmt: skip


def question(name: str) -> str:
    """Return what the experiment asks: the first sentence of its docstring.

    It is read without importing it, which would take seconds. A large experiment is a folder.
    """
    folder = Path(__file__).parent / name
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return " ".join(docstring.split("\n\n", 1)[0].split())


def listing() -> str:
    """Return the experiments and their questions, one a line."""
    return "\n".join(f"  {name:<17} {question(name)}" for name in EXPERIMENTS)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments", description="Run all experiments, or those named."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one of: {', '.join(EXPERIMENTS)}"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="fewer starts and smaller data: all of it in a few minutes",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("figures"),
        metavar="DIR",
        help="where figures go (default: figures)",
    )
    parser.add_argument("--list", action="store_true", help="list the experiments and stop")
    chosen = parser.parse_args(argv)
    if unknown := set(chosen.names) - set(EXPERIMENTS):
        parser.error(
            f"no experiment named {', '.join(sorted(unknown))}; there are: {', '.join(EXPERIMENTS)}"
        )
    return chosen


def main(argv: list[str] | None = None) -> None:
    """Run what the command line asks for."""
    chosen = arguments(argv)
    print(listing())
    if chosen.list:
        return
    if chosen.quick:
        quick_compilation.ask_for_it()
    import jax

    # the comparisons with hand-derived updates are to 1e-10
    jax.config.update("jax_enable_x64", True)
    if chosen.quick:
        importlib.import_module("emjax")
        quick_compilation.leave_imports_alone()
    for name in chosen.names or EXPERIMENTS:
        run(name, chosen.output, chosen.quick)


def run(name: str, output: Path, quick: bool) -> None:
    """Run one experiment under a banner, and say how long it took."""
    print(f"\n{'=' * 100}\n{name}: {question(name)}\n{'=' * 100}")
    start = time.perf_counter()
    importlib.import_module(f"experiments.{name}").run(output / name, quick)
    print(f"\n  {name} took {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
