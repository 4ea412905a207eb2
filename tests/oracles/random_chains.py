"""Random NumPyro programs with a `scan` over discrete latents, small enough for the joint table.

A `Chain` is a program as text, with its parameters and data. `print(chain)` is a script that runs
as it stands:

    chain = chain_from_seed(3)
    print(chain)
    joint_table(chain.model, chain.params, chain.data)

Programs vary in their length and number of states; in how the first step is said (row 0 of the
table, a `where` inside the step, a latent before the scan); in how sequences lie side by side (one
alone, a plate, a batch dimension without a plate); in what a transition reads (the other chain,
inputs, the previous observation, a state two steps back, a cluster of the sequence); in the
direction; in masks, multiplicities and emissions; in what reads the chain after the scan.
`repeated` rewrites the multiplicities of sequences as repeated sequences.
"""

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints
from numpyro.distributions.util import clamp_probs
from numpyro.ops.indexing import Vindex

from tests.oracles.random_programs import CONSTRAINTS, Choices
from tests.oracles.rewritings import rewritten

SCOPE = {
    "jax": jax,
    "jnp": jnp,
    "numpyro": numpyro,
    "dist": dist,
    "constraints": constraints,
    "scan": scan,
    "Vindex": Vindex,
    "clamp_probs": clamp_probs,
    "mask": handlers.mask,
    "scale": handlers.scale,
}

IMPORTS = """\
import jax
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints
from numpyro.distributions.util import clamp_probs
from numpyro.handlers import mask, scale
from numpyro.ops.indexing import Vindex
from emjax import EM
nan = float("nan")
"""

# where one mode differs, that mode is wrong; where all do, what they share: layout, or before it
REPORT = """\
for chains in ("sequential", "checkpointed", "parallel"):
    em = EM(model, chains=chains)
    print(chains, em.log_likelihood(params, data))
    print(em.posterior(params, data))"""

# Record
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chain:
    """A NumPyro program with a scan.

    - `values`, `constants`: of the parameters, and of tables that the program knows.
    - `arrays`: the data; a dictionary of them is the program's only argument.
    - `sequence_axis`: for each array of data, and each latent, the axis of the sequences; None
      where there is none.
    - `chained`: the latents of the scan that later steps read.
    - `num_assignments`: of all latents together.
    """

    source: str
    values: dict[str, np.ndarray]
    constants: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]
    sequence_axis: dict[str, int | None]
    chained: tuple[str, ...]
    num_assignments: int
    constraint: dict[str, str] = field(default_factory=dict)

    @property
    def params(self) -> dict[str, jax.Array]:
        return {name: jnp.asarray(value) for name, value in self.values.items()}

    @property
    def data(self) -> dict[str, jax.Array]:
        return {name: jnp.asarray(value) for name, value in self.arrays.items()}

    @functools.cached_property
    def model(self) -> Callable:
        scope = {
            **SCOPE,
            "params": self.params,
            **{k: jnp.asarray(v) for k, v in self.constants.items()},
        }
        exec(self.source, scope)
        return scope["model"]

    def __str__(self) -> str:
        lines = [IMPORTS]
        lines += [f"{name} = {_array_text(value)}" for name, value in self.constants.items()]
        for title, arrays in (("params", self.values), ("data", self.arrays)):
            lines += (
                [f"{title} = {{"]
                + [f'    "{k}": {_array_text(v)},' for k, v in arrays.items()]
                + ["}"]
            )
        return "\n".join([*lines, "", self.source, "", REPORT])

    __repr__ = __str__


def _array_text(value) -> str:
    value = np.asarray(value)
    kind = "" if value.size else f", {value.dtype}"
    return f"jnp.array({value.tolist()}{kind})"


def repeated(chain: Chain) -> tuple[Chain, np.ndarray | None]:
    """Return the chain in which a sequence of multiplicity c is written c times, and which sequence
    each one copies.
    """
    if "counts" not in chain.arrays:
        return chain, None
    copies = np.repeat(
        np.arange(chain.arrays["counts"].size), chain.arrays["counts"].ravel().astype(int)
    )
    arrays = {}
    for name, value in chain.arrays.items():
        axis = chain.sequence_axis[name]
        arrays[name] = value if axis is None else np.take(value, copies, axis)
    arrays["counts"] = np.ones_like(arrays["counts"])
    return replace(chain, arrays=arrays), copies


# Random chains
# --------------------------------------------------------------------------------------------------


def chain_from_seed(seed: int, max_assignments: int = 20_000) -> Chain:
    """Return a random chain whose joint table, multiplicities written out, has at most so many
    assignments.
    """
    numbers = np.random.default_rng(seed)
    choices = Choices(lambda low, high: int(numbers.integers(low, high + 1)), numbers)
    enough = choices.pick([1, 32, 256, 1024])  # most small programs are too small to be interesting
    while True:
        builder = _Builder(choices)
        if enough <= builder.num_assignments <= max_assignments:
            return builder.chain()


@dataclass(frozen=True)
class _Index:
    """Something to look a table up by: its source, its number of values, and whether it has the
    sequences' shape.
    """

    source: str
    size: int
    is_latent: bool = True


class _Builder:
    def __init__(self, choices: Choices):
        self.choices = choices
        self.params, self.constants, self.constraint = {}, {}, {}
        self.kinds: dict[str, tuple] = {}
        self.data: dict[str, np.ndarray] = {}
        self.axis: dict[str, int | None] = {}
        self.elements: list[
            tuple[int, int]
        ] = []  # of each latent: its number of values, and of elements
        self.xs: dict[str, str] = {}
        self.before, self.step, self.after = [], [], []
        self.carry: dict[
            str, tuple[str, str]
        ] = {}  # name in the step: start, what the next step gets
        self._choose_layout()
        self._choose_copies()
        self._add_cluster()
        self._add_latents()
        self._add_emissions()
        self._add_what_reads_the_scan()

    @property
    def num_assignments(self) -> int:
        return math.prod(size**elements for size, elements in self.elements)

    def chain(self) -> Chain:
        names = self.params
        declared = [
            f'    {p} = numpyro.param("{p}", params["{p}"], '
            f"constraint={CONSTRAINTS[self.constraint[p]]})"
            for p in names
        ]
        return Chain(
            source="\n".join(["def model(data):", *declared, *self._body()]),
            values=self.params,
            constants=self.constants,
            arrays=self.data,
            sequence_axis=self.axis,
            chained=tuple(self.chained),
            num_assignments=self.num_assignments,
            constraint=self.constraint,
        )

    def _body(self) -> list[str]:
        lines = [f'n = data["x0"].shape[{self.axis["x0"]}]'] if self.num_sequences else []
        if self.reuses_plate:
            lines.append(f"sequences = {self._plate_call()}")
        lines += self.before
        names = list(self.carry)
        one = len(names) == 1
        joined = names[0] if one else f"({', '.join(names)})"
        starts, nexts = ([pair[i] for pair in self.carry.values()] for i in (0, 1))
        lines += ["def step(carry, inputs):"]
        lines += [f"    {joined} = carry"]
        lines += [f"    {line}" for line in self.step]
        following = nexts[0] if one else f"({', '.join(nexts)})"
        lines += [f"    return {following}, {self.stacked}", ""]
        start = starts[0] if one else f"({', '.join(starts)})"
        xs = ", ".join(f'"{name}": {source}' for name, source in self.xs.items())
        call = f"scan(step, {start}, {{{xs}}}" if xs else f"scan(step, {start}, None"
        call += f", length={self.length}" if not xs or self.choices.chance(0.3) else ""
        call += ", reverse=True)" if self.is_reversed else ")"
        if self.is_masked_outside:
            lines += ['with mask(mask=data["kept"]):', f"    last, ys = {call}"]
        else:
            lines += [f"last, ys = {call}"]
        if self.after:
            if not one:
                lines += [f"{', '.join(names)} = last"]
            else:
                lines += [f"{joined} = last"]
        return [f"    {line}" if line else "" for line in lines + self.after]

    # Layout

    def _choose_layout(self):
        choices = self.choices
        self.length = choices.pick([3, 4, 2, 5, 1, 6])
        self.layout = choices.pick(["alone", "plate", "plate", "bare"])
        self.num_sequences = 0 if self.layout == "alone" else choices.pick([2, 3, 1])
        self.has_features = self.layout != "bare" and choices.chance(0.2)
        self.has_unit = self.has_features and self.layout == "plate"
        self.reuses_plate = self.layout == "plate" and choices.chance(0.3)
        self.is_reversed = choices.chance(0.2)
        self.is_masked_outside = self.num_sequences > 0 and choices.chance(0.08)
        self.clock = choices.pick(["xs", "carry"])
        self.reads_by_time = choices.chance(0.15)  # data[name][t] in place of xs
        self.stacked = "None"
        self.batch = (
            ()
            if not self.num_sequences
            else (self.num_sequences, 1)
            if self.has_unit
            else (self.num_sequences,)
        )
        self.batch_source = (
            "()" if not self.num_sequences else "(n, 1)" if self.has_unit else "(n,)"
        )
        if self.is_masked_outside:
            self._array("kept", choices.numbers.random(self.batch) < 0.6, 0)

    def _choose_copies(self):
        choices, self.copies, self.copy_total = self.choices, "", max(self.num_sequences, 1)
        self.masks = choices.pick(["none", "none", "lengths", "lengths", "anywhere", "emissions"])
        if self.layout == "plate" and choices.chance(0.15):
            counts = choices.numbers.integers(1, 4, size=self.batch).astype(float)
            self.copies, self.copy_total = 'scale(scale=data["counts"])', int(counts.sum())
            self._array("counts", counts, 0)
        self.asks_lengths = self.masks == "lengths" and choices.chance(0.4)
        if self.masks == "lengths":
            lengths = choices.numbers.integers(
                0 if choices.chance(0.1) else 1, self.length + 1, size=self.batch
            )
            seen = np.arange(self.length).reshape((-1,) + (1,) * len(self.batch)) < lengths
            self._array(*(("lengths", lengths, 0) if self.asks_lengths else ("seen", seen, 1)))
        if self.masks == "anywhere":
            self._array("seen", choices.numbers.random((self.length, *self.batch)) < 0.6, 1)

    def _time(self) -> str:
        """The source of the step's number, and the declarations that it needs."""
        if self.clock == "carry":
            self.carry.setdefault("t", ("0", "t + 1"))
            return "t"
        self.xs["t"] = f"jnp.arange({self.length})"
        return 'inputs["t"]'

    def _first_time(self) -> int:
        return self.length - 1 if self.is_reversed and self.clock == "xs" else 0

    def _input(self, name: str) -> str:
        """The source of this step's entry of an array of data."""
        if self.reads_by_time:
            return f'data["{name}"][{self._time()}]'
        self.xs[name] = f'data["{name}"]'
        return f'inputs["{name}"]'

    def _plate_call(self) -> str:
        return f'numpyro.plate("sequences", n, dim={-2 if self.has_unit else -1})'

    def _contexts(self, masks: bool) -> str:
        """The source of the contexts of a site of the sequences."""
        contexts = []
        if self.layout == "plate":
            contexts.append("sequences" if self.reuses_plate else self._plate_call())
        if self.copies:
            contexts.append(self.copies)
        if masks and self.masks in ("lengths", "anywhere"):
            seen = f'{self._time()} < data["lengths"]' if self.asks_lengths else self._input("seen")
            contexts.insert(self.choices.integer(0, len(contexts)), f"mask(mask={seen})")
        return ", ".join(contexts)

    @staticmethod
    def _within(contexts: str, lines: list[str]) -> list[str]:
        return [f"with {contexts}:", *(f"    {line}" for line in lines)] if contexts else lines

    # Latents

    def _latent(self, name: str, size: int, num_steps: int = 1, is_global: bool = False):
        self.elements.append((size, num_steps * (1 if is_global else self.copy_total)))
        self.axis[name] = (
            None
            if is_global or not self.num_sequences
            else 1
            if num_steps > 1 or name in self.stepwise
            else 0
        )

    def _add_cluster(self):
        self.stepwise: set[str] = set()
        self.cluster = None
        if not self.choices.chance(0.25):
            return
        is_global = self.num_sequences == 0 or self.choices.chance(0.3)
        size = self.choices.pick([2, 3])
        law = f"dist.Categorical({self.table('simplex', (size,))})"
        if self.layout == "bare" and not is_global:
            law += f".expand({self.batch_source})"
        line = f'cluster = numpyro.sample("cluster", {law})'
        self.before += [line] if is_global else self._within(self._contexts(False), [line])
        self._latent("cluster", size, is_global=is_global)
        self.cluster = _Index("cluster", size, not is_global)

    def _add_latents(self):
        choices = self.choices
        self.chained = ["z0"] + (["z1"] if choices.chance(0.35) else [])
        self.stepwise = {"z0", "z1", "local"}
        self.sizes = {
            name: choices.pick([2, 2, 3, 4, 1] if name == "z0" else [2, 2, 3, 1])
            for name in self.chained
        }
        self.start = choices.pick(["row", "inside", "before"])
        self.is_second_order = choices.chance(0.12)
        self.carries_row = self.start == "row" and choices.chance(0.15)
        self.reads_observation = not self.has_features and choices.chance(0.2)
        self.previous_family = choices.pick(["real", "symbol"])
        self.current: list[_Index] = []
        lines = []
        for name in self.chained:
            lines.append(self._chained_latent(name))
        if choices.chance(0.2):
            lines.append(self._local_latent())
        self.latent_lines = lines

    def _chained_latent(self, name: str) -> str:
        choices, size = self.choices, self.sizes[name]
        zeros = f"jnp.zeros({self.batch_source}, int)" if self.num_sequences else "0"
        if self.start == "before":
            law = f"dist.Categorical({self.table('simplex', (size,))})"
            if self.layout == "bare":
                law += f".expand({self.batch_source})"
            line = f'{name}_first = numpyro.sample("{name}_first", {law})'
            self.before += self._within(self._contexts(False), [line])
            self._latent(f"{name}_first", size)
            self.carry[f"{name}_prev"] = (f"{name}_first", name)
        else:
            self.carry[f"{name}_prev"] = (zeros, name)
        parents = [_Index(f"{name}_prev", size)]
        if name == "z0" and self.is_second_order:
            self.carry["z0_prev2"] = (zeros, "z0_prev")
            parents.append(_Index("z0_prev2", size))
        if name == "z1" and choices.chance(0.35):
            parents.append(_Index("z0_prev", self.sizes["z0"]))
        if name == "z0" and "z1" in self.sizes and choices.chance(0.25):
            parents.append(_Index("z1_prev", self.sizes["z1"]))
        parents += choices.pick([[], self.current]) if self.current else []
        if self.cluster and choices.chance(0.8):
            parents.insert(choices.integer(0, len(parents)), self.cluster)
        if choices.chance(0.3):
            parents.insert(choices.integer(0, len(parents)), self._known_index())
        if self.reads_observation and self.previous_family == "symbol" and choices.chance(0.3):
            parents.append(_Index("x0_prev", 3))
        family = "Categorical"
        if size > 1 and choices.chance(0.2):
            family = "Bernoulli" if size == 2 else "Binomial"
        kind, event = ("simplex", (size,)) if family == "Categorical" else ("probability", ())
        if choices.chance(0.25):
            kind = "real"
        if self.carries_row and name == "z0" and family == "Categorical":
            return self._chain_by_rows(kind, size)
        argument = self.argument(kind, event, parents, is_transition=True)
        if self.start == "inside":
            first = f"{self._time()} == {self._first_time()}"
            argument = f"jnp.where({first}, {self.table(kind, event)}, {argument})"
        trials = f"{size - 1}, " if family == "Binomial" else ""
        law = f"dist.{family}({trials}{'logits' if kind == 'real' else 'probs'}={argument})"
        self._latent(name, size, self.length)
        self.current.append(_Index(name, size))
        return f'{name} = numpyro.sample("{name}", {law})'

    def _chain_by_rows(self, kind: str, size: int) -> str:
        """The chain whose carry is the next step's row of the table itself."""
        start = f"jnp.broadcast_to({self.table(kind, (size,))}, {self.batch_source} + ({size},))"
        self.carry["row"] = (start, f"{self.table(kind, (size, size))}[z0]")
        self._latent("z0", size, self.length)
        self.current.append(_Index("z0", size))
        return (
            f'z0 = numpyro.sample("z0", '
            f"dist.Categorical({'logits' if kind == 'real' else 'probs'}=row))"
        )

    def _local_latent(self) -> str:
        choices, size = self.choices, self.choices.pick([2, 3])
        if choices.chance(0.25):
            law, position = f"dist.DiscreteUniform(1, {size})", "local - 1"
            if self.layout == "bare":
                law += f".expand({self.batch_source})"
        else:
            law = f"dist.Categorical({self.argument('simplex', (size,), self.current[:1])})"
            position = "local"
        self._latent("local", size, self.length)
        self.current.append(_Index(position, size))
        return f'local = numpyro.sample("local", {law})'

    def _known_index(self) -> _Index:
        """What picks a row of a table without being latent: the time, an input of this step, or one
        for each sequence.
        """
        if self.choices.chance(0.2):
            return _Index(self._time(), self.length, False)
        if "u" not in self.data:
            is_shared = self.choices.chance(0.4)
            shape = (self.length,) if is_shared else (self.length, *self.batch)
            self._array("u", self.choices.numbers.integers(2, size=shape), None if is_shared else 1)
        return _Index(self._input("u"), 2, False)

    def _covariate(self) -> str:
        if "v" not in self.data:
            self._array(
                "v", self.choices.numbers.normal(size=(self.length, *self.batch)).round(2), 1
            )
        return self._input("v")

    # Emissions

    def _add_emissions(self):
        choices = self.choices
        lines = [self._emission(i) for i in range(choices.pick([1, 1, 2]))]
        emitted = list(itertools.chain.from_iterable(lines))
        together = choices.chance(0.8)
        masked = self._contexts(True)
        for block in [self.latent_lines + emitted] if together else [self.latent_lines, *lines]:
            self.step += self._within(masked, block)

    def _emission(self, number: int) -> list[str]:
        choices, name = self.choices, f"x{number}"
        parents = [z for z in self.current if choices.chance(0.75)] or self.current[:1]
        parents = parents[:2]
        if choices.chance(0.2):
            size = self.sizes["z0"]
            jump = _Index("(z0 == z0_prev).astype(int)", 2)
            parents.append(
                choices.pick(
                    [
                        _Index("z0_prev", size),
                        jump,
                        _Index(f"z0 - z0_prev + {size - 1}", 2 * size - 1),
                    ]
                )
            )
        if self.cluster and choices.chance(0.3):
            parents.append(self.cluster)
        if choices.chance(0.1):
            parents.append(self._known_index())
        reads_previous = number == 0 and self.reads_observation
        in_features = self.has_features and choices.chance(0.6)
        family = choices.pick(
            ["Normal", "Categorical", "Bernoulli", "Poisson", "to_event", "MultivariateNormal"]
        )
        if reads_previous:
            family = "Normal" if self.previous_family == "real" else "Categorical"
            zeros = f"jnp.zeros({self.batch_source})" if self.num_sequences else "0.0"
            if family == "Categorical":
                zeros = f"jnp.zeros({self.batch_source}, int)" if self.num_sequences else "0"
            next_source = name if choices.chance(0.5) else self._input(name)
            self.carry[f"{name}_prev"] = (zeros, next_source)
            if family == "Categorical":
                parents.append(_Index(f"{name}_prev", 3))
        if in_features:
            parents.append(_Index("feature", 2, False))
        shift = (
            f" + {self.table('real', ())} * {name}_prev"
            if reads_previous and family == "Normal"
            else ""
        )
        law, event, draw = self._emission_law(family, parents, shift)
        shape = (self.length, *self.batch)
        if in_features:
            shape = (*shape[:-1], 2) if self.has_unit else (*shape, 2)
        values = draw(shape)
        sample = f'numpyro.sample("{name}", {law}, obs={self._input(name)})'
        lines = [f"{name} = {sample}" if reads_previous else sample]
        self._array(name, values, 1 if self.num_sequences else None)
        if self.masks == "emissions" or choices.chance(0.06):
            known = choices.numbers.random(shape) < 0.6
            self._array(f"known{number}", known, 1 if self.num_sequences else None)
            lines = self._within(f"mask(mask={self._input(f'known{number}')})", lines)
            if values.dtype == float and not reads_previous and not event and choices.chance(0.4):
                self.data[name] = np.where(known, values, np.nan)
        if choices.chance(0.05):
            lines = self._within(f"mask(mask={choices.pick([False, False, True])})", lines)
        if choices.chance(0.06):
            weight = choices.numbers.integers(1, 4, size=self.batch).astype(float)
            self._array(f"weight{number}", weight, 0 if self.num_sequences else None)
            lines = self._within(f'scale(scale=data["weight{number}"])', lines)
        if in_features:
            lines = self._within('numpyro.plate("features", 2, dim=-1) as feature', lines)
        return lines

    def _emission_law(
        self, family: str, parents: list[_Index], shift: str
    ) -> tuple[str, tuple, Callable]:
        numbers = self.choices.numbers
        if family == "to_event":
            law = (
                f"dist.Normal({self.argument('real', (2,), parents)}, "
                f"{self.table('positive', ())}).to_event(1)"
            )
            return law, (2,), lambda shape: numbers.normal(size=(*shape, 2)).round(2)
        if family == "MultivariateNormal":
            covariance = self.table("covariance", (2, 2))
            law = (
                f"dist.MultivariateNormal({self.argument('real', (2,), parents)}, "
                f"covariance_matrix={covariance})"
            )
            return law, (2,), lambda shape: numbers.normal(size=(*shape, 2)).round(2)
        if family == "Normal":
            spread = (
                self.argument("positive", (), parents[:1])
                if self.choices.chance(0.3)
                else self.table("positive", ())
            )
            law = f"dist.Normal({self.argument('real', (), parents)}{shift}, {spread})"
            return law, (), lambda shape: numbers.normal(size=shape).round(2)
        if family == "Poisson":
            return (
                f"dist.Poisson({self.argument('positive', (), parents)})",
                (),
                lambda shape: numbers.poisson(1.5, shape),
            )
        if family == "Bernoulli":
            kind = self.choices.pick(["probability", "real"])
            word = "probs" if kind == "probability" else "logits"
            law = f"dist.Bernoulli({word}={self.argument(kind, (), parents)})"
            return law, (), lambda shape: numbers.integers(2, size=shape)
        kind = self.choices.pick(["simplex", "simplex", "real"])
        word = "probs" if kind == "simplex" else "logits"
        law = f"dist.Categorical({word}={self.argument(kind, (3,), parents)})"
        return law, (), lambda shape: numbers.integers(3, size=shape)

    # After the scan

    def _add_what_reads_the_scan(self):
        choices, form = (
            self.choices,
            self.choices.pick(["nothing"] * 5 + ["last", "tail", "stacked", "first"]),
        )
        size = self.sizes["z0"]
        last = _Index("z0_prev", size)
        contexts = self._contexts(False)
        if form == "last":
            law = f"dist.Normal({self.argument('real', (), [last], is_after=True)}, 0.8)"
            self.after += self._within(contexts, [f'numpyro.sample("end", {law}, obs=data["end"])'])
            self._array("end", choices.numbers.normal(size=self.batch).round(2), 0)
        if form == "tail":
            tail = f"dist.Categorical({self.argument('simplex', (2,), [last], is_after=True)})"
            law = (
                f"dist.Poisson({self.argument('positive', (), [_Index('tail', 2)], is_after=True)})"
            )
            lines = [
                f'tail = numpyro.sample("tail", {tail})',
                f'numpyro.sample("end", {law}, obs=data["end"])',
            ]
            self.after += self._within(contexts, lines)
            self._array("end", choices.numbers.poisson(1.5, self.batch), 0)
            self._latent("tail", 2)
        if form in ("stacked", "first"):
            self.stacked = choices.pick(["z0", '{"states": z0}'])
            states = "ys" if self.stacked == "z0" else 'ys["states"]'
            at = _Index(states if form == "stacked" else f"{states}[{choices.pick([0, -1])}]", size)
            law = f"dist.Normal({self.argument('real', (), [at], is_after=True)}, 0.8)"
            shape = (self.length, *self.batch) if form == "stacked" else self.batch
            if form == "stacked" and self.layout != "bare" and choices.chance(0.6):
                time = f'numpyro.plate("time", {self.length}, dim={-1 - len(self.batch)})'
                contexts = f"{time}, {contexts}" if contexts else time
            self.after += self._within(contexts, [f'numpyro.sample("end", {law}, obs=data["end"])'])
            self._array(
                "end", choices.numbers.normal(size=shape).round(2), len(shape) - len(self.batch)
            )

    # Tables

    def argument(self, kind, event, parents, is_transition=False, is_after=False) -> str:
        """Return the source of an argument that the parents determine, in one of the ways that
        people write it.
        """
        source = self._argument(kind, event, parents, is_transition, is_after)
        return rewritten(self.choices, source, kind, len(event), rows_are_alike=True)

    def _argument(self, kind, event, parents, is_transition, is_after) -> str:
        choices, forms = self.choices, ["index", "index"]
        if not any(parent.is_latent for parent in parents) and self.layout == "bare":
            parents = [*parents, self.current[0]]
        sizes, sources = [p.size for p in parents], [p.source for p in parents]
        at, trailing = ", ".join(sources), "".join(", :" for _ in event)
        if len(parents) > 1:
            forms += ["Vindex"]
            if kind == "real" and all(p.is_latent for p in parents):
                forms += ["sum"]
        if len(parents) == 1:
            forms += ["one hot"]
        if kind != "real":
            forms += ["link"]
        if kind == "real" and not is_after:
            forms += ["affine"]
        if is_transition and kind == "simplex" and sizes[0] == event[0] and len(parents) == 1:
            forms += ["sticky"]
        form = choices.pick(forms)
        if form == "Vindex":
            return f"Vindex({self.table(kind, (*sizes, *event))})[{at}{trailing}]"
        if form == "one hot" and "feature" not in sources:
            return (
                f"jax.nn.one_hot({sources[0]}, {sizes[0]}) @ {self.table(kind, (sizes[0], *event))}"
            )
        if form == "sum":
            return " + ".join(
                f"{self.table('real', (size, *event))}[{source}]"
                for size, source in zip(sizes, sources, strict=True)
            )
        if form == "affine" and "feature" not in sources:
            slope = self.table("real", (*sizes, *event))
            covariate = self._covariate() + ("[..., None]" if event else "")
            slope = f"{slope}[{at}]" if choices.chance(0.5) else self.table("real", event)
            return f"{self.table('real', (*sizes, *event))}[{at}] + {slope} * {covariate}"
        if form == "sticky":
            stay, size = self.table("probability", ()), event[0]
            return f"{stay} * jax.nn.one_hot({sources[0]}, {size}) + (1 - {stay}) / {size}"
        if form == "link":
            link = {
                "positive": "jnp.exp",
                "probability": "jax.nn.sigmoid",
                "simplex": "jax.nn.softmax",
            }[kind]
            return f"{link}({self.table('real', (*sizes, *event))}[{at}])"
        if is_transition and choices.chance(0.12):
            table = self.table(kind, (self.length, *sizes, *event))
            self.xs[f"{table}_t"] = table
            return f'inputs["{table}_t"][{at}]'
        return f"{self.table(kind, (*sizes, *event), may_be_zero=is_transition)}[{at}]"

    def table(self, kind, shape, may_be_zero=False) -> str:
        """Return the name of a table: a parameter, new or shared with another place, or a
        constant.
        """
        choices, shape = self.choices, tuple(shape)
        tied = [name for name, known in self.kinds.items() if known == (kind, shape)]
        if tied and choices.chance(0.15):
            return choices.pick(tied)
        value = random_table(choices.numbers, kind, shape)
        if choices.chance(0.3):
            if kind == "simplex" and may_be_zero and shape[-1] > 1:
                value = with_zeros(choices.numbers, value)
            name = f"table{len(self.constants)}"
            self.constants[name] = value
            return name
        name = f"p{len(self.params)}"
        self.params[name], self.constraint[name], self.kinds[name] = value, kind, (kind, shape)
        return name

    def _array(self, name: str, values, axis: int | None):
        self.data[name] = np.asarray(values)
        self.axis[name] = axis if self.num_sequences else None


def random_table(numbers: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return a value of this kind, of moderate size and few digits."""
    if kind == "real":
        return numbers.normal(size=shape).round(2)
    if kind == "positive":
        return np.exp(0.6 * numbers.normal(size=shape)).round(2)
    if kind == "probability":
        return numbers.uniform(0.05, 0.95, size=shape).round(2)
    if kind == "covariance":
        root = numbers.normal(size=shape).round(1)
        return (root @ root.swapaxes(-1, -2) + np.eye(shape[-1])).round(2)
    weights = numbers.dirichlet(np.full(shape[-1], 1.5), size=shape[:-1])
    return (1 + numbers.multinomial(100 - shape[-1], weights)) / 100


def with_zeros(numbers: np.random.Generator, table: np.ndarray) -> np.ndarray:
    """Return a table of probabilities in which some rows never reach some state."""
    rows = table.reshape(-1, table.shape[-1]).copy()
    for row in rows:
        if numbers.random() < 0.6:
            gone, kept = numbers.choice(len(row), 2, replace=False)
            row[kept], row[gone] = row[kept] + row[gone], 0.0
    return rows.reshape(table.shape)
