"""docs/programs.md, written from what was measured."""

import importlib.metadata
from pathlib import Path

from tests.programs_of_others.measure import NUM_STARTS, Row

PAGE = Path(__file__).parents[2] / "docs" / "programs.md"
HEAD = """# Programs of other people

Programs that others published, with their constructs at the places where they have them, in our own
words, on small data. Each log-density is that of an oracle, and each fit ends where SciPy does that
knows nothing of EM. This page is written by a program:

```bash
pip install ".[tests]"
python -m tests.programs_of_others --write
```

**At a point.** log p(data, θ) in nats, latents summed out, at parameters drawn by a seed: by emjax,
and by the oracle. *funsor* is `numpyro.contrib.funsor.log_density`; *ELBO* is NumPyro's
`TraceEnum_ELBO`, with nothing in the guide; *joint table* adds up NumPyro's `log_prob` over all
values of all latents (`tests/oracles/brute_force.py`).

**At the maximum.** The objective where EM ends (`EM(model)`, with restarts where there are many
optima), and the largest of {starts} runs of SciPy's L-BFGS-B on the oracle's density, in
unconstrained coordinates. "In logits": the mode in these coordinates,
`EM(map="unconstrained")`, where the density that the program states has none; it includes
log |dθ/du|, so that it is not to be compared with the density at the point. Then the status, the
steps, and of which kind the findings are (`result.findings`).

**Versions.** {versions}.
"""

NOTES = {
    "NumPyro's `examples/capture_recapture.py`": """
An animal is alive or dead (z), and captured only if alive; what is before its first capture is
masked. In double precision the carry has to be `dtype=int`, for NumPyro as for emjax, which says
so.

- **They do not mean what their authors say.** The mask is around z, too, and is that of the year
  *before*: in the year of its first capture an animal's z is masked, and a masked latent is as if
  it were not there, uniform over its values (to NumPyro as well, whose density differs by a
  constant). So an animal counts as dead with probability 1/2 in the year in which it is first seen,
  and one that is never seen again has probably been dead from the start: it tells nothing of
  survival, which comes out too large. The data here are simulated with survival 0.55 and 0.7, of
  either sex, and recapture 0.8. Model 1 says 0.71 and 0.83. With z outside of the mask ("as
  meant") it says 0.62 and 0.79, and its likelihood is that of Cormack, Jolly and Seber, written by
  hand. Before the first capture z is 1 by its own probability, so that it needs no mask.
- Model 3 has a spread of random effects, and all effects under a standard normal. The mode over
  both takes the spread to its bound (10), and the effects to nothing: a mode is no estimate of a
  spread. EM says that it ended on the bound.""",
    "NumPyro's `examples/hmm_enum.py`, without priors": """
`include_prior=False` masks the priors: `handlers.mask(mask=False)`. Models 0 and 5 are those of the
example of Pyro that it is ported from; 0 is a loop, and 5 has a small network. Few data take
probabilities to 0 and 1, and weights of the network to infinity. There are many optima: of 20
starts (of model 5, 60), EM's best is better than SciPy's best of 8 in models 3 and 4.""",
    "NumPyro's `examples/hmm_enum.py`, with priors": """
Beta(0.1, 0.9) and Dirichlet(0.1, 1) have no finite mode: their density is infinite where a
probability is 0. All in logits.""",
    "NumPyro's `examples/annotation.py`": """
MACE trusts under Beta(1/2, 1/2), which has no finite mode: in logits. The three with random effects
estimate the effect of each annotator or item by MAP, together with its spread. The last loses a
class on its way, and there EM is slow: its steps gain less than `tol` at 3e-4 nats from the
maximum.""",
    "NumPyro's tutorial of Gaussian mixtures": """
Under Dirichlet(1/2, 1/2), in logits.""",
    "NumPyro's tutorials of truncated and of zero-inflated data": """
Most have no latent: EM is one M-step then. The Poisson of one's own is truncated at a latent bound;
a count below the bound has probability zero.""",
    "NumPyro's `test_enum_elbo.py`": """
The models of these tests, without their guides. With `handlers.scale` and where latents are masked,
NumPyro's `TraceEnum_ELBO` and emjax agree: c copies of the row, and no latent. `log_density`, also
of NumPyro, counts a masked latent once for each of its values, and scales within the sum; the
constant is taken off here. `plates_6` is "intractable" to NumPyro, which wants one of the crossed
plates as a loop.

Two of its tests are no programs of EM, and say so: `guide_plate_contraction` has a latent Poisson,
whose support has no end; the `subsample` tests, which expect an error of NumPyro, are here with all
of their data.""",
    "NumPyro's `test_infer_discrete.py`": """
In `model2` the prior of a parameter reads a latent: the objective has it inside the sum.""",
    "Pyro's tutorial of enumeration": """
What is "invalid" cannot be enumerated by Pyro: a latent in a plate that something outside depends
on, and crossed plates. (NumPyro's `log_density` does not refuse the first, and is wrong: −14.96.)
The mixture and the time series have Dirichlet priors of 1/2: in logits.""",
}

COLUMNS = "| program | at a point | oracle | at the maximum | SciPy | status | steps | findings |"
ALIGNED = "| --- | ---: | ---: | ---: | ---: | --- | ---: | --- |"
LIBRARIES = ("numpyro", "funsor", "jax", "scipy")


def page(rows: list[Row]) -> str:
    """Return the page: a table for each source, and what there is to say of it."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    text = HEAD.format(starts=NUM_STARTS, versions=versions)
    for source in dict.fromkeys(row.source for row in rows):
        of_source = [as_line(row) for row in rows if row.source == source]
        table = "\n".join([COLUMNS, ALIGNED, *of_source])
        text += f"\n## {source}\n{NOTES[source]}\n\n{table}\n"
    return text


def as_line(row: Row) -> str:
    """Return a row as Markdown."""
    cells = [
        row.name,
        f"{row.log_density:.8f}",
        f"{row.by_oracle:.8f} ({row.oracle})",
        f"{row.maximum:.6f}",
        f"{row.by_scipy:.6f}",
        row.status,
        str(row.num_steps),
        ", ".join(row.findings) or "–",
    ]
    return f"| {' | '.join(cells)} |"


def cells_of(text: str) -> dict[tuple[str, str], list[str]]:
    """Return what a page says of each program: by source and name, the cells of its row."""
    found, source = {}, ""
    for line in text.splitlines():
        if line.startswith("## "):
            source = line.removeprefix("## ")
        elif line.startswith("| ") and line not in (COLUMNS, ALIGNED):
            name, *cells = (cell.strip() for cell in line.strip("|").split(" | "))
            found[source, name] = cells
    return found
