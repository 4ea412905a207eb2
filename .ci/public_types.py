"""Whether the type of every public name is known: `pyright --verifytypes`, for public names alone.

pyright takes every module without an underscore for public. Here public are the names in
`emjax.__all__`, `emjax.conjugate`, `emjax.distributions`, `emjax.plot`, `emjax.sklearn` and
`emjax.models`, with their members.
emjax has to be installed as users install it (`pip install .`): pyright does not follow an
editable install.
"""

import inspect
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import emjax
import emjax.models
import emjax.plot
import emjax.sklearn

# NumPyro ships no types, so that what a distribution inherits is unknown to everybody
UNTYPED_BASES = {"Type of metaclass unknown", "Type of base class unknown"}


def public_modules() -> Iterator[ModuleType]:
    yield from (emjax, emjax.conjugate, emjax.distributions, emjax.plot, emjax.sklearn)
    for module in pkgutil.iter_modules(emjax.models.__path__, "emjax.models."):
        yield __import__(module.name, fromlist=["*"])


def public_names() -> set[str]:
    """The names of what is public, each with the module that it is defined in."""
    names = set()
    for module in public_modules():
        for name in getattr(module, "__all__", None) or vars(module):
            value = getattr(module, name)
            is_ours = getattr(value, "__module__", "").startswith("emjax")
            if is_ours and (inspect.isclass(value) or inspect.isfunction(value)):
                names.add(f"{value.__module__}.{value.__qualname__}")
    return {name for name in names if not name.rpartition(".")[2].startswith("_")}


def is_public(symbol: str, names: set[str]) -> bool:
    return symbol in names or symbol.rpartition(".")[0] in names


def unknown_types(symbol: dict) -> list[str]:
    """What is unknown of a symbol, in pyright's words."""
    unknown = []
    for diagnostic in symbol["diagnostics"]:
        message, *details = diagnostic["message"].splitlines()
        is_within_a_class = message.endswith("is partially unknown") and not any(
            "nknown" in detail for detail in details
        )  # of ours, whose private attributes are what is unknown
        if message not in UNTYPED_BASES and not is_within_a_class:
            unknown.append(message)
    return unknown


def main() -> int:
    scripts = Path(sys.executable).parent
    checked = subprocess.run(
        [scripts / "pyright", "--verifytypes", "emjax", "--ignoreexternal", "--outputjson"],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"},
    )
    report = json.loads(checked.stdout).get("typeCompleteness", {})
    if not report.get("pyTypedPath"):
        print("pyright does not find emjax: install it as users do, with `pip install .`")
        return 1
    names = public_names()
    symbols = [symbol for symbol in report["symbols"] if is_public(symbol["name"], names)]
    unknown = {symbol["name"]: unknown_types(symbol) for symbol in symbols}
    unknown = {name: messages for name, messages in unknown.items() if messages}
    for name, messages in unknown.items():
        print(name, *messages, sep="\n    ")
    print(f"types of public names: {len(symbols) - len(unknown)} of {len(symbols)} known")
    return 1 if unknown or not symbols else 0


if __name__ == "__main__":
    sys.exit(main())
