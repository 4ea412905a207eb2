"""What one step of EM on a model cannot do without, as a function of the sizes of a row.

Counted are products of numbers that no arrangement saves, data that are read once, and one
exponential for each posterior probability that is not a ratio of products, with one logarithm for
each element whose likelihood is summed. Parameters are small, and not counted.
"""

from collections.abc import Callable, Mapping

from experiments.benchmarks.row import Row, Work


def mixture(num_samples: int, num_statistics: int, num_components: int, numbers: float) -> Work:
    """Return the work of logits = statistics @ table, their softmax, and statisticsᵀ @ softmax."""
    each = num_samples * num_components
    return Work(2 * each * num_statistics, numbers, each + num_samples)


def gaussian_full(sizes: Mapping) -> Work:
    """Return the work of a full mixture, whose statistics are x_i x_j for i ≥ j, x, and 1."""
    n, d = sizes["num_samples"], sizes["num_features"]
    return mixture(n, d * (d + 1) // 2 + d + 1, sizes["num_components"], n * d)


def gaussian_diagonal(sizes: Mapping) -> Work:
    """Return the work of a diagonal mixture, whose statistics are x², x, and 1."""
    n, d = sizes["num_samples"], sizes["num_features"]
    return mixture(n, 2 * d + 1, sizes["num_components"], n * d)


def dawid_skene(sizes: Mapping) -> Work:
    """Return the work of Dawid–Skene: item, annotator and label are read once."""
    items = sizes["num_items"]
    labels = items * sizes["labels_each"]
    return Work(transcendentals=items * (sizes["num_classes"] + 1), indices=3 * labels)


def latent_class(sizes: Mapping) -> Work:
    """Return the work of latent classes; that of all rows, though equal ones might be added up."""
    people, items = sizes["num_people"], sizes["num_items"]
    return mixture(people, items + 1, sizes["num_classes"], people * items)


def words(sizes: Mapping) -> tuple[float, float]:
    """Return how many rows (document, word, count) there are at most, and topics."""
    return sizes["num_documents"] * sizes["document_length"], sizes["num_topics"]


def plsa(sizes: Mapping) -> Work:
    """Return the work of pLSA: one sum over topics for each row, and its two derivatives."""
    rows, topics = words(sizes)
    return Work(3 * rows * topics, rows, 0, 2 * rows)


def multinomials(sizes: Mapping) -> Work:
    """Return the work of the mixture: counts times log-probabilities, and what is expected."""
    rows, topics = words(sizes)
    documents, table = sizes["num_documents"], topics * sizes["num_words"]
    return Work(2 * rows * topics, rows, documents * (topics + 1) + table, 2 * rows)


def hmm_categorical(sizes: Mapping) -> Work:
    """Return the work of a chain: a matrix product forward, backward, and of expected moves."""
    steps = sizes["num_sequences"] * sizes["sequence_length"]
    return Work(3 * steps * sizes["num_states"] ** 2, 0, steps, steps)


def hmm_gaussian(sizes: Mapping) -> Work:
    """Return the work of the chain and of the densities of points with independent features."""
    steps = sizes["num_sequences"] * sizes["sequence_length"]
    states, features = sizes["num_states"], sizes["num_features"]
    seen = mixture(steps, 2 * features + 1, states, steps * features)
    return seen._replace(multiply_adds=seen.multiply_adds + 3 * steps * states**2)


def factor_analysis(sizes: Mapping) -> Work:
    """Return the work on second moments of the data: their product with the gain."""
    features, factors = sizes["num_features"], sizes["num_factors"]
    return Work(features**2 * factors + 2 * features * factors**2, features**2)


def counted_factor_analysis(sizes: Mapping) -> Work:
    """Return the work on rows: factors given x, their outer products, and those with x."""
    n, d, q = sizes["num_samples"], sizes["num_features"], sizes["num_factors"]
    return Work(n * (2 * d * q + q * (q + 1) / 2), n * (d + 1))


def linear_mixed_model(sizes: Mapping) -> Work:
    """Return the work on sums over groups, with two random effects: means, and covariances."""
    groups, columns = sizes["num_groups"], sizes["num_fixed"] + 1
    return Work(groups * (4 * columns + 20), groups * (2 * columns + 3))


WORK: dict[str, Callable[[Mapping], Work]] = {
    "gaussian_full": gaussian_full,
    "gaussian_diagonal": gaussian_diagonal,
    "gaussian_1d": gaussian_diagonal,
    "dawid_skene": dawid_skene,
    "latent_class": latent_class,
    "plsa": plsa,
    "multinomials": multinomials,
    "hmm_categorical": hmm_categorical,
    "hmm_gaussian": hmm_gaussian,
    "factor_analysis": factor_analysis,
    "counted_factor_analysis": counted_factor_analysis,
    "linear_mixed_model": linear_mixed_model,
}


def work_of(row: Row) -> Work | None:
    """Return what a step of the row cannot do without, where that is known."""
    function = row.work or WORK.get(row.model)
    return function(row.sizes) if function else None
