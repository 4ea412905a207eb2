"""What EM will do to a program: `em.plan(…)` as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emjax.graph.factor_graph import FactorGraph
from emjax.m_step.maximizer import Maximizer


@dataclass(frozen=True)
class LatentPlan:
    """A latent that is summed out: its elements' shape and how many values each takes."""

    name: str
    shape: tuple[int, ...]
    num_values: int


@dataclass(frozen=True)
class ParameterPlan:
    """How a parameter is maximized, and why so: `method` is "closed form", "least squares",
    "Newton", "L-BFGS", "optax", "user" or "held".
    """

    name: str
    shape: tuple[int, ...]
    is_prior: bool
    method: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """Which latents are summed out, and how each parameter is maximized, in the order in which that
    happens.
    """

    latents: tuple[LatentPlan, ...]
    parameters: tuple[ParameterPlan, ...]
    temperature: float

    def method(self, name: str) -> str:
        """Return how a parameter is maximized."""
        return next(p.method for p in self.parameters if p.name == name)

    def __str__(self) -> str:
        e_step = {1.0: "soft", 0.0: "hard"}.get(
            self.temperature, f"temperature {self.temperature:g}"
        )
        lines = [f"E-step ({e_step}): exact sums over"]
        lines += [
            f"  {latent.name}: {_elements(latent.shape)} of {latent.num_values} values"
            for latent in self.latents
        ] or ["  no latent"]
        lines += ["M-step, in this order:"]
        width = max((len(p.name) for p in self.parameters), default=0)
        method = max((len(p.method) for p in self.parameters), default=0)
        for p in self.parameters:
            kind = "MAP" if p.is_prior else "   "
            lines.append(f"  {p.name:<{width}}  {kind}  {p.method:<{method}}  {p.reason}")
        return "\n".join(
            lines if self.parameters else [*lines, "  no parameter: nothing to maximize"]
        )


def _elements(shape) -> str:
    return "one" if not shape else " × ".join(map(str, shape))


def plan(graph: FactorGraph, maximizers: Sequence[Maximizer], temperature: float) -> Plan:
    """Return the plan of a factor graph and its maximizers."""
    latents = tuple(
        LatentPlan(name, latent.shape, latent.support.shape[0])
        for name, latent in graph.latents.items()
    )
    parameters = tuple(
        ParameterPlan(
            name, graph.parameters[name].shape, graph.parameters[name].is_prior, m.method, m.reason
        )
        for m in maximizers
        for name in m.names
    )
    return Plan(latents, parameters, temperature)
