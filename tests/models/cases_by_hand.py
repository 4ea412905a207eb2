"""The joint of each program of `emjax.models` in `scipy.stats` terms, on data that one can list."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from emjax.models import (
    annotators,
    coins,
    dawid_skene,
    gaussian_mixture,
    grades,
    hidden_markov,
    k_means,
    latent_class,
    mixture_emission_hmm,
    motif,
    record_linkage,
    topics,
)

DOMAINS = {
    "real": lambda value, direction, size: value + size * direction,
    "positive": lambda value, direction, size: value * np.exp(size * direction),
    "interval": lambda value, direction, size: (
        value / (value + (1 - value) * np.exp(-size * direction))
    ),
    "half": lambda value, direction, size: DOMAINS["interval"](2 * value, direction, size) / 2,
    "simplex": lambda value, direction, size: _normalize(value * np.exp(size * direction)),
    "definite": lambda value, direction, size: _congruent(
        value, np.eye(value.shape[-1]) + size * direction
    ),
}


"""How to move a parameter by `size` along `direction` without leaving its domain."""


def _normalize(value):
    return value / value.sum(axis=-1, keepdims=True)


def _congruent(value, matrix):
    return matrix @ value @ matrix.swapaxes(-1, -2)


@dataclass(frozen=True)
class Case:
    """A program on small data, its update derived by hand, and its density written out a second
    time.
    """

    module: object
    program: Callable
    step: Callable  # (params, *args) -> params
    args: tuple
    latent: str | None
    observed: str
    domains: dict  # parameter -> key of DOMAINS
    start: dict
    log_joint: Callable  # params -> (row, value) table of log p(x_row, z_row = value)
    multiplicity: np.ndarray | None = None
    hard: bool = False
    latents: Callable | None = (
        None  # value of each row -> {latent: values}, where z is not the one latent itself
    )

    def next(self, params):
        return self.step(params, *self.args)


def log_joint(case, params):
    """Return log p(x, z) for every z, in the order of itertools.product."""
    table = np.asarray(case.log_joint(params))
    if case.multiplicity is not None:
        table = np.repeat(table, case.multiplicity, axis=0)
    num_rows, num_values = table.shape
    every_z = np.array(list(itertools.product(range(num_values), repeat=num_rows)))
    return table[np.arange(num_rows), every_z].sum(axis=1)


def log_likelihood(case, params):
    """Return log Σ_z p(x, z), or log max_z p(x, z) of a hard case."""
    joint = log_joint(case, params)
    return joint.max() if case.hard else np.logaddexp.reduce(joint)


def posterior_at(case, params):
    """Return p(z | x, params) of every z; one for the most probable z of a hard case."""
    joint = log_joint(case, params)
    return (
        np.eye(1, len(joint), joint.argmax())[0]
        if case.hard
        else np.exp(joint - np.logaddexp.reduce(joint))
    )


def expected_log_likelihood(case, params, posterior):
    """Return Q(params): the mean of log p(x, z | params) under a posterior."""
    possible = posterior > 0
    return posterior[possible] @ log_joint(case, params)[possible]


def moved(case, params, directions, size):
    return {
        name: DOMAINS[case.domains[name]](value, directions[name], size)
        for name, value in params.items()
    }


def directions_from(seed, params, how_many):
    rng = np.random.default_rng(seed)
    return [
        {name: rng.normal(size=value.shape) for name, value in params.items()}
        for _ in range(how_many)
    ]


def log(probability):
    """Return log p, which is -inf of what EM has ruled out on the way."""
    with np.errstate(divide="ignore"):
        return np.log(probability)


# ---------------------------------------------------------------- the cases


def annotators_case():
    rng = np.random.default_rng(1)
    good = np.array([1, 1, 0, 1, 1, 0, 1, 1, 0])
    values = rng.uniform(0.3, 0.7, size=12)
    scores = np.where(
        good, rng.normal(values[:, None], 0.06, size=(12, 9)), rng.uniform(size=(12, 9))
    )

    def table(params):
        bad = np.log(1 - params["pi"]) + stats.uniform.logpdf(scores).sum(axis=0)
        normal = stats.norm.logpdf(scores, params["mu"][:, None], params["sigma"])
        return np.stack([bad, np.log(params["pi"]) + normal.sum(axis=0)], axis=1)

    start = {"mu": rng.uniform(0.3, 0.7, size=12), "sigma": np.array(0.15), "pi": np.array(0.6)}
    domains = {"mu": "real", "sigma": "positive", "pi": "interval"}
    return Case(
        annotators,
        annotators.program,
        annotators.hand_derived_step,
        (scores,),
        "good",
        "scores",
        domains,
        start,
        table,
    )


HEADS = np.array([5, 9, 8, 4, 7, 2, 0, 10])


def coins_case(hard):
    def table(params):
        return np.log(0.5) + stats.binom.logpmf(HEADS[:, None], 10, params["bias"])

    def step(params, heads, flips):
        return coins.hand_derived_step(params, heads, flips, hard=hard)

    start = {"bias": np.random.default_rng(2).uniform(size=2)}
    return Case(
        coins,
        coins.program,
        step,
        (HEADS, 10),
        "coin",
        "heads",
        {"bias": "interval"},
        start,
        table,
        hard=hard,
    )


def weighted_coins_case(hard):
    def table(params):
        with np.errstate(divide="ignore"):  # a coin that nobody picked
            log_weights = np.log(params["weights"])
        return log_weights + stats.binom.logpmf(HEADS[:, None], 10, params["bias"])

    def step(params, heads, flips, num_coins):
        return coins.weighted_hand_derived_step(params, heads, flips, num_coins, hard=hard)

    rng = np.random.default_rng(3)
    start = {"weights": rng.dirichlet(np.ones(3)), "bias": rng.uniform(0.2, 0.8, size=3)}
    domains = {"weights": "simplex", "bias": "interval"}
    return Case(
        coins,
        coins.weighted_program,
        step,
        (HEADS, 10, 3),
        "coin",
        "heads",
        domains,
        start,
        table,
        hard=hard,
    )


def two_clouds(num_features):
    rng = np.random.default_rng(4)
    centers = np.array([[-1.0, 0.5], [1.2, -0.7]])[np.arange(12) % 2]
    return (centers + rng.normal(size=(12, 2)))[:, :num_features]


def gaussian_mixture_case(covariance, num_features=2, one_dimensional=False):
    data = two_clouds(num_features)
    if one_dimensional:
        data = data[:, 0]
    rng = np.random.default_rng(5)
    start = {"weights": rng.dirichlet(5 * np.ones(2)), "loc": rng.normal(size=(2, *data.shape[1:]))}
    if covariance in ("full", "tied") and not one_dimensional:
        root = rng.normal(size=(2, num_features, num_features))[
            slice(None) if covariance == "full" else 0
        ]
        start["covariance"] = root @ root.swapaxes(-1, -2) + np.eye(num_features)
    else:
        shape = {"diagonal": (2, *data.shape[1:]), "tied": ()}.get(covariance, (2,))
        start["scale"] = rng.uniform(0.5, 2.0, size=shape)

    def table(params):
        columns = []
        for k, weight in enumerate(params["weights"]):
            if "covariance" in params:
                matrix = params["covariance"][k] if covariance == "full" else params["covariance"]
            else:
                scale = params["scale"] if covariance == "tied" else params["scale"][k]
                matrix = np.diag(np.broadcast_to(scale, num_features) ** 2)
            normal = stats.multivariate_normal(np.atleast_1d(params["loc"][k]), matrix)
            columns.append(np.log(weight) + normal.logpdf(data.reshape(len(data), -1)))
        return np.stack(columns, axis=1)

    domains = {"weights": "simplex", "loc": "real", "scale": "positive", "covariance": "definite"}
    return Case(
        gaussian_mixture,
        gaussian_mixture.program,
        gaussian_mixture.hand_derived_step,
        (data, 2, covariance),
        "component",
        "data",
        {name: domains[name] for name in start},
        start,
        table,
    )


def k_means_case():
    data = two_clouds(2)[:8]

    def table(params):
        return np.log(1 / 3) + stats.norm.logpdf(data[:, None], params["loc"]).sum(axis=2)

    start = {"loc": np.random.default_rng(6).normal(size=(3, 2))}
    return Case(
        k_means,
        k_means.program,
        k_means.hand_derived_step,
        (data, 3),
        "component",
        "data",
        {"loc": "real"},
        start,
        table,
        hard=True,
    )


def topics_mixture_case():
    rng = np.random.default_rng(7)
    counts = rng.multinomial(15, rng.dirichlet(np.ones(4), size=2)[np.arange(6) % 2])

    def table(params):
        return np.stack(
            [
                np.log(weight) + stats.multinomial.logpmf(counts, counts.sum(axis=1), words)
                for weight, words in zip(params["weights"], params["words"], strict=True)
            ],
            axis=1,
        )

    start = {"weights": rng.dirichlet(np.ones(3)), "words": rng.dirichlet(np.ones(4), size=3)}
    return Case(
        topics,
        topics.mixture_program,
        topics.mixture_hand_derived_step,
        (counts, 3),
        "topic",
        "counts",
        {"weights": "simplex", "words": "simplex"},
        start,
        table,
    )


def plsa_case():
    rng = np.random.default_rng(8)
    document, word = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 1, 2, 2, 0])
    count = np.array([3, 1, 2, 2, 1, 2])

    def table(params):
        return np.log(params["theta"][document]) + np.log(params["words"][:, word].T)

    start = {"theta": rng.dirichlet(np.ones(2), size=3), "words": rng.dirichlet(np.ones(3), size=2)}
    return Case(
        topics,
        topics.plsa_program,
        topics.plsa_hand_derived_step,
        (document, word, count, 3, 3, 2),
        "topic",
        "word",
        {"theta": "simplex", "words": "simplex"},
        start,
        table,
        multiplicity=count,
    )


def sparse_topics_mixture_case():
    """The last document has no words, and the first has a word in two rows."""
    rng = np.random.default_rng(14)
    document, word = np.array([0, 0, 1, 1, 2, 3, 3, 0]), np.array([0, 1, 1, 2, 2, 0, 2, 0])
    count = np.array([3, 1, 2, 2, 4, 2, 1, 2])

    def table(params):
        rows = count[:, None] * log(params["words"][:, word].T)
        return log(params["weights"]) + np.stack(
            [rows[document == d].sum(axis=0) for d in range(5)]
        )

    start = {"weights": rng.dirichlet(np.ones(3)), "words": rng.dirichlet(np.ones(3), size=3)}
    return Case(
        topics,
        topics.sparse_mixture_program,
        topics.sparse_mixture_hand_derived_step,
        (document, word, count, 5, 3, 3),
        "topic",
        "word",
        {"weights": "simplex", "words": "simplex"},
        start,
        table,
    )


def dawid_skene_case():
    """The last item has no label, the first has two of the same annotator, and the last annotator
    gave none.
    """
    rng = np.random.default_rng(15)
    item, annotator = (
        np.array([0, 0, 0, 1, 1, 2, 3, 3, 4, 4]),
        np.array([0, 0, 1, 0, 2, 1, 1, 2, 0, 1]),
    )
    label = np.array([2, 0, 2, 1, 1, 0, 0, 2, 1, 0])

    def table(params):
        log_joint = np.tile(log(params["prevalence"]), (6, 1))
        for i, a, said in zip(item, annotator, label, strict=True):
            log_joint[i] += log(params["confusion"][a, :, said])
        return log_joint

    start = {
        "prevalence": rng.dirichlet(np.ones(3)),
        "confusion": rng.dirichlet(np.ones(3), size=(4, 3)),
    }
    return Case(
        dawid_skene,
        dawid_skene.program,
        dawid_skene.hand_derived_step,
        (item, annotator, label, 6, 4, 3),
        "truth",
        "label",
        {"prevalence": "simplex", "confusion": "simplex"},
        start,
        table,
    )


def latent_class_case(kind):
    """Five items of six subjects; in long form the last subject answered nothing and nobody
    answered the last item.
    """
    rng = np.random.default_rng(16)
    answers = rng.integers(3 if kind == "categorical" else 2, size=(6, 5))
    given = rng.uniform(size=answers.shape) < 0.7
    given[-1], given[:, -1] = False, False
    start = {"weights": rng.dirichlet(np.ones(3)), "probs": rng.uniform(size=(3, 5))}

    def table(params):
        log_probs = stats.bernoulli.logpmf(
            answers[:, None], params["probs"]
        )  # (subject, class, item)
        return log(params["weights"]) + np.where(
            kind == "dense" or given[:, None], log_probs, 0
        ).sum(axis=2)

    def categorical_table(params):
        chosen = params["probs"][:, np.arange(5), answers]  # (class, subject, item)
        return log(params["weights"]) + np.where(given, log(chosen), 0).sum(axis=2).T

    rows = *np.nonzero(given), answers[given], 6, 5
    sites, domains = (
        ("latent_class", "answers" if kind == "dense" else "answer"),
        {"weights": "simplex", "probs": "interval"},
    )
    if kind == "dense":
        return Case(
            latent_class,
            latent_class.program,
            latent_class.hand_derived_step,
            (answers, 3),
            *sites,
            domains,
            start,
            table,
        )
    if kind == "long":
        return Case(
            latent_class,
            latent_class.long_program,
            latent_class.long_hand_derived_step,
            (*rows, 3),
            *sites,
            domains,
            start,
            table,
        )
    start |= {"probs": rng.dirichlet(np.ones(3), size=(3, 5))}
    return Case(
        latent_class,
        latent_class.categorical_program,
        latent_class.categorical_hand_derived_step,
        (*rows, 3, 3),
        *sites,
        domains | {"probs": "simplex"},
        start,
        categorical_table,
    )


def record_linkage_case(with_frequencies):
    """The first comparison lacks its second field, and nobody knows the value of the last one."""
    rng = np.random.default_rng(19)
    levels = {"name": np.array([2, 0, 2, 1, -1, 2]), "city": np.array([-1, 0, 1, 1, 0, 1])}
    values, count = {"name": np.array([1, -1, 0, -1, -1, -1])}, np.array([1, 2, 1, 1, 1, 2])
    num_records = np.array([6, 1, 3])
    start = {"match_rate": np.array(0.3)}
    fields = {"name": 3, "city": 2}
    for field, num in fields.items():
        start |= {f"{kind}_{field}": rng.dirichlet(np.ones(num)) for kind in "mu"}

    def table(params):
        log_joint = np.tile(log([1 - params["match_rate"], params["match_rate"]]), (6, 1))
        share = num_records / 10
        for row, field in itertools.product(range(6), fields):
            level = levels[field][row]
            if level >= 0:
                log_joint[row] += log([params[f"{kind}_{field}"][level] for kind in "um"])
        for row, value in enumerate(values["name"]):
            if with_frequencies and value >= 0:
                log_joint[row] += log([share[value] ** 2 / (share**2).sum(), share[value]])
        return log_joint

    args = (levels, fields, count)
    program, step = record_linkage.program, record_linkage.hand_derived_step
    if with_frequencies:
        args = (levels, values, fields, {"name": num_records}, count)
        program = record_linkage.frequency_program
        step = record_linkage.frequency_hand_derived_step
    return Case(
        record_linkage,
        program,
        step,
        args,
        "match",
        "name",
        dict.fromkeys(start, "simplex") | {"match_rate": "interval"},
        start,
        table,
        multiplicity=count,
    )


def grades_case():
    def table(params):
        return np.log([[0.5], [0.5 - params["theta"]], [params["theta"]]])

    counts = np.array([4, 3, 2])
    return Case(
        grades,
        grades.program,
        grades.hand_derived_step,
        (counts,),
        None,
        "grade",
        {"theta": "half"},
        {"theta": np.array(0.31)},
        table,
        multiplicity=counts,
    )


def partial_grades_case():
    def table(params):
        not_c = np.log([0.5, 0.5 - params["theta"]])
        return np.array([[*not_c, -np.inf], [-np.inf, -np.inf, np.log(params["theta"])]])

    return Case(
        grades,
        grades.partial_program,
        grades.partial_hand_derived_step,
        (2, 7),
        "grade",
        "is_c",
        {"theta": "half"},
        {"theta": np.array(0.41)},
        table,
        multiplicity=np.array([5, 2]),
    )


def paths(num_values, num_steps):
    """Return every path (path, time) through so many steps."""
    return np.array(list(itertools.product(range(num_values), repeat=num_steps)))


def paths_table(params, log_seen, state_of, lengths):
    """Return log p(x_n, path) (sequence, path) from log p(x_t, z_t = value | state of z_t), (time,
    sequence, value).

    A sequence that ends early has its paths once each: only those that go on with zeros are
    possible.
    """
    rows, every = [], paths(len(state_of), len(log_seen))
    for n, length in enumerate(lengths):
        z, beyond = every[:, :length], every[:, length:]
        state = state_of[z]
        moves = log(params["transition"])[state[:, :-1], state[:, 1:]].sum(axis=1)
        log_joint = (
            log(params["initial"])[state[:, 0]]
            + moves
            + log_seen[np.arange(length), n, z].sum(axis=1)
        )
        rows.append(np.where((beyond == 0).all(axis=1), log_joint, -np.inf))
    return np.stack(rows)


def chain_start(rng):
    return {"initial": rng.dirichlet(np.ones(2)), "transition": rng.dirichlet(np.ones(2), size=2)}


def hidden_markov_case(emission):
    """Sequences of five steps, of one and of four; what the data hold beyond their ends counts
    nothing.
    """
    rng = np.random.default_rng(20)
    start, state_of, lengths, shape = chain_start(rng), np.arange(2), np.array([5, 1, 4]), (5, 3)
    match emission:
        case "categorical":
            data, sizes, domains = rng.integers(3, size=shape), (2, 3), {"emission": "simplex"}
            start |= {"emission": rng.dirichlet(np.ones(3), size=2)}
        case "Poisson":
            data, sizes, domains = rng.poisson(4, size=shape), (2,), {"rate": "positive"}
            start |= {"rate": np.array([2.0, 5.0])}
        case "diagonal" | "full":
            data, sizes = rng.normal(size=(*shape, 2)), (2, emission)
            start |= {"loc": rng.normal(size=(2, 2))}
            root = rng.normal(size=(2, 2, 2))
            matrix = root @ root.swapaxes(-1, -2) + np.eye(2)
            start |= (
                {"covariance": matrix}
                if emission == "full"
                else {"scale": rng.uniform(0.5, 2.0, size=(2, 2))}
            )
            domains = {"loc": "real", "scale": "positive", "covariance": "definite"}
    kind = "gaussian" if emission in ("diagonal", "full") else emission.lower()

    def log_seen(params):
        match emission:
            case "categorical":
                return log(params["emission"].T[data])
            case "Poisson":
                return stats.poisson.logpmf(data[..., None], params["rate"])
            case "diagonal":
                return stats.norm.logpdf(data[:, :, None], params["loc"], params["scale"]).sum(
                    axis=-1
                )
        return np.stack(
            [
                stats.multivariate_normal(params["loc"][k], params["covariance"][k]).logpdf(data)
                for k in range(2)
            ],
            -1,
        )

    return Case(
        hidden_markov,
        getattr(hidden_markov, f"{kind}_program"),
        getattr(hidden_markov, f"{kind}_hand_derived_step"),
        (data, lengths, *sizes),
        "state",
        "data",
        {"initial": "simplex", "transition": "simplex", **domains},
        start,
        lambda params: paths_table(params, log_seen(params), state_of, lengths),
        latents=lambda z: {"state": paths(2, 5)[z].T},
    )


def mixture_emission_case():
    """Sequences of four steps and of three, whose paths go through pairs of a state and a
    component.
    """
    rng = np.random.default_rng(29)
    data, lengths = rng.normal(size=(4, 2, 1)), np.array([4, 3])
    start = chain_start(rng) | {
        "weights": rng.dirichlet(np.ones(2), size=2),
        "loc": rng.normal(size=(2, 2, 1)),
        "scale": rng.uniform(0.5, 2.0, size=(2, 2, 1)),
    }
    state, component = np.divmod(np.arange(4), 2)

    def table(params):
        normal = stats.norm.logpdf(
            data, params["loc"][state, component, 0], params["scale"][state, component, 0]
        )
        return paths_table(
            params, log(params["weights"])[state, component] + normal, state, lengths
        )

    def latents(z):
        through = paths(4, 4)[z].T
        return {"state": state[through], "component": component[through]}

    domains = {
        "initial": "simplex",
        "transition": "simplex",
        "weights": "simplex",
        "loc": "real",
        "scale": "positive",
    }
    return Case(
        mixture_emission_hmm,
        mixture_emission_hmm.program,
        mixture_emission_hmm.hand_derived_step,
        (data, lengths, 2, 2),
        "state",
        "data",
        domains,
        start,
        table,
        latents=latents,
    )


def motif_case(occurrences):
    """Sequences of five, three, four and five letters, and a motif of three: every start is written
    out.
    """
    sequences = [[0, 2, 1, 1, 3], [2, 1, 0], [3, 2, 1, 0], [2, 2, 3, 1, 1]]
    letters = np.array([sequence + [-1] * (5 - len(sequence)) for sequence in sequences])
    rng = np.random.default_rng(17)

    def row(sequence, params):
        """Return log p(x, start) for the starts 0, 1 and 2, and for nowhere."""
        outside, inside = log(params["background"]), log(params["motif"])
        places = range(len(sequence) - 2)
        somewhere = [
            sum(
                inside[at - start][a] if start <= at < start + 3 else outside[a]
                for at, a in enumerate(sequence)
            )
            + log(params.get("occurrence", 1.0) / len(places))
            for start in places
        ]
        nowhere = log(1 - params.get("occurrence", 1.0)) + sum(outside[a] for a in sequence)
        return [
            *somewhere,
            *[-np.inf] * (3 - len(places)),
            *([nowhere] if occurrences == "zero or one" else []),
        ]

    def table(params):
        return np.array([row(sequence, params) for sequence in sequences])

    start = {"background": rng.dirichlet(np.ones(4)), "motif": rng.dirichlet(np.ones(4), size=3)}
    domains = {"background": "simplex", "motif": "simplex"}
    if occurrences == "one":
        return Case(
            motif,
            motif.program,
            motif.hand_derived_step,
            (letters, 3),
            "start",
            "letters",
            domains,
            start,
            table,
        )
    return Case(
        motif,
        motif.zoops_program,
        motif.zoops_hand_derived_step,
        (letters, 3),
        "start",
        "letters",
        domains | {"occurrence": "interval"},
        start | {"occurrence": np.array(0.4)},
        table,
        latents=lambda z: {"start": z, "occurs": np.where(z < 3, 1, 0)},
    )


CASES = {
    "annotators": annotators_case(),
    "coins": coins_case(hard=False),
    "coins, hard": coins_case(hard=True),
    "weighted coins": weighted_coins_case(hard=False),
    "weighted coins, hard": weighted_coins_case(hard=True),
    **{f"mixture, {kind}": gaussian_mixture_case(kind) for kind in gaussian_mixture.COVARIANCES},
    "mixture, one-dimensional": gaussian_mixture_case("full", 1, one_dimensional=True),
    "mixture, one-dimensional, tied": gaussian_mixture_case("tied", 1, one_dimensional=True),
    "k-means": k_means_case(),
    "topics, one a document": topics_mixture_case(),
    "topics, one a document, on rows": sparse_topics_mixture_case(),
    "topics, one a word": plsa_case(),
    "Dawid-Skene": dawid_skene_case(),
    "latent class": latent_class_case("dense"),
    "latent class, long form": latent_class_case("long"),
    "latent class, categorical": latent_class_case("categorical"),
    "record linkage": record_linkage_case(with_frequencies=False),
    "record linkage, term frequencies": record_linkage_case(with_frequencies=True),
    "motif, one occurrence": motif_case("one"),
    "motif, zero or one": motif_case("zero or one"),
    "grades": grades_case(),
    "grades, partial": partial_grades_case(),
    **{
        f"hidden Markov, {kind}": hidden_markov_case(kind)
        for kind in ("categorical", "diagonal", "full", "Poisson")
    },
    "hidden Markov, mixture": mixture_emission_case(),
}


every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
