"""How many passes over large data does EM need, if it takes a step after each minibatch?

A run with `batch_size` begins with online EM (Cappé & Moulines, 2009): an M-step after each batch,
at running averages of the expected statistics. From where that leads, accelerated EM on all data
goes on. Mixtures that overlap, with components that are common and rare, and rows that come sorted;
and topics, beside scikit-learn's online LDA. Read first: `mixtures.py`.

    python -m experiments online                 # mixtures of 200,000 rows, and topics
    python -m experiments.online --rows 1000000  # mixtures of a million

Source: Cappé & Moulines (2009), "On-line expectation-maximization algorithm for latent data
models", J. R. Stat. Soc. B 71; Hoffman, Blei & Bach (2010), "Online learning for latent Dirichlet
allocation", NIPS 23.
"""

from pathlib import Path

from experiments import report
from experiments.online import corpora, figures, mixtures


def run(output: Path, quick: bool) -> None:
    """Print the tables, draw the figures."""
    if quick:
        # so few rows are worth few batches, and what is saved is little
        race(output, 10_000, mixtures.KINDS[:1], (mixtures.PLAIN, mixtures.BOTH))
        return
    race(output, 200_000)
    by_corpus = {}
    for name in corpora.CONCENTRATIONS:
        by_corpus[name] = corpora.curves(corpora.corpus(name, quick), quick)
    print_perplexities(by_corpus)
    figures.draw_perplexities(output / "topics.png", by_corpus)


def race(
    output: Path,
    num_rows: int,
    kinds: tuple[mixtures.Kind, ...] = mixtures.KINDS,
    methods: tuple[str, ...] = tuple(mixtures.SETTINGS),
) -> None:
    """Print how some methods do on mixtures of so many rows, and draw it."""
    by_kind = mixtures.races(num_rows, kinds, methods)
    print_races(by_kind)
    figures.draw_gaps(output / "passes.png", by_kind)


def print_races(by_kind: dict[str, dict[str, mixtures.Race]]) -> None:
    """Print, method by method, how many passes it takes to come near its own optimum."""
    report.heading("Mixtures of 16 Gaussians in 8 dimensions, from one start")
    rows = []
    for kind, by_method in by_kind.items():
        plain = by_method[mixtures.PLAIN]
        for method, race in by_method.items():
            rows.append(
                [
                    kind if method == mixtures.PLAIN else "",
                    method,
                    str(race.num_batched),
                    str(race.passes_to(mixtures.NEAR)),
                    str(race.num_batched + len(race.objective)),
                    f"{race.objective[-1] - plain.objective[-1]:+.4f}",
                    f"{race.seconds:.1f}",
                    race.outcome,
                ]
            )
    columns = [
        "data", "method", "online passes", "passes to 1e-3", "in all", "end, above plain EM's",
        "seconds", "ended",
    ]  # fmt: skip
    report.table(
        columns,
        rows,
        "Passes until the objective is within 1e-3 nats a row of where the run itself ends, the "
        "online ones among them, and the E-step that tells the objective. Ends are in nats a row: "
        "where they differ by more than 1e-3, they are different optima. Seconds with compilation.",
    )


def print_perplexities(by_corpus: dict[str, dict[str, list[corpora.Point]]]) -> None:
    """Print the perplexity of words held out, and what it took."""
    report.heading("Topics: the perplexity of words held out")
    rows = []
    for name, by_method in by_corpus.items():
        for method, points in by_method.items():
            for point in points:
                perplexity, seconds = f"{point.perplexity:.1f}", f"{point.seconds:.2f}"
                rows.append([name, method, point.effort, perplexity, seconds])
    report.table(
        ["documents", "method", "work", "perplexity", "seconds"],
        rows,
        "Half of the words of documents that no method was trained on are given, and the others "
        "are to be told. Seconds of a run, with what is compiled in it, without the evaluation.",
    )
