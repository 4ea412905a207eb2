"""What a run depends on, in words: if all of them are the same, so are its bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import jax

from emjax.program.fingerprint import fingerprints
from emjax.run.archive import versions_of
from emjax.run.compiler import Compiler

PACKAGES = ("emjax", "jax", "jaxlib", "numpyro")
# what shows a run, and does not change it
SHOWN = ("progress_bar",)


def run_identity(
    compiler: Compiler, rng_key: Any, given: Mapping[str, Any], data: Mapping[str, Any]
) -> dict[str, dict[str, str]]:
    """Return {what a run depends on: {name: a word that says what it is}}.

    `given`: the values of parameters that the user gives; `data`: the arguments, by name.
    """
    settings = {
        field.name: getattr(compiler.settings, field.name) for field in fields(compiler.settings)
    }
    for name in SHOWN:
        del settings[name]
    return {
        "the program": fingerprints({"": compiler.model}),
        "the data": fingerprints(data),
        "the setting": fingerprints(settings),
        "the key": fingerprints({"": rng_key}),
        "init_params": fingerprints(given),
        "the version of": _versions(),
    }


def _versions() -> dict[str, str]:
    config: Any = jax.config
    words = {
        "precision": "double" if config.jax_enable_x64 else "single",
        "precision of products": str(config.jax_default_matmul_precision),
        "platform": jax.default_backend(),
        "number of devices": str(jax.device_count()),
    }
    return {**words, **versions_of(PACKAGES)}
