"""Random programs of rows: groups, regions, items that cross them, factors of each row, labels."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.oracles.random_gaussian_programs import Builder, GaussianProgram, within
from tests.oracles.random_programs import Choices

SIZES = {"regions": 2, "groups": 3, "items": 2, "rows": 6}
PARENTS = {
    "alone": {"rows": ()},
    "grouped": {"rows": ("groups",), "groups": ()},
    "nested": {"rows": ("groups",), "groups": ("regions",), "regions": ()},
    "crossed": {"rows": ("groups", "items"), "groups": (), "items": ()},
    "table": {"rows": ("groups", "items"), "groups": (), "items": ()},
}
ELSEWHERE = ""  # in no plate


def random_rows(choices: Choices) -> GaussianProgram:
    """Return a random program of rows."""
    layout = choices.pick(list(PARENTS))
    rows = Rows(Builder(choices), layout, layout == "grouped" and choices.chance(0.3))
    rows.add_pointers()
    plates = [plate for plate in reversed(PARENTS[layout]) if plate != "rows"]
    occupied = [plate for plate in plates if choices.chance(0.75)] or plates[-1:]
    if not plates or (layout != "table" and choices.chance(0.3)):
        occupied.append("rows")
    rows.add_labels(occupied)
    for plate in occupied:
        rows.add_gaussian(plate)
        if choices.chance(0.25):
            rows.add_gaussian(plate)
    for number in range(choices.pick([1, 1, 2])):
        rows.add_observed(number)
    reads = {}
    for latent, plate in rows.gaussians.items():
        for label, other in rows.labels.items():
            reads[latent, label] = rows.path(plate, other) if other else None
    return rows.builder.program(rows.lines, rows.gaussians, rows.labels, rows.vectors, reads)


@dataclass
class Rows:
    """The parts of a program, written plate by plate.

    - `layout`: which plates there are. In a table, groups and items are its two axes.
    - `is_counted`: whether groups have multiplicities.
    - `gaussians`, `labels`: the plate of each latent.
    - `vectors`: the Gaussian latents whose elements have two coordinates.
    """

    builder: Builder
    layout: str
    is_counted: bool
    lines: list[str] = field(default_factory=list)
    gaussians: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    vectors: set[str] = field(default_factory=set)

    @property
    def choices(self) -> Choices:
        return self.builder.choices

    @property
    def is_table(self) -> bool:
        return self.layout == "table"

    def shape(self, plate: str) -> tuple[int, ...]:
        """Return the batch shape of what is drawn in a plate."""
        if not self.is_table or plate == ELSEWHERE:
            return (SIZES[plate],) if plate else ()
        groups, items = SIZES["groups"], SIZES["items"]
        return {"groups": (groups, 1), "items": (items,), "rows": (groups, items)}[plate]

    def context(self, plate: str) -> str:
        """Return the plate as it is opened, with the multiplicity of its elements."""
        if plate == ELSEWHERE:
            return ""
        if self.is_table:
            opened = {
                "groups": f'numpyro.plate("groups", {SIZES["groups"]}, dim=-2)',
                "items": f'numpyro.plate("items", {SIZES["items"]}, dim=-1)',
            }
            return opened.get(plate, ", ".join(opened.values()))
        size = SIZES[plate]
        if self.is_counted:
            size = 'len(data["counts"])' if plate == "groups" else 'len(data["group"])'
        opened = f'numpyro.plate("{plate}", {size})'
        if not self.is_counted:
            return opened
        scale = 'data["counts"]' + ('[data["group"]]' if plate == "rows" else "")
        return f"{opened}, scale(scale={scale})"

    def add_pointers(self) -> None:
        """Say which group, item and region everything is of, and how often a group is there."""
        numbers = self.choices.numbers
        if self.is_counted:
            counts = numbers.integers(1, 3, SIZES["groups"]).astype(float)
            self.builder.array("counts", counts, "groups")
        if self.is_table:
            return
        for plate, parents in PARENTS[self.layout].items():
            for parent in parents:
                at = numbers.integers(SIZES[parent], size=SIZES[plate])
                self.builder.array(parent[:-1], at, plate)

    def path(self, plate: str, other: str) -> str | None:
        """Return the index that takes elements of `plate` to those of `other`: "" for the same."""
        if other in (plate, ELSEWHERE):
            return ""
        for parent in PARENTS[self.layout].get(plate, ()):
            further = self.path(parent, other)
            if further is not None:
                return further if self.is_table else f'{further}[data["{parent[:-1]}"]]'
        return None

    def visible(self, plate: str, kinds: dict[str, str]) -> list[str]:
        """Return the latents that each element of a plate determines an element of."""
        return [name for name in kinds if self.path(plate, kinds[name]) is not None]

    def add_labels(self, occupied: list[str]) -> None:
        """Add discrete latents that every Gaussian element determines: of a plate, or of none."""
        options = [ELSEWHERE]
        for plate in PARENTS[self.layout]:
            if all(self.path(other, plate) is not None for other in occupied):
                options.append(plate)
        for number in range(self.choices.pick([0, 0, 1, 1, 2])):
            plate = self.choices.pick(options)
            if plate in self.labels.values():
                plate = ELSEWHERE  # two for each row would be 4,096 assignments
            name = f"z{number}"
            parents = self.visible(plate, self.labels)
            at = self.read(parents[0], plate) if parents and self.choices.chance(0.5) else ""
            probs = self.builder.table("simplex", (2, 2) if at else (2,))
            law = f"dist.Categorical({probs}[{at}])" if at else f"dist.Categorical({probs})"
            self.statement(plate, f'{name} = numpyro.sample("{name}", {law})')
            self.labels[name] = plate
            self.builder.plate_of[name] = plate

    def add_gaussian(self, plate: str) -> None:
        """Add a Gaussian latent, around what it reads of others."""
        name, is_vector = f"f{len(self.gaussians)}", self.choices.chance(0.5)
        above = self.visible(plate, self.gaussians)
        if self.layout in ("crossed", "table"):
            above = []
        read = [other for other in above if self.choices.chance(0.5)]
        mean = self.mean(plate, is_vector, read, name)
        law = self.builder.normal(2, mean, is_vector, self.at(plate))
        if not self.is_counted and self.choices.chance(0.2):
            law = f"{law}.expand({self.shape(plate)})"
        self.statement(plate, f'{name} = numpyro.sample("{name}", {law})')
        self.gaussians[name] = plate
        self.builder.plate_of[name] = plate
        if is_vector:
            self.vectors.add(name)

    def add_observed(self, number: int) -> None:
        """Add a site that is observed in each row."""
        choices, numbers, name = self.choices, self.choices.numbers, f"x{number}"
        is_vector = choices.chance(0.4)
        everything = self.visible("rows", self.gaussians)
        read = [other for other in everything if choices.chance(0.7)] or everything[-1:]
        if number and choices.chance(0.2):
            read = []  # a plain site beside the others
        mean = self.mean("rows", is_vector, read, name)
        law = self.builder.normal(2, mean, is_vector, self.at("rows"))
        shape = self.shape("rows")
        observed = 1.5 * numbers.normal(size=(*shape, 2) if is_vector else shape)
        if law.endswith(".to_event(1)") and choices.chance(0.4):
            given = self.builder.array(f"is{number}", numbers.random((*shape, 2)) < 0.7, "rows")
            law = law.replace(".to_event(1)", f".mask({given}).to_event(1)")
        at = self.builder.array(name, observed.round(2), "rows")
        contexts = self.context("rows")
        if choices.chance(0.25):
            given = self.builder.array(f"m{number}", numbers.random(shape) < 0.7, "rows")
            contexts += f", mask(mask={given})"
        if choices.chance(0.2):
            weight = numbers.integers(1, 4, shape).astype(float)
            contexts += f", scale(scale={self.builder.array(f'w{number}', weight, 'rows')})"
        self.lines += within(contexts, [f'numpyro.sample("{name}", {law}, obs={at})'])

    def statement(self, plate: str, line: str) -> None:
        self.lines += within(self.context(plate), [line])

    def read(self, name: str, plate: str) -> str:
        """Return the text of a latent as an element of a plate reads it."""
        kinds = self.gaussians if name in self.gaussians else self.labels
        return f"{name}{self.path(plate, kinds[name])}"

    def at(self, plate: str) -> str:
        """Return what chooses among tables: a label that is read, or nothing."""
        labels = self.visible(plate, self.labels)
        if not labels or self.choices.chance(0.4):
            return ""
        return f"[{self.read(self.choices.pick(labels), plate)}]"

    def mean(self, plate: str, is_vector: bool, read: list[str], name: str) -> str:
        """Return a mean: a table, a slope along a covariate, and a part for each latent read."""
        at, event = self.at(plate), (2,) if is_vector else ()
        parts = [f"{self.builder.table('real', (2, *event) if at else event)}{at}"]
        if self.choices.chance(0.3):
            covariate = self.covariate(plate, f"u_{name}") + ("[..., None]" if event else "")
            parts.append(f"{self.builder.table('real', event)} * {covariate}")
        parts += [self.part(plate, is_vector, other, name) for other in read]
        return " + ".join(parts)

    def covariate(self, plate: str, name: str, *event: int) -> str:
        """Return a known number, or vector, of each element of a plate."""
        values = self.choices.numbers.normal(size=(*self.shape(plate), *event))
        return self.builder.array(name, values.round(2), plate)

    def part(self, plate: str, is_vector: bool, other: str, name: str) -> str:
        """Return what a latent adds to a mean: it itself, or times something known."""
        source, at, table = self.read(other, plate), self.at(plate), self.builder.table
        size = (2,) if at else ()
        covariate = f"v_{name}_{other}"
        match other in self.vectors, is_vector, self.choices.integer(0, 5):
            case True, True, 0:
                return source
            case True, True, 1:
                return f"{source} * {table('real', (*size, 2))}{at}"
            case True, True, 2:
                return f"{source} @ {table('real', (2, 2))}"
            case True, True, 3:
                return (
                    f'jnp.einsum("...ij,...j->...i", {table("real", (*size, 2, 2))}{at}, {source})'
                )
            case True, True, 4:
                return f"({table('real', (*size, 2, 2))}{at} @ {source}[..., None])[..., 0]"
            case True, True, _:
                return f"{source}[..., ::-1] * {self.covariate(plate, covariate)}[..., None]"
            case True, False, 0 | 1:
                return f"{source}[..., 0]"
            case True, False, 2:
                return f"{source} @ {table('real', (2,))}"
            case True, False, 3 | 4:
                return f"({source} * {table('real', (*size, 2))}{at}).sum(-1)"
            case True, False, _:
                return f"({source} * {self.covariate(plate, covariate, 2)}).sum(-1)"
            case False, True, 0 | 1:
                return f"{source}[..., None]"
            case False, True, 2 | 3:
                return f"{source}[..., None] * {table('real', (*size, 2))}{at}"
            case False, True, _:
                return f"jnp.stack([{source}, {table('real', size)}{at} * {source}], -1)"
            case _, _, 0:
                return source
            case _, _, 1:
                return f"(1.0 - {source} / 2.0)"
            case _, _, 2 | 3:
                return f"{table('real', size)}{at} * {source}"
            case _, _, 4:
                return f"jnp.where({self.covariate(plate, covariate)} > 0, {source}, 0.0)"
            case _:
                return f"{self.covariate(plate, covariate)} * {source}"
