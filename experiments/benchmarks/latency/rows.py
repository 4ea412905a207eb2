"""What is asked, in the order of the table."""

from typing import NamedTuple


class Work(NamedTuple):
    """Something that is asked of a process which has only been imported.

    - `name`, `title`: on the command line, and in the table.
    - `peer`: the library that does the same work; empty if none does.
    - `is_cached`: whether a process before it has filled JAX's persistent cache.
    """

    name: str
    title: str
    peer: str = ""
    is_cached: bool = False


TABLE = (
    Work("first", "iris, a mixture of 3 full Gaussians: first fit", "scikit-learn"),
    Work("third", "the same fit for the third time", "scikit-learn"),
    Work("rows", "the same program on 149, 120, 90 rows", "scikit-learn"),
    Work("second", "a second `EM` of the same program; with another `tol`", "scikit-learn"),
    Work("posterior", "`posterior` of 10, 11, 12, 13 new rows", "scikit-learn"),
    Work("sample_posterior", "`sample_posterior`, 100 draws; again, with another key"),
    Work("saved", "`save`; `load`; `posterior` of the loaded fit; `export`"),
    Work("summary", "`summary`; again"),
    Work("diagnose", "`diagnose`"),
    Work("standard_errors", "`standard_errors`, from the information"),
    Work("chain", "hidden Markov model, 500 steps, 3 states: first fit", "hmmlearn"),
    Work("length", "the same on 480 steps", "hmmlearn"),
    Work("chain_draws", "`sample_posterior` of the chain, 100 draws; again, with another key"),
    Work(
        "likelihood_ratio",
        "`bootstrap_likelihood_ratio` of 1 and 2 Gaussians, 100 replicates; again",
    ),
    Work("choose", "`choose` of latent classes, K = 1 … 4, 5 folds, 500 × 6 answers"),
    Work("regressions", "a mixture of 2 regressions with priors, 200 rows, 10 starts"),
    Work(
        "cache",
        "iris, first fit of a second process, with JAX's persistent cache",
        "scikit-learn",
        is_cached=True,
    ),
)
WORKS = {work.name: work for work in TABLE}
