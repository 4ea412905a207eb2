"""What EM will do to a program: `em.plan(…)` as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emjax.graph.factor_graph import FactorGraph
from emjax.m_step.maximizer import Maximizer


@dataclass(frozen=True)
class LatentPlan:
    """A latent that is summed out.

    - `name`: its site.
    - `shape`: that of its elements.
    - `num_values`: how many values each element takes.
    """

    name: str
    shape: tuple[int, ...]
    num_values: int


@dataclass(frozen=True)
class ParameterPlan:
    """How a parameter is maximized, and why so.

    - `name`, `shape`: the parameter.
    - `is_prior`: whether it is a `sample` site, estimated by MAP.
    - `method`: "closed form", "least squares", "Newton", "L-BFGS", "optax", "user" or "held".
    - `reason`: why so, in words.
    """

    name: str
    shape: tuple[int, ...]
    is_prior: bool
    method: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What EM will do to a program; prints as a table.

    - `latents`: those that are summed out.
    - `parameters`: how each is maximized, in the order in which that happens.
    - `temperature`: that of the E-step; 1 is soft, 0 is hard.
    """

    latents: tuple[LatentPlan, ...]
    parameters: tuple[ParameterPlan, ...]
    temperature: float

    def method(self, name: str) -> str:
        """Return how a parameter is maximized."""
        return next(p.method for p in self.parameters if p.name == name)

    def __str__(self) -> str:
        names = {1.0: "soft", 0.0: "hard"}
        e_step = names.get(self.temperature, f"temperature {self.temperature:g}")
        lines = [f"E-step ({e_step}): exact sums over"]
        for latent in self.latents:
            elements = _elements(latent.shape)
            lines.append(f"  {latent.name}: {elements} of {latent.num_values} values")
        if not self.latents:
            lines.append("  no latent")
        lines.append("M-step, in this order:")
        width = max((len(p.name) for p in self.parameters), default=0)
        method = max((len(p.method) for p in self.parameters), default=0)
        # where several have one reason, it is said of the first
        first: dict[tuple[str, str], str] = {}
        for p in self.parameters:
            kind = "MAP" if p.is_prior else "   "
            said_of = first.setdefault((p.method, p.reason), p.name)
            reason = p.reason if said_of == p.name else f"as '{said_of}'"
            lines.append(f"  {p.name:<{width}}  {kind}  {p.method:<{method}}  {reason}")
        if not self.parameters:
            lines.append("  no parameter: nothing to maximize")
        return "\n".join(lines)


def _elements(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) if shape else "one"


def plan(graph: FactorGraph, maximizers: Sequence[Maximizer], temperature: float) -> Plan:
    """Return the plan of a factor graph and its maximizers."""
    latents = []
    for name, latent in graph.latents.items():
        latents.append(LatentPlan(name, latent.shape, latent.support.shape[0]))
    parameters = []
    # a prior that a constant masks is none
    priors = {*graph.unused, *(term.site.name for term in graph.terms if term.site.is_prior)}
    for maximizer in maximizers:
        for name, reason in zip(maximizer.names, maximizer.reasons, strict=True):
            parameter = graph.parameters[name]
            shape, is_prior = parameter.shape, parameter.is_prior and name in priors
            parameters.append(ParameterPlan(name, shape, is_prior, maximizer.method, reason))
    return Plan(tuple(latents), tuple(parameters), temperature)
