"""Random programs of time: linear Gaussian state spaces, alone or side by side."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.oracles.random_gaussian_programs import Builder, GaussianProgram, within
from tests.oracles.random_programs import Choices

NUM_STEPS, NUM_SEQUENCES = 4, 2


def random_series(choices: Choices) -> GaussianProgram:
    """Return a random program with a scan over a Gaussian latent."""
    series = Series(Builder(choices), choices.chance(0.6), choices.chance(0.6))
    series.add_label()
    series.add_first()
    series.add_state()
    for number in range(choices.pick([1, 1, 2])):
        series.add_observed(number)
    series.add_scan()
    labels = ["z"] if series.at else []
    vectors = series.latents if series.is_vector else []
    # the last axis of every latent numbers the sequences
    reads = {(latent, "z"): series.path(latent) for latent in series.latents}
    return series.builder.program(series.lines, series.latents, labels, vectors, reads)


@dataclass
class Series:
    """The parts of a program of time.

    - `is_vector`: whether the state has two coordinates.
    - `is_plate`: whether there are several sequences.
    - `xs`: the arrays of the data that the scan runs over.
    - `at`: what chooses among tables, "[z]": the cluster of a sequence, or of all.
    - `is_where`: whether the first state is told by its time.
    """

    builder: Builder
    is_vector: bool
    is_plate: bool
    lines: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    latents: list[str] = field(default_factory=lambda: ["f"])
    xs: list[str] = field(default_factory=list)
    at: str = ""
    is_cluster: bool = False
    is_where: bool = False
    carry: str = ""

    @property
    def choices(self) -> Choices:
        return self.builder.choices

    @property
    def batch(self) -> tuple[int, ...]:
        return (NUM_SEQUENCES,) if self.is_plate else ()

    @property
    def event(self) -> tuple[int, ...]:
        return (2,) if self.is_vector else ()

    @property
    def plate(self) -> str:
        return f'numpyro.plate("sequences", {NUM_SEQUENCES})' if self.is_plate else ""

    def moving(self, name: str, values) -> str:
        """Return the text of an array's entry at the present step."""
        self.builder.array(name, values)
        self.xs.append(name)
        return f'now["{name}"]'

    def add_label(self) -> None:
        """Add the cluster of each sequence, or one for all."""
        if not self.choices.chance(0.3):
            return
        law = f"dist.Categorical({self.builder.table('simplex', (2,))})"
        contexts = self.plate if self.choices.chance(0.7) else ""
        self.lines += within(contexts, [f'z = numpyro.sample("z", {law})'])
        self.at, self.is_cluster = "[z]", bool(contexts)

    def path(self, latent: str) -> str | None:
        """Return the index that takes sequences to elements of a latent; None of one for all."""
        if not self.is_cluster:
            return None
        return f"[None].repeat({NUM_STEPS}, 0)" if latent == "f" else ""

    def chosen(self) -> tuple[str, tuple[int, ...]]:
        """Return what chooses among tables, and how many there are: nothing, and one, by chance."""
        return (self.at, (2,)) if self.at and self.choices.chance(0.6) else ("", ())

    def add_first(self) -> None:
        """Say how the first state is drawn: in the step, from a known one, or before the scan."""
        form = self.choices.pick(["where", "where", "known", "before"])
        shape = (*self.batch, *self.event)
        self.carry = f"jnp.zeros({shape})"
        if form == "known":
            self.carry = self.builder.table("real", shape)
        if form == "before":
            mean = self.builder.table("real", self.event)
            law = self.builder.normal(1, mean, self.is_vector)
            self.lines += within(self.plate, [f'first = numpyro.sample("first", {law})'])
            self.carry, self.latents = "first", ["first", "f"]
        self.is_where = form == "where"

    def add_state(self) -> None:
        """Add the statement that draws a state."""
        mean = self.transition()
        if self.choices.chance(0.3):
            inputs = self.moving(
                "u", self.choices.numbers.normal(size=(NUM_STEPS, *self.batch)).round(2)
            )
            inputs += "[..., None]" if self.is_vector else ""
            mean += f" + {self.builder.table('real', self.event)} * {inputs}"
        if self.is_where:
            mean = f'jnp.where(now["t"] == 0, {self.builder.table("real", self.event)}, {mean})'
        at, _ = self.chosen()
        law = self.builder.normal(2, mean, self.is_vector, at)
        if self.is_where and not at and self.choices.chance(0.5):
            law = self.with_other_spread(law)
        self.body.append(f'f = numpyro.sample("f", {law})')

    def with_other_spread(self, law: str) -> str:
        """Return the law with a spread of its own at the first step."""
        for kind, shape, opening in (
            ("positive", self.event, "dist.Normal("),
            ("covariance", (2, 2), "covariance_matrix="),
            ("covariance", (2, 2), "precision_matrix="),
            ("scale_tril", (2, 2), "scale_tril="),
        ):
            if opening not in law:
                continue
            closing = law.rindex(").to_event(1)") if ".to_event" in law else law.rindex(")")
            start = law.rindex(", " if opening == "dist.Normal(" else "=", 0, closing)
            start += 2 if opening == "dist.Normal(" else 1
            spread, first = law[start:closing], self.builder.table(kind, shape)
            return f'{law[:start]}jnp.where(now["t"] == 0, {first}, {spread}){law[closing:]}'
        return law

    def transition(self) -> str:
        """Return the mean of a state given the one before."""
        table, (at, size) = self.builder.table, self.chosen()
        if not self.is_vector:
            options = ["previous", f"{table('real', size)}{at} * previous"]
            return self.choices.pick(options)
        form = self.choices.pick(["walk", "matrix", "matrix", "einsum", "moving"])
        if form == "walk":
            return "previous"
        if form == "matrix":
            return f"previous @ {table('real', (2, 2))}.T"
        if form == "moving":
            values = self.choices.numbers.normal(size=(NUM_STEPS, 2, 2)).round(2)
            return f"previous @ {self.moving('A', values)}.T"
        matrix = f"{table('real', (*size, 2, 2))}{at}"
        return f'jnp.einsum("...ij,...j->...i", {matrix}, previous)'

    def add_observed(self, number: int) -> None:
        """Add a site that is observed at each step."""
        numbers, table, (at, size) = self.choices.numbers, self.builder.table, self.chosen()
        is_vector, name = self.choices.chance(0.4), f"x{number}"
        event = (2,) if is_vector else ()
        match self.is_vector, is_vector:
            case True, True:
                matrix = f"{table('real', (*size, 2, 2))}{at}"
                part = self.choices.pick(["f", f'jnp.einsum("...ij,...j->...i", {matrix}, f)'])
            case True, False:
                part = self.choices.pick(["f[..., 0]", f"f @ {table('real', (2,))}"])
            case False, True:
                part = f"f[..., None] * {table('real', (*size, 2))}{at}"
            case _:
                part = self.choices.pick(["f", f"{table('real', size)}{at} * f"])
        mean = f"{table('real', event)} + {part}"
        law = self.builder.normal(2, mean, is_vector, self.chosen()[0])
        values = 1.5 * numbers.normal(size=(NUM_STEPS, *self.batch, *event))
        statement = f'numpyro.sample("{name}", {law}, obs={self.moving(name, values.round(2))})'
        contexts = ""
        if self.choices.chance(0.3):
            given = numbers.random((NUM_STEPS, *self.batch)) < 0.7
            contexts = f"mask(mask={self.moving(f'm{number}', given)})"
        self.body += within(contexts, [statement])

    def add_scan(self) -> None:
        """Put the step together."""
        ends = ""
        if self.is_plate and self.choices.chance(0.25):
            lengths = self.choices.numbers.integers(1, NUM_STEPS + 1, NUM_SEQUENCES)
            ends = f', mask(mask=now["t"] < {self.builder.array("lengths", lengths)})'
        body = within(f"{self.plate}{ends}", self.body)
        entries = ", ".join(f'"{name}": data["{name}"]' for name in self.xs)
        self.lines += ["def step(previous, now):"]
        self.lines += [f"    {line}" for line in [*body, "return f, None"]]
        xs = f'{{"t": jnp.arange({NUM_STEPS}), {entries}}}'
        reverse = (
            ", reverse=True" if not self.is_where and not ends and self.choices.chance(0.2) else ""
        )
        self.lines.append(f"scan(step, {self.carry}, {xs}{reverse})")
