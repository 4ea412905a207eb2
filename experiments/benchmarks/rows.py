"""The rows of the table: models, sizes, who takes part, and goals beside those of every row."""

from experiments.benchmarks import rows_chains, rows_linear, rows_mixtures
from experiments.benchmarks.row import BOTH, F32, F64, READING, Goal, Limits, Row

OURS = {"emjax": BOTH, "hand-written JAX": BOTH}
PRODUCTS = tuple(Goal(1 / 1.3, "matrix products alone", precision) for precision in BOTH)
MIXTURES = OURS | {"scikit-learn": BOTH, "gmmx": F32, "pomegranate": F32}
WORDS = {"num_documents": 2_000, "num_words": 5_000, "num_topics": 20, "document_length": 100}
FEW_WORDS = {"num_documents": 100, "num_words": 200, "num_topics": 4, "document_length": 50}
CROWD = {"num_items": 10_000, "num_annotators": 200, "num_classes": 5, "labels_each": 5}
DISTINCT = "hand-written JAX, distinct rows"
CHAINS = OURS | {
    "hmmlearn, scaling": F64,
    "hmmlearn, log": F64,
    "dynamax": F64,
    "dynamax, fit_em": F64,
    "pomegranate": F32,
}

TABLE = (
    Row(
        "full16",
        "Gaussian mixture, full",
        "gaussian_full",
        {"num_samples": 200_000, "num_features": 16, "num_components": 16},
        {"num_samples": 4_000, "num_features": 4, "num_components": 4},
        (2, 8),
        MIXTURES | {"matrix products alone": BOTH},
        PRODUCTS,
    ),
    Row(
        "full64",
        "Gaussian mixture, full",
        "gaussian_full",
        {"num_samples": 20_000, "num_features": 64, "num_components": 10},
        {"num_samples": 2_000, "num_features": 33, "num_components": 3},
        (2, 12),
        MIXTURES | {"matrix products alone": BOTH},
        PRODUCTS,
    ),
    Row(
        "diagonal",
        "Gaussian mixture, diagonal",
        "gaussian_diagonal",
        {"num_samples": 500_000, "num_features": 32, "num_components": 32},
        {"num_samples": 4_000, "num_features": 4, "num_components": 4},
        (2, 8),
        OURS | {"scikit-learn": BOTH, "gmmx": F32},  # pomegranate takes 15 s a step
    ),
    Row(
        "line",
        "Gaussian mixture, one dimension",
        "gaussian_1d",
        {"num_samples": 1_000_000, "num_features": 1, "num_components": 5},
        {"num_samples": 4_000, "num_components": 3},
        (2, 12),
        MIXTURES,
    ),
    Row(
        "dawid_skene",
        "Dawid–Skene",
        "dawid_skene",
        CROWD,
        {"num_items": 300, "num_annotators": 20, "num_classes": 3},
        (5, 45),
        OURS | {"crowd-kit": F64, "NumPy": F64},
    ),
    Row(
        "latent_class",
        "latent class",
        "latent_class",
        {"num_people": 100_000, "num_items": 20, "num_classes": 6},
        {"num_people": 2_000, "num_items": 6, "num_classes": 3},
        (2, 20),
        OURS
        | {
            "emjax, compressed": BOTH,
            DISTINCT: BOTH,
            "StepMix": F64,
            "NumPy": F64,
            "NumPy, distinct rows": F64,
        },
    ),
    Row(
        "plsa",
        "pLSA",
        "plsa",
        WORDS,
        FEW_WORDS,
        (2, 22),
        OURS | {"enstop": F32, "SciPy": F64, "scikit-learn NMF": F64, "tomotopy": F64},
        note="by hand each document is a padded row, so that its shares are neither looked up nor "
        "added up cell by cell; emjax takes cells (document, word, count) in any order",
    ),
    Row(
        "multinomials",
        "mixture of multinomials",
        "multinomials",
        WORDS,
        FEW_WORDS,
        (2, 42),
        OURS | {"SciPy": F64, "dynamax": F64, "NumPy, dense": F64},
    ),
    Row(
        "hmm_categorical",
        "hidden Markov model, categorical",
        "hmm_categorical",
        {"num_sequences": 64, "sequence_length": 1_000, "num_states": 32, "num_symbols": 64},
        {"num_sequences": 4, "sequence_length": 60, "num_states": 3, "num_symbols": 5},
        (1, 5),
        {name: precisions for name, precisions in CHAINS.items() if name != "pomegranate"},
        note="pomegranate is left out: it takes 20 s a step",
    ),
    Row(
        "hmm_gaussian",
        "hidden Markov model, Gaussian, diagonal",
        "hmm_gaussian",
        {"num_sequences": 32, "sequence_length": 2_000, "num_states": 16, "num_features": 8},
        {"num_sequences": 4, "sequence_length": 60, "num_states": 3, "num_features": 2},
        (2, 8),
        CHAINS,
    ),
)


def points(name: str, num_samples: int, quick: int, steps: tuple[int, int], *others: str) -> Row:
    """Return a row of the series in N: a full mixture of 16 components in 8 dimensions, float32."""
    sizes = {"num_samples": num_samples, "num_features": 8, "num_components": 16, "single": True}
    contestants = dict.fromkeys(("emjax", *others), F32)
    return Row(
        name,
        "Gaussian mixture, full",
        "gaussian_full",
        sizes,
        {"num_samples": quick},
        steps,
        contestants,
    )


LARGE = (
    points("points10k", 10_000, 500, (2, 42)),
    points("points100k", 100_000, 1_000, (2, 22)),
    points("points1m", 1_000_000, 2_000, (2, 8)),
    points("points5m", 5_000_000, 4_000, (1, 4)),
    points("points20m", 20_000_000, 8_000, (1, 4), "hand-written JAX")._replace(limits=Limits(1.0)),
    Row(
        "labels10m",
        "Dawid–Skene",
        "dawid_skene",
        {"num_items": 1_000_000, "num_annotators": 20_000, "num_classes": 5, "labels_each": 10},
        {"num_items": 1_000, "num_annotators": 50},
        (2, 12),
        {"emjax": F64, "hand-written JAX": F64, "NumPy": F64},
        (Goal(1 / 2, READING, "float64"),),
        Limits(3.0, 1.5),
        note="to read its data once takes less than half of what its exponentials take, and every "
        "label reads a row of a table that its annotator and answer pick; by hand labels are laid "
        "out by item beforehand, and nothing is added up by item; emjax takes them in any order",
    ),
    Row(
        "hmm_series",
        "hidden Markov model, one long series",
        "hmm_gaussian",
        {"num_sequences": 1, "sequence_length": 1_000_000, "num_states": 8, "num_features": 1},
        {"sequence_length": 2_000, "num_states": 3},
        (1, 4),
        {"emjax": F64, "hand-written JAX": F64, "hmmlearn, scaling": F64, "hmmlearn, log": F64},
        limits=Limits(1.0),
    ),
)
SERIES = tuple(row.name for row in LARGE if row.name.startswith("points"))
OTHERS = *rows_chains.TABLE, *rows_mixtures.TABLE, *rows_linear.TABLE
ROWS = {row.name: row for row in (*TABLE, *LARGE, *OTHERS)}


def named(names: list[str]) -> list[Row]:
    """Return the rows of these names, or all of them.

    `points20m` brings the smaller sizes with it.
    """
    chosen = [member for name in names for member in (SERIES if name == "points20m" else (name,))]
    return [ROWS[name] for name in dict.fromkeys(chosen)] if names else list(ROWS.values())


def described(sizes: dict) -> str:
    """Return the sizes in words."""
    match sizes:
        case {"num_samples": n, "num_features": d, "num_factors": q}:
            return f"{n:,} × {d}, q = {q}"
        case {"num_rows": n, "num_groups": g, "num_fixed": p}:
            return f"{n:,} rows, {g:,} groups, {p} fixed effects, 2 random ones"
        case {"num_steps": t, "num_states": q, "num_features": d}:
            return f"{t:,} steps × {d}, q = {q}"
        case {"num_samples": n, "num_features": d, "num_components": k, "num_starts": s}:
            return f"{n:,} × {d}, K = {k}, {s} starts"
        case {"num_sequences": n, "longest": t, "width": w}:
            return f"{n:,} sequences of at most {t} letters, {w} columns"
        case {"num_samples": n, "num_features": 1, "num_components": k}:
            return f"{n:,}, K = {k}"
        case {"num_samples": n, "num_features": d, "num_components": k}:
            return f"{n:,} × {d}, K = {k}"
        case {"num_items": i, "num_annotators": a, "num_classes": c, "labels_each": each}:
            return f"{i:,} items, {a:,} annotators, {c} classes, {each} labels each"
        case {"num_people": n, "num_items": i, "num_classes": c}:
            return f"{n:,} × {i} binary items, K = {c}"
        case {"num_documents": d, "num_words": v, "num_topics": k, "document_length": each}:
            return f"{d:,} × {v:,} words, about {each} tokens a document, K = {k}"
        case {"num_sequences": n, "sequence_length": t, "num_states": k, "num_symbols": v}:
            return f"{n:,} sequences × {t:,} steps, {v} symbols, K = {k}"
        case {"num_sequences": 1, "sequence_length": t, "num_states": k, "num_features": 1}:
            return f"{t:,} steps, K = {k}"
        case {"num_sequences": n, "sequence_length": t, "num_states": k, "num_features": d}:
            return f"{n:,} sequences × {t:,} steps × {d}, K = {k}"
        case {"num_sequences": n, "sequence_length": t, "num_states": k}:
            return f"{n:,} sequences × {t:,} steps, K = {k}"
    return ", ".join(f"{name} = {value}" for name, value in sizes.items())
