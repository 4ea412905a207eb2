"""Random NumPyro programs with discrete latents, small enough for the joint table.

A `Program` is a record of plates, sites, parameters and data. `program.model` is an ordinary
NumPyro program, made by running `program.source`, so that a failing example is read, and pasted, as
the program that it is:

    program = program_from_seed(3)
    print(program)                                   # source, parameters, data
    joint_table(program.model, program.params, program.data)

Plates form a tree, with dims given explicitly. A site depends on latents of the plates that it
lives in, or, in a plate of rows, on `z[item]` of the plate that its rows point to. Data are drawn
as the program runs, so that they are possible. `expanded` rewrites multiplicities
(`handlers.scale`) as repeated rows.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from hypothesis import strategies as st
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.distributions.util import clamp_probs
from numpyro.ops.indexing import Vindex

from tests.oracles.by_numpy import evaluated
from tests.oracles.rewritings import rewritten

MAX_TRIALS = 4  # of any Binomial or Multinomial below

# Record
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plate:
    """One plate.

    - `parent`: the plate that it is nested in.
    - `rows_of`: the plate that each of its rows points to, through the data array `item_<name>`.
    - `is_bare`: no `numpyro.plate`, only a batch dimension of the distributions.
    """

    name: str
    size: int
    dim: int
    parent: str | None = None
    rows_of: str | None = None
    is_bare: bool = False


@dataclass(frozen=True)
class Array:
    """Data aligned with the dims of the plates that it varies over: a plate of dim d is axis d -
    event_ndim.
    """

    values: np.ndarray
    plates: tuple[str, ...]
    event_ndim: int = 0


@dataclass(frozen=True)
class Parameter:
    """A parameter: the value it is evaluated at, the one it is declared with, and its
    declaration.
    """

    value: np.ndarray
    initial: np.ndarray
    declaration: str


@dataclass(frozen=True)
class Site:
    """One sample site, or a deterministic one. `mask`, `weight`, `known` name data arrays;
    `constant_mask` is one that is the same for all elements, whatever the data.
    """

    name: str
    plates: tuple[str, ...]
    law: str
    support: tuple[int, ...] | None = None  # of a latent
    mask: str | None = None
    mask_is_outside: bool = False
    weight: str | None = None
    known: str | None = None  # of a latent: which elements are labelled
    is_deterministic: bool = False
    constant_mask: bool | None = None

    @property
    def latent_name(self) -> str:
        return f"{self.name}_unobserved" if self.known else self.name


@dataclass(frozen=True)
class Program:
    """A NumPyro program with its parameters and data. `counts`: for each plate with multiplicities,
    their array.
    """

    plates: dict[str, Plate]
    sites: tuple[Site, ...]
    parameters: dict[str, Parameter]
    constants: dict[str, np.ndarray]
    arrays: dict[str, Array]
    counts: dict[str, str] = field(default_factory=dict)
    plates_are_reused: bool = False
    origin: dict[str, Array] = field(default_factory=dict)

    @property
    def params(self) -> dict[str, jax.Array]:
        return {name: jnp.asarray(parameter.value) for name, parameter in self.parameters.items()}

    @property
    def data(self) -> dict[str, jax.Array]:
        return {name: jnp.asarray(array.values) for name, array in self.arrays.items()}

    @property
    def latents(self) -> tuple[Site, ...]:
        return tuple(site for site in self.sites if site.support is not None)

    @property
    def num_assignments(self) -> int:
        return math.prod(len(site.support) ** self.num_elements(site) for site in self.latents)

    def num_elements(self, site: Site) -> int:
        return math.prod(self.plates[name].size for name in site.plates)

    def shape(self, plates: Sequence[str]) -> tuple[int, ...]:
        """The batch shape of a site in these plates."""
        return aligned_shape([self.plates[name] for name in plates])

    @functools.cached_property
    def model(self) -> Callable:
        scope = dict(
            jax=jax,
            jnp=jnp,
            numpyro=numpyro,
            dist=dist,
            constraints=constraints,
            Vindex=Vindex,
            clamp_probs=clamp_probs,
            mask=handlers.mask,
            scale=handlers.scale,
            initial={name: jnp.asarray(p.initial) for name, p in self.parameters.items()},
            **{name: jnp.asarray(value) for name, value in self.constants.items()},
        )
        exec(self.source, scope)
        return scope["model"]

    @property
    def source(self) -> str:
        lines = ["def model(data):"]
        lines += [f"    {p.declaration}" for p in self.parameters.values()]
        if self.plates_are_reused:
            lines += [
                f"    {p.name} = {_plate_call(p)}" for p in self.plates.values() if not p.is_bare
            ]
        for site in self.sites:
            contexts = self._contexts(site)
            if contexts:
                lines += [f"    with {', '.join(contexts)}:", f"        {self._statement(site)}"]
            else:
                lines += [f"    {self._statement(site)}"]
        return "\n".join(lines)

    def describe(self) -> str:
        def listing(title, values):
            return [title] + [
                f"    {name} = {_array_text(value)}" for name, value in values.items()
            ]

        lines = [self.source, f"{self.num_assignments} joint assignments"]
        lines += listing("params:", {name: p.value for name, p in self.parameters.items()})
        lines += listing("constants:", self.constants)
        lines += listing("data:", {name: array.values for name, array in self.arrays.items()})
        return "\n".join(["", *lines, ""])

    __repr__ = __str__ = describe

    def _repr_pretty_(self, printer, cycle):  # how Hypothesis prints a failing example
        printer.text(self.describe())

    def _contexts(self, site: Site) -> list[str]:
        plates = [self.plates[name] for name in site.plates]
        named = [
            p.name if self.plates_are_reused else _plate_call(p) for p in plates if not p.is_bare
        ]
        scales = [
            f'scale(scale=data["{self.counts[p.name]}"])' for p in plates if p.name in self.counts
        ]
        if site.weight:
            scales.append(f'scale(scale=data["{site.weight}"])')
        masks = [f'mask(mask=data["{site.mask}"])'] if site.mask else []
        if site.constant_mask is not None:
            masks.append(f"mask(mask={site.constant_mask})")
        return masks + named + scales if site.mask_is_outside else named + scales + masks

    def _statement(self, site: Site) -> str:
        if site.is_deterministic:
            return f'numpyro.deterministic("{site.name}", {site.law})'
        law = site.law
        if any(self.plates[name].is_bare for name in site.plates):
            law += f".expand({self.shape(site.plates)})"
        if site.support is None:
            return f'numpyro.sample("{site.name}", {law}, obs=data["{site.name}"])'
        observed = f', obs=data["{site.name}"], obs_mask=data["{site.known}"]' if site.known else ""
        return f'{site.name} = numpyro.sample("{site.name}", {law}{observed})'


def aligned_shape(plates: Sequence[Plate]) -> tuple[int, ...]:
    shape = [1] * max((-plate.dim for plate in plates), default=0)
    for plate in plates:
        shape[plate.dim] = plate.size
    return tuple(shape)


def _plate_call(plate: Plate) -> str:
    return f'numpyro.plate("{plate.name}", {plate.size}, dim={plate.dim})'


def _array_text(value: np.ndarray) -> str:
    return " ".join(np.array2string(np.asarray(value), separator=", ").split())


# Multiplicities as repeated rows
# -------------------------------------------------------------------------------------


def expanded(program: Program) -> Program:
    """Return the program in which a row of multiplicity c is written c times.

    Where the counts of an inner plate differ from one outer row to the next, the missing rows are
    masked: observations and latents alike, so that they change nothing. `origin[site]` gives for
    each element of a latent the flat index of the element that it is a copy of, and -1 where it is
    masked filler.
    """
    origin = {}
    for site in program.latents:
        shape = program.shape(site.plates)
        origin[site.name] = Array(np.arange(math.prod(shape)).reshape(shape), site.plates)
    program = replace(program, origin=origin)
    for name in sorted(program.counts, key=lambda name: len(_chain(program.plates, name))):
        program = _expand_plate(program, name)
    return program


def _expand_plate(program: Program, name: str) -> Program:
    plate, arrays = program.plates[name], dict(program.arrays)
    counts_array = arrays.pop(program.counts[name])
    shape = np.broadcast_shapes(counts_array.values.shape, aligned_shape([plate]))
    counts = np.moveaxis(np.broadcast_to(counts_array.values, shape), plate.dim, -1)
    size = int(counts.sum(-1).max())
    row, valid = (
        np.zeros(counts.shape[:-1] + (size,), int),
        np.zeros(counts.shape[:-1] + (size,), bool),
    )
    for outer in np.ndindex(counts.shape[:-1]):
        copies = np.repeat(np.arange(plate.size), counts[outer].astype(int))
        row[outer][: len(copies)], valid[outer][: len(copies)] = copies, True
    varies = tuple(dict.fromkeys(counts_array.plates + (name,)))
    rows = Array(np.moveaxis(row, -1, plate.dim), varies)
    valid = Array(np.moveaxis(valid, -1, plate.dim), varies)

    arrays = {key: _take_rows(array, rows, plate) for key, array in arrays.items()}
    origin = {key: _take_rows(array, rows, plate) for key, array in program.origin.items()}
    sites = []
    for site in program.sites:
        if name in site.plates and not valid.values.all():
            if site.mask:
                both = arrays[site.mask].values & valid.values
                arrays[site.mask] = Array(
                    both, tuple(dict.fromkeys(arrays[site.mask].plates + varies))
                )
            elif not site.is_deterministic:
                site = replace(site, mask=f"valid_{name}")
                arrays[site.mask] = valid
            if site.support:
                origin[site.name] = replace(
                    origin[site.name], values=np.where(valid.values, origin[site.name].values, -1)
                )
        sites.append(site)
    return replace(
        program,
        plates=program.plates | {name: replace(plate, size=size)},
        sites=tuple(sites),
        arrays=arrays,
        counts={key: value for key, value in program.counts.items() if key != name},
        origin=origin,
    )


def _take_rows(array: Array, rows: Array, plate: Plate) -> Array:
    if plate.name not in array.plates:
        return array
    values, axis = array.values, plate.dim - array.event_ndim
    index = rows.values.reshape(rows.values.shape + (1,) * array.event_ndim)
    ndim = max(values.ndim, index.ndim)
    values, index = (x.reshape((1,) * (ndim - x.ndim) + x.shape) for x in (values, index))
    shape = list(np.broadcast_shapes(*(np.delete(x.shape, axis) for x in (values, index))))

    def filled(x):
        full = list(shape)
        full.insert(ndim + axis, x.shape[axis])
        return np.broadcast_to(x, full)

    taken = np.take_along_axis(filled(values), filled(index), axis)
    return replace(array, values=taken, plates=tuple(dict.fromkeys(array.plates + rows.plates)))


def _chain(plates: dict[str, Plate], name: str | None) -> tuple[str, ...]:
    """The plates that a site placed in plate `name` lives in, outermost first."""
    if name is None:
        return ()
    return _chain(plates, plates[name].parent) + (name,)


# Choices
# --------------------------------------------------------------------------------------------------


class Choices:
    """Structure from `integer(low, high)`, inclusive, where a smaller number is a simpler program;
    numbers from NumPy.
    """

    def __init__(self, integer: Callable[[int, int], int], numbers: np.random.Generator):
        self.integer, self.numbers = integer, numbers

    def pick(self, options: Sequence):
        return options[self.integer(0, len(options) - 1)]

    def chance(self, probability: float) -> bool:
        return self.integer(0, 99) >= 100 * (1 - probability)


def program_from_seed(seed: int, **options) -> Program:
    """Return a random program. Options: those of `random_program`."""
    numbers = np.random.default_rng(seed)
    return random_program(
        Choices(lambda low, high: int(numbers.integers(low, high + 1)), numbers), **options
    )


@st.composite
def programs(draw, **options) -> Program:
    """The Hypothesis strategy of random programs. Options: those of `random_program`."""
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return random_program(
        Choices(lambda low, high: draw(st.integers(low, high)), numbers), **options
    )


# Random programs
# --------------------------------------------------------------------------------------------------

# Arguments of each observed family: (kind of value, event shape). `D` stands for a vector of two or
# three.
OBSERVED_FAMILIES = {
    "dist.Normal({}, {})": [("real", ""), ("positive", "")],
    "dist.Categorical(probs={})": [("simplex", "D")],
    "dist.Categorical(logits={})": [("real", "D")],
    "dist.Bernoulli(probs={})": [("probability", "")],
    "dist.Bernoulli(logits={})": [("real", "")],
    "dist.Poisson({})": [("positive", "")],
    "dist.MultivariateNormal({}, covariance_matrix={})": [("real", "D"), ("covariance", "DD")],
    "dist.MultivariateNormal({}, precision_matrix={})": [("real", "D"), ("covariance", "DD")],
    "dist.MultivariateNormal({}, scale_tril={})": [("real", "D"), ("scale_tril", "DD")],
    "dist.Binomial(4, probs={})": [("probability", "")],
    "dist.Binomial(4, logits={})": [("real", "")],
    "dist.Normal({}, {}).to_event(1)": [("real", "D"), ("positive", "D")],
    "dist.Bernoulli(probs={}).to_event(1)": [("probability", "D")],
    "dist.Gamma({}, {})": [("positive", ""), ("positive", "")],
    "dist.Exponential({})": [("positive", "")],
    "dist.LogNormal({}, {})": [("real", ""), ("positive", "")],
    "dist.Geometric(probs={})": [("probability", "")],
    "dist.Beta({}, {})": [("positive", ""), ("positive", "")],
    "dist.Dirichlet({})": [("positive", "D")],
    "dist.NegativeBinomial2({}, {})": [("positive", ""), ("positive", "")],
    "dist.Multinomial(3, probs={})": [("simplex", "D")],
    "dist.StudentT(4.0, {}, {})": [("real", ""), ("positive", "")],
    "dist.Laplace({}, {})": [("real", ""), ("positive", "")],
    "dist.ZeroInflatedPoisson({}, {})": [("probability", ""), ("positive", "")],
    "dist.Delta({})": [("point", "")],
}

CONSTRAINTS = {
    "real": "constraints.real",
    "positive": "constraints.positive",
    "probability": "constraints.unit_interval",
    "simplex": "constraints.simplex",
    "covariance": "constraints.positive_definite",
    "scale_tril": "constraints.lower_cholesky",
}
PRIORS = {
    "real": "dist.Normal(0.5, 2.0)",
    "positive": "dist.Gamma(2.0, 1.5)",
    "probability": "dist.Beta(2.0, 3.0)",
    "simplex": "dist.Dirichlet(jnp.full({size}, 1.5))",
}
EVENT_NDIM = {"simplex": 1, "covariance": 2, "scale_tril": 2}


def random_program(
    choices: Choices,
    max_assignments: int = 512,
    max_latents: int = 4,
    is_rooted: bool = False,
    has_multiplicities: bool = False,
    is_crossed: bool = False,
) -> Program:
    """Return a random program and data drawn from it.

    - `is_rooted`: every site lives in the plate `rows`, so that all rows are alike and independent.
    - `has_multiplicities`: some plate carries counts; `max_assignments` then bounds the expanded
      program too.
    - `is_crossed`: an observation couples two plates, or sums over the latents of one: a loopy
      graph.
    """
    builder = _Builder(choices, max_assignments, is_rooted, is_crossed, has_multiplicities)
    builder.add_plates()
    for _ in range(choices.integer(1, max_latents)):
        builder.add_latent()
        if choices.chance(0.3):
            builder.add_observation()
    for _ in range(choices.integer(1, 2)):
        builder.add_observation()
    if is_crossed:
        builder.add_crossed_observation()
    program = _with_drawn_data(builder.program(), choices.numbers)
    return _with_counts(program, choices, max_assignments) if has_multiplicities else program


class _Builder:
    def __init__(self, choices, max_assignments, is_rooted, is_crossed, has_multiplicities):
        self.choices = choices
        self.max_assignments = max_assignments
        self.is_rooted, self.is_crossed, self.has_multiplicities = (
            is_rooted,
            is_crossed,
            has_multiplicities,
        )
        self.plates: dict[str, Plate] = {}
        self.sites: list[Site] = []
        self.parameters: dict[str, Parameter] = {}
        self.kinds: dict[str, tuple] = {}  # of a parameter: kind and shape, for tying
        self.constants: dict[str, np.ndarray] = {}
        self.arrays: dict[str, Array] = {}

    def program(self) -> Program:
        return Program(
            self.plates,
            tuple(self.sites),
            self.parameters,
            self.constants,
            self.arrays,
            plates_are_reused=self.choices.chance(0.3),
        )

    @property
    def latents(self) -> list[Site]:
        return [site for site in self.sites if site.support is not None]

    # Plates

    def add_plates(self):
        choices = self.choices
        names = iter("abcd")
        if self.is_rooted or self.is_crossed or self.has_multiplicities or choices.chance(0.8):
            self._add_plate("rows", None)
        for name in names:
            if not choices.chance(0.6 if name < "c" else 0.25):
                continue
            roots = ["rows"] if self.is_rooted else [*self.plates, None]
            self._add_plate(name, choices.pick(roots))
        targets = [
            p.name
            for p in self.plates.values()
            if p.parent is None and not p.is_bare and not p.rows_of
        ]
        if targets and not self.is_rooted and choices.chance(0.3):
            target = self.plates[choices.pick(targets)]
            labels = Plate("labels", choices.integer(1, 4), target.dim, rows_of=target.name)
            self.plates["labels"] = labels
            item = choices.numbers.integers(target.size, size=labels.size)
            self.arrays["item_labels"] = Array(item.reshape(aligned_shape([labels])), ("labels",))
            if choices.chance(0.3):
                self._add_plate("e", "labels")
        if self.is_crossed:
            taken = {p.dim for p in self.plates.values()}
            free = min(taken) - 1
            self._add_plate("across", None, dim=free)

    def _add_plate(self, name, parent, dim=None):
        choices = self.choices
        chain = _chain(self.plates, parent)
        if len(chain) == 3:
            return
        if dim is None:
            dim = choices.pick(
                [d for d in (-1, -2, -3) if d not in {self.plates[p].dim for p in chain}]
            )
        is_bare = name != "rows" and choices.chance(0.15)
        self.plates[name] = Plate(name, choices.pick([2, 3, 2, 1]), dim, parent, is_bare=is_bare)

    def _place(self, below_a_latent=False) -> tuple[str, ...]:
        options = [] if self.is_rooted else [()]
        around = {p.parent for p in self.plates.values()} | {
            p.rows_of for p in self.plates.values()
        }
        for name, plate in self.plates.items():
            chain = _chain(self.plates, name)
            options += [chain] * (
                len(chain) + 2 * (name in around) + 3 * (plate.rows_of is not None)
            )
        if below_a_latent:
            outer = {z.plates for z in self.latents if z.plates}
            below = [
                chain for chain in options if any(set(plates) < set(chain) for plates in outer)
            ]
            below += [
                chain for chain in options if any((self.plates[p].rows_of,) in outer for p in chain)
            ]
            options = below or options
        return self.choices.pick(options[::-1])

    def _in_scope(self, plates: tuple[str, ...]) -> list[Site]:
        """The latents that a site in these plates may depend on."""
        targets = [(self.plates[name].rows_of,) for name in plates if self.plates[name].rows_of]
        return [z for z in self.latents if set(z.plates) <= set(plates) or z.plates in targets]

    # Sites

    def add_latent(self):
        choices = self.choices
        name, plates, size = self._room_for_a_latent()
        if name is None:
            return
        parents = self._parents(plates, minimum=choices.integer(0, 1))
        family = choices.pick(
            ["Categorical", "Categorical", "DiscreteUniform", "Bernoulli", "Binomial"]
        )
        support = tuple(range(size))
        if family == "DiscreteUniform":
            low = choices.pick([1, 2, -1])
            support = tuple(range(low, low + size))
            law = f"dist.DiscreteUniform({low}, {low + size - 1})"
        elif family == "Bernoulli" and size == 2:
            law = choices.pick(["dist.Bernoulli(probs={})", "dist.Bernoulli(logits={})"])
            law = law.format(
                self.argument("probability" if "probs" in law else "real", (), parents, plates)
            )
        elif family == "Binomial" and size > 1:
            law = (
                f"dist.Binomial({size - 1}, "
                f"probs={self.argument('probability', (), parents, plates)})"
            )
        elif choices.chance(0.3):
            law = f"dist.Categorical(logits={self.argument('real', (size,), parents, plates)})"
        else:
            law = f"dist.Categorical(probs={self.argument('simplex', (size,), parents, plates)})"
        mask = self._boolean("mask", plates) if plates and choices.chance(0.12) else None
        known = (
            self._boolean("known", plates) if plates and not mask and choices.chance(0.12) else None
        )
        self.sites.append(
            Site(
                name,
                plates,
                law,
                support,
                mask,
                choices.chance(0.5) if mask else False,
                known=known,
            )
        )
        if choices.chance(0.1):
            self.sites.append(
                Site(f"d{len(self.sites)}", plates, f"{name} * 2", is_deterministic=True)
            )

    def _room_for_a_latent(self) -> tuple:
        """A place and a support size that keep the joint table small; nothing if there is none."""
        size = 1 if self.choices.chance(0.07) else self.choices.pick([2, 2, 3])
        for _ in range(4):
            plates = self._place(below_a_latent=self.choices.chance(0.6))
            num_elements = math.prod(self.plates[p].size for p in plates)
            if self._num_assignments() * size**num_elements <= self.max_assignments:
                return f"z{len(self.latents)}", plates, size
        if self.latents:
            return None, None, None
        return "z0", ("rows",) if self.is_rooted else (), 2

    def add_observation(self, plates=None, parents=None):
        choices = self.choices
        name = f"x{len([s for s in self.sites if s.name.startswith('x')])}"
        if plates is None:
            plates = self._place(below_a_latent=choices.chance(0.4))
            if not self._in_scope(plates) and choices.chance(0.9) and self.latents:
                plates = choices.pick(self.latents).plates
        family = choices.pick(list(OBSERVED_FAMILIES))
        dimension = choices.pick([2, 3])
        available = self._parents(plates, minimum=1) if parents is None else parents
        arguments = []
        for kind, event in OBSERVED_FAMILIES[family]:
            used = available if choices.chance(0.7) or not arguments else []
            arguments.append(self.argument(kind, (dimension,) * len(event), used, plates))
        mask = self._boolean("mask", plates) if plates and choices.chance(0.2) else None
        weight = self._counts("weight", plates) if plates and choices.chance(0.08) else None
        is_outside = choices.chance(0.5) if mask else False
        constant_mask = choices.pick([False, False, True]) if choices.chance(0.06) else None
        law = family.format(*arguments)
        self.sites.append(
            Site(name, plates, law, None, mask, is_outside, weight, constant_mask=constant_mask)
        )

    def add_crossed_observation(self):
        """Couple latents of two plates, neither inside the other, or all elements of one latent by
        their sum.
        """
        choices = self.choices
        for across in (("across",), ("rows",)):
            if not any(z.plates == across for z in self.latents):
                latent = Site(f"z{len(self.latents)}", across, "dist.Bernoulli(probs=0.3)", (0, 1))
                self.sites.append(latent)
        ends = [
            next(z for z in self.latents if z.plates == (plate,)) for plate in ("rows", "across")
        ]
        if choices.chance(0.3):
            table = self.table("real", (2,))
            law = f"dist.Normal({table}[0] * {ends[0].name}.sum() + {table}[1], 1.2)"
            self.sites.append(Site("x_total", (), law))
        else:
            self.add_observation(("across", "rows"), ends)

    def _num_assignments(self):
        sizes = [
            len(z.support) ** math.prod(self.plates[p].size for p in z.plates) for z in self.latents
        ]
        return math.prod(sizes)

    def _parents(self, plates, minimum=0) -> list[Site]:
        scope = self._in_scope(plates)
        wanted = min(self.choices.integer(minimum, 2), len(scope))
        chosen = []
        for _ in range(wanted):
            left = [z for z in reversed(scope) if z not in chosen]
            outer = [
                z for z in left if z.plates and z.plates != plates
            ]  # another plate's: the interesting case
            chosen.append(self.choices.pick(left + 3 * outer))
        return chosen

    # Data that are no observations

    def _subset(self, plates) -> tuple[str, ...]:
        kept = tuple(p for p in plates if self.choices.chance(0.7))
        return kept or plates[-1:]

    def _boolean(self, name, plates) -> str:
        shape = aligned_shape([self.plates[p] for p in plates])
        return self._array(name, self.choices.numbers.random(shape) < 0.6, plates)

    def _counts(self, name, plates) -> str:
        shape = aligned_shape([self.plates[p] for p in plates])
        return self._array(
            name, self.choices.numbers.integers(1, 4, size=shape).astype(float), plates
        )

    def _array(self, name, values, plates, event_ndim=0) -> str:
        name = f"{name}{len(self.arrays)}"
        self.arrays[name] = Array(np.asarray(values), tuple(plates), event_ndim)
        return name

    # Arguments of distributions

    def argument(self, kind, event, parents, plates) -> str:
        """Return the source of an argument that depends on the parents, in one of the ways that
        people write it.
        """
        source = self._argument(kind, event, parents, plates)
        if kind == "point":
            return source
        rows_are_alike = self.is_rooted or self.has_multiplicities
        return rewritten(self.choices, source, kind, len(event), rows_are_alike)

    def _argument(self, kind, event, parents, plates) -> str:
        choices = self.choices
        forms = ["index"]
        trailing = len(event)
        if len(parents) == 1 and len(parents[0].support) == 2:
            forms += ["where"]
        if len(parents) == 1:
            forms += ["take", "tied index"]
            if trailing <= 1 and kind != "point":
                forms += ["one hot"]
            if trailing == 1:
                forms += ["transpose"]
        if len(parents) == 2:
            forms += ["Vindex", "Vindex"]
        if parents and trailing == 0:
            if kind == "real":
                forms += ["affine", "regression"]
            if kind in ("positive", "probability"):
                forms += ["nonlinear"]
        if parents and trailing == 1 and kind == "simplex":
            forms += ["nonlinear"]
        if len(parents) == 2 and kind == "real":
            forms += ["sum"]
        form = choices.pick(forms)
        index, sizes = [], []
        if plates and form in ("index", "Vindex") and choices.chance(0.15):
            num_rows = choices.pick([2, 3])
            which = self._subset(plates)
            shape = aligned_shape([self.plates[p] for p in which])
            rows = self._array("which", choices.numbers.integers(num_rows, size=shape), which)
            index, sizes = [f'data["{rows}"]'], [num_rows]
        for latent in parents:
            position, size = self._position(latent, plates)
            index.append(position)
            sizes.append(size)
        expand = "".join(", None" for _ in range(trailing))
        if not index:
            return self.table(kind, event)
        if form == "index":
            return f"{self.table(kind, (*sizes, *event))}[{', '.join(index)}]"
        if form == "Vindex":
            table = self.table(kind, (*sizes, *event))
            return f"Vindex({table})[{', '.join(index + [':'] * trailing)}]"
        if form == "take":
            return f"jnp.take({self.table(kind, (*sizes, *event))}, {index[0]}, axis=0)"
        if form == "tied index":
            tied = self._constant("tied", choices.numbers.integers(2, size=sizes[0]))
            return f"{self.table(kind, (2, *event))}[{tied}[{index[0]}]]"
        if form == "transpose":
            return f"jnp.moveaxis({self.table(kind, (sizes[0], *event))}.T[:, {index[0]}], 0, -1)"
        if form == "where":
            table, low = self.table(kind, (2, *event)), parents[0].support[0]
            test = f"({self._value(parents[0], plates)} == {low})" + (
                f"[...{expand}]" if expand else ""
            )
            return f"jnp.where({test}, {table}[0], {table}[1])"
        if form == "one hot":
            return (
                f"jax.nn.one_hot({index[0]}, {sizes[0]}) @ {self.table(kind, (sizes[0], *event))}"
            )
        if form == "affine":
            return (
                f"{self.table('real', ())} + {self.table('real', ())} * "
                f"{self._value(parents[0], plates)}"
            )
        if form == "regression":
            x = "1.5"
            if plates:
                shape = aligned_shape([self.plates[p] for p in plates])
                covariate = choices.numbers.normal(size=shape).round(3)
                x = f'data["{self._array("covariate", covariate, plates)}"]'
            at = f"[{', '.join(index)}]"
            return (
                f"{self.table('real', tuple(sizes))}{at} + "
                f"{self.table('real', tuple(sizes))}{at} * {x}"
            )
        if form == "sum":
            first, second = (self.table("real", (size, *event)) for size in sizes)
            return f"{first}[{index[0]}] + {second}[{index[1]}]"
        link = {
            "positive": "jnp.exp",
            "probability": "jax.nn.sigmoid",
            "simplex": "jax.nn.softmax",
        }[kind]
        return f"{link}({self.table('real', (*sizes, *event))}[{', '.join(index)}])"

    def _value(self, latent: Site, plates) -> str:
        """The source of the latent's value, aligned with a site in these plates."""
        if set(latent.plates) <= set(plates):
            return latent.name
        (target,) = latent.plates
        rows = next(p for p in plates if self.plates[p].rows_of == target)
        flat = ", 0" * (-self.plates[rows].dim - 1)
        item = f'data["item_{rows}"]' + (f"[:{flat}]" if flat else "")
        return f"{latent.name}[{item}]"

    def _position(self, latent: Site, plates) -> tuple[str, int]:
        """The source of an index into a table for this latent, and the length of that
        table's axis.
        """
        value, low, size = self._value(latent, plates), latent.support[0], len(latent.support)
        if low == 0:
            return value, size
        if low > 0 and self.choices.chance(0.4):
            return value, low + size
        return f"{value} - {low}" if low > 0 else f"{value} + {-low}", size

    def table(self, kind, shape) -> str:
        """Return the name of a table: a parameter, new or shared with another site, or a
        constant.
        """
        choices = self.choices
        shape = tuple(shape)
        if kind == "point":
            return self._constant("point", choices.numbers.integers(3, size=shape).astype(float))
        tied = [name for name, known in self.kinds.items() if known == (kind, shape)]
        if tied and choices.chance(0.35):
            return choices.pick(tied)
        if choices.chance(0.25):
            value = random_value(choices.numbers, kind, shape)
            if kind == "simplex" and shape[-1] > 1 and choices.chance(0.5):
                value[..., choices.integer(0, shape[-1] - 1)] = 0.0  # unreachable
                value /= value.sum(-1, keepdims=True)
            return self._constant("table", value)
        name = f"p{len(self.parameters)}"
        if kind in PRIORS and choices.chance(0.15):
            leading = shape[: len(shape) - EVENT_NDIM.get(kind, 0)]
            prior = PRIORS[kind].format(size=shape[-1] if shape else None)
            mask = choices.pick([False, False, True]) if choices.chance(0.25) else None
            within = "" if mask is None else f"with mask(mask={mask}): "
            if len(leading) == 1 and choices.chance(0.5):
                plate = f'numpyro.plate("{name}_rows", {leading[0]}, dim=-1)'
                around = plate if mask is None else f"mask(mask={mask}), {plate}"
                declaration = f"with {around}: "
                declaration += f'{name} = numpyro.sample("{name}", {prior})'
            else:
                event = f".expand({leading}).to_event({len(leading)})" if leading else ""
                declaration = f'{within}{name} = numpyro.sample("{name}", {prior}{event})'
        else:
            declaration = (
                f'{name} = numpyro.param("{name}", initial["{name}"], '
                f"constraint={CONSTRAINTS[kind]})"
            )
        value, initial = (random_value(choices.numbers, kind, shape) for _ in range(2))
        self.parameters[name] = Parameter(value, initial, declaration)
        self.kinds[name] = (kind, shape)
        return name

    def _constant(self, name, value) -> str:
        name = f"{name}_{len(self.constants)}"
        self.constants[name] = value
        return name


def random_value(numbers: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return a value of this kind, of moderate size."""
    if kind == "real":
        return numbers.normal(size=shape).round(3)
    if kind == "positive":
        return np.exp(0.6 * numbers.normal(size=shape)).round(3)
    if kind == "probability":
        return numbers.uniform(0.05, 0.95, size=shape).round(3)
    if kind == "simplex":
        return numbers.dirichlet(np.full(shape[-1], 1.5), size=shape[:-1])
    root = np.tril(numbers.normal(size=shape), -1) + np.eye(shape[-1]) * (
        0.5 + numbers.random((*shape[:-1], 1))
    )
    return root if kind == "scale_tril" else root @ np.swapaxes(root, -1, -2)


def _with_drawn_data(program: Program, numbers: np.random.Generator) -> Program:
    """Return the program with each observation, and each label, drawn as the program runs."""
    drawn = [
        site
        for site in program.sites
        if not site.is_deterministic and (site.support is None or site.known)
    ]
    data = program.data | {site.name: None for site in drawn}

    def values():
        model = _DrawWithNumPy(handlers.substitute(program.model, data=program.params), numbers)
        trace = handlers.trace(model).get_trace(data)
        return {site.name: trace[site.name]["value"] for site in drawn}

    arrays = dict(program.arrays)
    for name, value in evaluated(values).items():
        plates = next(site.plates for site in drawn if site.name == name)
        arrays[name] = Array(np.asarray(value), plates, value.ndim - len(program.shape(plates)))
    return replace(program, arrays=arrays)


class _DrawWithNumPy(numpyro.primitives.Messenger):
    """Give each site a possible value, from noise drawn by NumPy: NumPyro's own samplers take
    seconds to compile.
    """

    def __init__(self, fn, numbers):
        super().__init__(fn)
        self.numbers = numbers

    def process_message(self, msg):
        if msg["type"] == "sample" and msg["value"] is None:
            msg["value"] = jnp.asarray(possible_value(msg["fn"], self.numbers))


def possible_value(law: dist.Distribution, numbers: np.random.Generator) -> jax.Array | np.ndarray:
    """Return a value of the distribution's shape, of positive probability and moderate size."""
    shape = law.batch_shape + law.event_shape
    while isinstance(law, (dist.ExpandedDistribution, dist.Independent, dist.MaskedDistribution)):
        law = law.base_dist
    name = type(law).__name__
    if name.startswith("Categorical"):
        return (numbers.random(shape + (1,)) > jnp.cumsum(law.probs, -1)[..., :-1]).sum(-1)
    if name.startswith("Bernoulli"):
        return (numbers.random(shape) < law.probs).astype(int)
    if name.startswith("Binomial"):
        return sum(
            (numbers.random(shape) < law.probs) & (trial < law.total_count)
            for trial in range(MAX_TRIALS)
        )
    if name.startswith("Multinomial"):
        below = jnp.cumsum(law.probs, -1)[..., :-1]
        drawn = [(numbers.random((*shape[:-1], 1)) > below).sum(-1) for _ in range(MAX_TRIALS)]
        counted = [(trial < jnp.asarray(law.total_count))[..., None] for trial in range(MAX_TRIALS)]
        return sum(
            jax.nn.one_hot(k, shape[-1], dtype=int) * is_counted
            for k, is_counted in zip(drawn, counted, strict=True)
        )
    if name == "DiscreteUniform":
        return jnp.floor(law.low + numbers.random(shape) * (law.high - law.low + 1)).astype(int)
    if name == "Delta":
        return jnp.broadcast_to(law.v, shape)
    if name == "MultivariateNormal":
        noise = law.scale_tril @ numbers.normal(size=shape + (1,))
        return (law.loc + noise[..., 0]).round(3)
    if name in ("Normal", "StudentT", "Laplace"):
        return (law.loc + law.scale * numbers.normal(size=shape)).round(3)
    if name in ("Gamma", "Exponential", "LogNormal"):
        return np.exp(0.8 * numbers.normal(size=shape)).round(3)
    if name == "Beta":
        return numbers.uniform(0.05, 0.95, size=shape).round(3)
    if name == "Dirichlet":
        return numbers.dirichlet(np.full(shape[-1], 2.0), size=shape[:-1])
    return numbers.poisson(1.5, size=shape)


def _with_counts(program: Program, choices: Choices, max_assignments: int) -> Program:
    """Return the program with multiplicities on some of its plates.

    Counts vary over the plate, and over the plates around it too or only. A plate that rows point
    to has none. At least one plate has counts where the bound allows.
    """
    targets = {plate.rows_of for plate in program.plates.values()}
    names = [p.name for p in program.plates.values() if not p.is_bare and p.name not in targets]
    used = {name for site in program.sites for name in site.plates}
    names = [name for name in names if name in used]
    for name in names:
        if (program.counts or name != names[-1]) and not choices.chance(0.6):
            continue
        chain = _chain(program.plates, name)
        over = choices.pick([chain[-1:], chain, chain[:-1] or chain])
        shape = aligned_shape([program.plates[p] for p in over])
        for high in (3, 2):
            counts = choices.numbers.integers(1, high + 1, size=shape).astype(float)
            counts.flat[0] = 2
            key = f"counts_{name}"
            candidate = replace(
                program,
                arrays=program.arrays | {key: Array(counts, over)},
                counts=program.counts | {name: key},
            )
            if expanded(candidate).num_assignments <= max_assignments:
                program = candidate
                break
    return program
