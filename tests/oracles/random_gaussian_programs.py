"""Random NumPyro programs, linear and Gaussian in some latents, small enough for one matrix.

A `GaussianProgram` is a program as text, with its parameters and data. `print(program)` is a script
that runs as it stands:

    program = gaussian_program_from_seed(3)
    print(program)
    gaussian_joint(program.model, program.integrate, program.params, program.data)

Programs of rows (`random_rows.py`) vary in which plates there are (groups, groups within regions,
items that cross the groups, factors of each row, a table of groups by items); in the law of each
latent (Normal, alone or within `to_event`, MultivariateNormal by covariance, precision or root) and
what it is around; in how rows read latents (by index, by covariates, by loadings that a label
chooses); in masks, weights, multiplicities and priors. Programs of time (`random_series.py`) vary
in how the first step is said, in transitions that are constant, given as inputs, or chosen by the
cluster of a sequence, and in what is missing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np

from tests.oracles.random_chains import IMPORTS, SCOPE, random_table
from tests.oracles.random_programs import CONSTRAINTS, EVENT_NDIM, Choices

PRIORS = {
    "real": "dist.Normal(0.5, 2.0)",
    "positive": "dist.Gamma(2.0, 1.5)",
    "simplex": "dist.Dirichlet(jnp.full({size}, 1.5))",
}


@dataclass(frozen=True)
class GaussianProgram:
    """A NumPyro program with Gaussian latents.

    - `source`: the text of `model(data)`.
    - `values`: the parameters, by name.
    - `arrays`: the data.
    - `integrate`: the Gaussian latents.
    - `labels`: the discrete latents.
    - `constraints`: the kind of each parameter: "real", "positive", "simplex", ….
    - `vectors`: the Gaussian latents whose elements have two coordinates.
    - `reads`: for a Gaussian latent and a label, the index that takes elements of the label to
      those of the latent, as text; None where the label is one for all.
    - `plate_of`: of each array and each latent, the plate that its first axis is. Where the data
      hold `counts`, they say how often each of the "groups" is there, with all of its "rows".
    """

    source: str
    values: dict[str, np.ndarray]
    constants: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]
    integrate: tuple[str, ...]
    labels: tuple[str, ...]
    constraints: dict[str, str]
    vectors: frozenset[str]
    reads: dict[tuple[str, str], str | None]
    plate_of: dict[str, str]

    def label_index(self, latent: str, label: str, shape: tuple[int, ...]) -> tuple:
        """Return the index, of each axis of a label, that every element of a latent reads.

        `shape`: of the elements of the label.
        """
        path = self.reads[latent, label]
        if path is None:
            return ()
        scope = {"data": self.arrays}
        return tuple(eval(f"index{path}", scope, {"index": axis}) for axis in np.indices(shape))

    @property
    def params(self) -> dict[str, jax.Array]:
        return {name: jnp.asarray(value) for name, value in self.values.items()}

    @property
    def data(self) -> dict[str, jax.Array]:
        return {name: jnp.asarray(value) for name, value in self.arrays.items()}

    @functools.cached_property
    def model(self) -> Callable:
        constants = {name: jnp.asarray(value) for name, value in self.constants.items()}
        scope = {**SCOPE, "params": self.params, **constants}
        exec(self.source, scope)
        return scope["model"]

    def __str__(self) -> str:
        lines = [IMPORTS]
        lines += [f"{name} = {_text(value)}" for name, value in self.constants.items()]
        for title, arrays in (("params", self.values), ("data", self.arrays)):
            entries = [f'    "{name}": {_text(value)},' for name, value in arrays.items()]
            lines += [f"{title} = {{", *entries, "}"]
        lines += [self.source, f"em = EM(model, integrate={set(self.integrate)})"]
        lines += ["print(em.log_likelihood(params, data))", "print(em.posterior(params, data))"]
        return "\n".join(lines)

    __repr__ = __str__


def _text(value) -> str:
    value = np.asarray(value)
    return f"jnp.array({value.tolist()})" if value.size else f"jnp.zeros({value.shape})"


@dataclass
class Builder:
    """What a program is written with: tables, data, and the parts of its text."""

    choices: Choices
    params: dict[str, np.ndarray] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    declared: list[str] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    data: dict[str, np.ndarray] = field(default_factory=dict)
    plate_of: dict[str, str] = field(default_factory=dict)

    def table(self, kind: str, shape: Sequence[int]) -> str:
        """Return the name of a table: a parameter, one with a prior, or a constant."""
        choices, shape = self.choices, tuple(shape)
        value = table_of(choices.numbers, kind, shape)
        if choices.chance(0.3):
            name = f"table{len(self.constants)}"
            self.constants[name] = value
            return name
        name = f"p{len(self.params)}"
        self.params[name], self.kinds[name] = value, kind
        if kind in PRIORS and choices.chance(0.15):
            prior = PRIORS[kind].format(size=shape[-1] if shape else 1)
            batch = shape[: len(shape) - EVENT_NDIM.get(kind, 0)]
            law = f"{prior}.expand({batch}).to_event({len(batch)})" if batch else prior
            self.declared.append(f'{name} = numpyro.sample("{name}", {law})')
        else:
            constraint = CONSTRAINTS[kind]
            self.declared.append(
                f'{name} = numpyro.param("{name}", params["{name}"], constraint={constraint})'
            )
        return name

    def array(self, name: str, values, plate: str = "") -> str:
        """Return the text that reads an array of the data. `plate`: what its first axis is."""
        self.data[name], self.plate_of[name] = np.asarray(values), plate
        return f'data["{name}"]'

    def normal(self, size: int, mean: str, is_vector: bool, at: str = "") -> str:
        """Return a normal law about `mean`, of a number or of a vector, in one of its forms.

        `at` is what chooses its spread, "[z]" for example, from `size` of them.
        """
        lead = (size,) if at else ()
        if not is_vector:
            return f"dist.Normal({mean}, {self.table('positive', lead)}{at})"
        form = self.choices.pick(["event", "covariance_matrix", "precision_matrix", "scale_tril"])
        if form == "event":
            return f"dist.Normal({mean}, {self.table('positive', (*lead, 2))}{at}).to_event(1)"
        kind = "scale_tril" if form == "scale_tril" else "covariance"
        matrix = f"{self.table(kind, (*lead, 2, 2))}{at}"
        return f"dist.MultivariateNormal({mean}, {form}={matrix})"

    def program(self, body: list[str], integrate, labels, vectors, reads) -> GaussianProgram:
        """Return the program whose text after the declarations is `body`."""
        lines = ["def model(data):", *(f"    {line}" for line in [*self.declared, *body])]
        return GaussianProgram(
            "\n".join(lines),
            self.params,
            self.constants,
            self.data,
            tuple(integrate),
            tuple(labels),
            self.kinds,
            frozenset(vectors),
            reads,
            self.plate_of,
        )


def table_of(numbers: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return a value of this kind, of moderate size and few digits."""
    if kind != "scale_tril":
        return random_table(numbers, kind, shape)
    root = np.tril(0.5 * numbers.normal(size=shape), -1)
    return (root + np.eye(shape[-1]) * numbers.uniform(0.5, 1.5, shape[:-1])[..., None]).round(2)


def within(contexts: str, lines: list[str]) -> list[str]:
    """Return the lines, inside of `with` where there are contexts."""
    if not contexts:
        return lines
    return [f"with {contexts}:", *(f"    {line}" for line in lines)]


def copied(program: GaussianProgram) -> tuple[GaussianProgram, dict[str, np.ndarray]]:
    """Return the program in which a group of multiplicity c is there c times, and which element
    of each plate a copy is of.
    """
    if "counts" not in program.arrays:
        return program, {}
    counts, group = program.arrays["counts"], program.arrays["group"]
    groups = np.repeat(np.arange(len(counts)), counts.astype(int))
    rows = [np.flatnonzero(group == element) for element in groups]
    origin = {"groups": groups, "rows": np.concatenate(rows)}
    arrays = {
        name: value[origin[program.plate_of[name]]] if program.plate_of[name] in origin else value
        for name, value in program.arrays.items()
    }
    arrays["counts"] = np.ones(len(groups))
    arrays["group"] = np.repeat(np.arange(len(groups)), [len(own) for own in rows])
    return replace(program, arrays=arrays), origin
