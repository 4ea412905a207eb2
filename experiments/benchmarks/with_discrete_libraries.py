"""Discrete models by libraries: crowd-kit, StepMix, enstop, scikit-learn, tomotopy, dynamax."""

import warnings

import numpy as np
from scipy.sparse import csr_array, csr_matrix

from experiments.benchmarks.contestant import Fit, Run


def crowd_kit(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of `crowdkit.aggregation.DawidSkene`.

    Its start is the majority vote, as `start` is.
    """
    import pandas
    from crowdkit.aggregation import DawidSkene

    frame = pandas.DataFrame(
        {"task": data["item"], "worker": data["annotator"], "label": data["label"]}
    )
    classes = range(sizes["num_classes"])

    def run(num_steps: int) -> Fit:
        model = DawidSkene(n_iter=num_steps, tol=-np.inf).fit(frame)
        pairs = [range(sizes["num_annotators"]), classes]
        index = pandas.MultiIndex.from_product(pairs, names=["worker", "label"])
        # (worker · label, class)
        table = model.errors_.reindex(index)[list(classes)].fillna(0.0).to_numpy()
        confusion = table.reshape(-1, len(classes), len(classes)).transpose(0, 2, 1)
        params = {"prevalence": model.priors_[list(classes)].to_numpy(), "confusion": confusion}
        return Fit(params, len(model.loss_history_))

    return run


def step_mix(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of `stepmix.StepMix` with binary items."""
    from stepmix import StepMix

    warnings.simplefilter("ignore")  # it warns that it has not converged
    answers = data.pop("answers")

    class FromStart(StepMix):
        """StepMix at the given start; its own choices are k-means and random posteriors."""

        def _initialize_parameters(self, X, random_state):
            params = {"weights": start["weights"], "measurement_in": X.shape[1]}
            self.set_parameters(params | {"measurement": {"pis": start["probs"].copy()}})

    def run(num_steps: int) -> Fit:
        model = FromStart(
            sizes["num_classes"],
            measurement="binary",
            max_iter=num_steps,
            abs_tol=0.0,
            rel_tol=0.0,
            progress_bar=0,
        ).fit(answers)
        params = model.get_parameters()
        after = {"weights": params["weights"], "probs": params["measurement"]["pis"]}
        return Fit(after, model.n_iter_)

    return run


def enstop(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of `enstop.plsa.plsa_fit`, float32 inside.

    It looks at the likelihood twice, before the second step.
    """
    from enstop.plsa import plsa_fit

    shape = sizes["num_documents"], sizes["num_words"]
    counts = csr_matrix((data["count"], (data["document"], data["word"])), shape)
    every = np.ones(shape[0], np.float32)

    def run(num_steps: int) -> Fit:
        theta, words = plsa_fit(
            counts,
            sizes["num_topics"],
            every,
            init=(start["theta"].copy(), start["words"].copy()),
            n_iter=num_steps,
            n_iter_per_test=num_steps + 1,
            tolerance=0.0,
        )
        return Fit({"theta": theta, "words": words}, num_steps)

    return run


def nmf(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of scikit-learn's `non_negative_factorization`.

    Counts ≈ W H under Kullback–Leibler.
    """
    from sklearn.decomposition import non_negative_factorization

    warnings.simplefilter("ignore")  # it warns that it has not converged
    shape = sizes["num_documents"], sizes["num_words"]
    counts = csr_array((data["count"], (data["document"], data["word"])), shape)
    lengths = np.asarray(counts.sum(axis=1)).reshape(-1, 1)

    def run(num_steps: int) -> Fit:
        shares, topics, done = non_negative_factorization(
            counts,
            W=(start["theta"] * lengths).astype(counts.dtype),
            H=start["words"].copy(),
            n_components=sizes["num_topics"],
            init="custom",
            solver="mu",
            beta_loss="kullback-leibler",
            tol=0.0,
            max_iter=num_steps,
        )
        shares = shares * topics.sum(axis=1)
        words = topics / topics.sum(axis=1, keepdims=True)
        return Fit({"theta": shares / shares.sum(axis=1, keepdims=True), "words": words}, done)

    return run


def tomotopy(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of `tomotopy.LDAModel`: a step is a Gibbs sweep over all tokens."""
    import tomotopy

    model = tomotopy.LDAModel(k=sizes["num_topics"], seed=0)
    tokens = np.repeat(data["word"], data["count"].astype(int)).astype(str)
    document = np.repeat(data["document"], data["count"].astype(int))
    for words in np.split(tokens, np.flatnonzero(np.diff(document)) + 1):
        model.add_doc(words.tolist())

    def run(num_steps: int) -> Fit:
        model.train(num_steps, show_progress=False)
        return Fit({}, num_steps)

    return run


def dynamax(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of `dynamax.MultinomialHMM` on one chain of all documents.

    Each row of its transition matrix, and its initial distribution, are the weights, so that the
    state of a document does not depend on the one before.
    """
    import jax
    import jax.numpy as jnp
    from dynamax.hidden_markov_model import MultinomialHMM

    num_documents, num_words = sizes["num_documents"], sizes["num_words"]
    num_topics = sizes["num_topics"]
    counts = np.zeros((num_documents, num_words), data["count"].dtype)
    counts[data["document"], data["word"]] = data["count"]
    emissions = jnp.asarray(counts[:, None, :])
    flat = 1 + 1e-9  # at 1, where there is no prior, the mode of the Dirichlet is NaN
    hmm = MultinomialHMM(num_topics, 1, num_words, 1, emission_prior_concentration=flat)
    words = jnp.asarray(start["words"])[:, None, :]
    params, properties = hmm.initialize(jax.random.key(0), emission_probs=words)

    def tied(params, weights):
        rows = jnp.tile(weights, (num_topics, 1))
        return params._replace(
            initial=params.initial._replace(probs=weights),
            transitions=params.transitions._replace(transition_matrix=rows),
        )

    def step(params, emissions):
        (initial, transitions, emission), _ = hmm.e_step(params, emissions)
        batch = jax.tree.map(lambda value: value[None], emission)
        m_step = hmm.emission_component.m_step
        words = m_step(params.emissions, properties.emissions, batch, None)[0]
        weights = (initial + transitions.sum(0)) / num_documents
        return tied(params._replace(emissions=words), weights)

    @jax.jit
    def loop(params, emissions, num_steps):
        return jax.lax.fori_loop(0, num_steps, lambda _, params: step(params, emissions), params)

    def run(num_steps: int) -> Fit:
        after = loop(tied(params, jnp.asarray(start["weights"])), emissions, num_steps)
        words = np.asarray(after.emissions.probs)[:, 0]
        return Fit({"weights": np.asarray(after.initial.probs), "words": words}, num_steps)

    return run


SETUPS = {
    "crowd-kit": {"dawid_skene": crowd_kit},
    "StepMix": {"latent_class": step_mix},
    "enstop": {"plsa": enstop},
    "scikit-learn NMF": {"plsa": nmf},
    "tomotopy": {"plsa": tomotopy},
    "dynamax": {"multinomials": dynamax},
}
