"""By what a program is recognized: its parameters and latents, in words that outlive a version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpyro.distributions.constraints import Constraint

from emjax.families.limits import entry_constraint, is_simplex, limits_of
from emjax.graph.factor_graph import FactorGraph


def described(graph: FactorGraph) -> dict[str, Any]:
    """Return the parameters and the latents of a program, in words."""
    parameters, latents = {}, {}
    for name in graph.names:
        parameter = graph.parameters[name]
        parameters[name] = {
            "shape": list(parameter.shape),
            "constraint": _in_words(parameter.constraint),
            "statement": "sample" if parameter.is_prior else "param",
        }
    for name, latent in graph.latents.items():
        latents[name] = {"values": len(latent.support), "plates": list(latent.plates)}
    return {"parameters": parameters, "latents": latents}


def _in_words(constraint: Constraint) -> str:
    """Return what a constraint allows, in words that do not depend on a version of NumPyro."""
    if is_simplex(constraint):
        return "simplex"
    limits = limits_of(constraint)
    if limits is not None:
        return str(limits)
    return type(entry_constraint(constraint)).__name__.strip("_").lower()


def differences(saved: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Return in what a program differs from the one that was fitted; see `described`."""
    of_parameters = _differences("parameter", saved["parameters"], found["parameters"])
    # of a fit whose data were not known
    if "latents" not in saved:
        return of_parameters
    return [*of_parameters, *_differences("latent", saved["latents"], found["latents"])]


def _differences(what: str, saved: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    differences = [f"it has no {what} '{name}'" for name in saved if name not in found]
    differences += [f"its {what} '{name}' is new" for name in found if name not in saved]
    for name in saved:
        for key, value in saved[name].items():
            here = found.get(name, saved[name]).get(key, value)
            if here != value:
                differences.append(f"{what} '{name}' has {key} {here}, not {value}")
    return differences
