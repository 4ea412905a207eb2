"""What EM will do to a program: `em.plan(…)` as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emjax.e_step.interactions import integrals_of
from emjax.naming.axes import program_axes
from emjax.run.bound import Bound
from emjax.run.columns import Column, Table, lines_of


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
class GaussianPlan:
    """A latent that is integrated out.

    - `name`: its site.
    - `shape`: that of its elements.
    - `size`: how many coordinates each element has.
    - `how`: "element by element", "in time" or "as one vector" of so many coordinates in all, with
      the names of those that it is integrated out with.
    """

    name: str
    shape: tuple[int, ...]
    size: int
    how: str


@dataclass(frozen=True)
class ParameterPlan:
    """How a parameter is maximized, and why so.

    - `name`, `shape`: the parameter.
    - `axes`: what its axes are called; empty of one that nothing names.
    - `is_prior`: whether it is a `sample` site, estimated by MAP.
    - `method`: "closed form", "least squares", "Newton", "L-BFGS", "optax", "user" or "held".
    - `reason`: why so, in words.
    """

    name: str
    shape: tuple[int, ...]
    is_prior: bool
    method: str
    reason: str
    axes: tuple[str, ...]

    @property
    def with_axes(self) -> str:
        """The parameter and what its axes are called, or how long they are."""
        if not self.shape:
            return self.name
        words = [axis or str(size) for axis, size in zip(self.axes, self.shape, strict=True)]
        return f"{self.name}[{', '.join(words)}]"


@dataclass(frozen=True)
class Plan(Table):
    """What EM will do to a program; prints as a table.

    - `latents`, `integrated`: those that are summed out, and those that are integrated out.
    - `parameters`: how each is maximized, in the order in which that happens.
    - `temperature`: that of the E-step; 1 is soft, 0 is hard.
    """

    latents: tuple[LatentPlan, ...]
    parameters: tuple[ParameterPlan, ...]
    temperature: float
    integrated: tuple[GaussianPlan, ...] = ()

    def method(self, name: str) -> str:
        """Return how a parameter is maximized. Errors: `ValueError` for a name that is none."""
        methods = {parameter.name: parameter.method for parameter in self.parameters}
        if name not in methods:
            known = ", ".join(map(repr, methods)) or "none"
            raise ValueError(f"There is no parameter '{name}' in the program; it has {known}.")
        return methods[name]

    def __str__(self) -> str:
        names = {1.0: "soft", 0.0: "hard"}
        e_step = names.get(self.temperature, f"temperature {self.temperature:g}")
        lines = [f"E-step ({e_step}): exact {self._exact()}"]
        for latent in self.latents:
            elements = _elements(latent.shape)
            lines.append(f"  {latent.name}: {elements} of {latent.num_values} values")
        for latent in self.integrated:
            coordinates = "1 coordinate" if latent.size == 1 else f"{latent.size} coordinates"
            lines.append(
                f"  {latent.name}: {_elements(latent.shape)} of {coordinates}, {latent.how}"
            )
        if not self.latents and not self.integrated:
            lines.append("  no latent")
        lines.append("M-step, in this order:")
        if not self.parameters:
            return "\n".join([*lines, "  no parameter: nothing to maximize"])
        table = lines_of(self._columns(), has_head=False)
        return "\n".join([*lines, *(f"  {line}" for line in table)])

    def _exact(self) -> str:
        """Return what the E-step does, in words."""
        if not self.integrated:
            return "sums over"
        return "sums and integrals over" if self.latents else "integrals over"

    def _columns(self) -> list[Column]:
        """Return a row for each parameter."""
        each = self.parameters
        # where several have one reason, it is said of the first
        first: dict[tuple[str, str], str] = {}
        reasons = []
        for p in each:
            said_of = first.setdefault((p.method, p.reason), p.name)
            reasons.append(p.reason if said_of == p.name else f"as '{said_of}'")
        kinds = ["MAP" if p.is_prior else "ML" for p in each]
        shapes = [" × ".join(map(str, p.shape)) for p in each]
        return [
            Column("parameter", [p.name for p in each], [p.with_axes for p in each], side="l"),
            Column("shape", shapes, is_printed=False),
            Column("estimate", kinds, is_printed="MAP" in kinds),
            Column("method", [p.method for p in each]),
            Column("reason", [p.reason for p in each], reasons, side="l"),
        ]


def _elements(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) if shape else "one"


def plan(bound: Bound) -> Plan:
    """Return the plan of a program for its data."""
    graph, maximizers = bound.compiled.graph, bound.compiled.maximizers
    axes = program_axes(bound).of_parameters
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
            names = tuple(axis.name for axis in axes[name])
            one = ParameterPlan(name, shape, is_prior, maximizer.method, reason, names)
            parameters.append(one)
    temperature = bound.compiler.settings.temperature
    integrated = _integrated(bound) if graph.gaussians else ()
    return Plan(tuple(latents), tuple(parameters), temperature, integrated)


def _integrated(bound: Bound) -> tuple[GaussianPlan, ...]:
    """Return how each Gaussian latent is integrated out."""
    graph = bound.compiled.graph
    how: dict[str, str] = {}
    for integral in integrals_of(graph, bound.data):
        for name in integral.names:
            how[name] = integral.form
            if integral.form == "as one vector":
                how[name] += f" of {integral.size} coordinates"
            others = [f"'{other}'" for other in integral.names if other != name]
            if others:
                how[name] += f", with {', '.join(others)}"
    plans = []
    for name, latent in graph.gaussians.items():
        plans.append(GaussianPlan(name, latent.elements, latent.size, how[name]))
    return tuple(plans)
