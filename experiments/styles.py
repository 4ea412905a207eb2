"""Classes of which some are labeled: each comes in several styles, and all features are counts.

      π ──▶ (c_n) ──▶ (s_n) ──▶ [x_nd] ◀── p_ksd
              │  w_k ──┘          │
              └───────────────────┴── plate "samples"

    c_n  ~ Categorical(π)                              latent `label`, known for some samples
    s_n  ~ Categorical(w_{c_n})                        latent `style`, never known
    x_nd ~ Binomial(T, p_{c_n s_n d})                  `counts`, 0 … T
    p_ksd ~ Beta(a, a)                                 the prior of `probs`, a = `CONCENTRATION`

With one style this is naive Bayes. A label y_n, −1 where there is none, leaves one class of a
sample (`emjax.labeled`), and a weight v_n says how much the sample counts: weight 0 for all without
a label is supervised learning, weight 1 is EM on everything.

E-step, where a labeled sample has no mass outside its class:

    r_nks = π_k w_ks Π_d Binomial(x_nd; T, p_ksd) [y_n ∈ {−1, k}] / Σ_jt …                       (1)

M-step: expected counts, normalized; the prior adds a − 1 successes and as many failures.

    π_k   = Σ_ns v_n r_nks / Σ_n v_n                                                             (2)
    w_ks  = Σ_n v_n r_nks / Σ_nt v_n r_nkt                                                       (3)
    p_ksd = (a − 1 + Σ_n v_n r_nks x_nd) / (2 (a − 1) + T Σ_n v_n r_nks)                         (4)

Source: Nigam, McCallum, Thrun & Mitchell (2000), "Text classification from labeled and unlabeled
documents using EM", Machine Learning 39: the iteration (1) to (4) with several components for each
class (section 5.2) and the weight of what is unlabeled (section 5.1).
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Float, Int
from numpyro.distributions import constraints

CONCENTRATION = 2.0


def program(
    counts: Int[ArrayLike, "sample feature"],
    weight: Float[ArrayLike, "sample"],
    total: int,
    num_classes: int,
    num_styles: int,
) -> None:
    """The generative program.

    Parameters: `prevalence` (class,) and `styles` (class, style) on simplexes, equal at the start;
    `probs` (class, style, feature), which start at random.
    """
    prevalence = numpyro.param(
        "prevalence", jnp.full(num_classes, 1 / num_classes), constraint=constraints.simplex
    )
    styles = numpyro.param(
        "styles",
        jnp.full((num_classes, num_styles), 1 / num_styles),
        constraint=constraints.simplex,
    )
    shape = (num_classes, num_styles, counts.shape[1])
    probs = numpyro.sample(
        "probs", dist.Beta(CONCENTRATION, CONCENTRATION).expand(shape).to_event(3)
    )
    with numpyro.plate("samples", len(counts)), numpyro.handlers.scale(scale=weight):
        label = numpyro.sample("label", dist.Categorical(prevalence))
        style = numpyro.sample("style", dist.Categorical(styles[label]))
        numpyro.sample("counts", dist.Binomial(total, probs[label, style]).to_event(1), obs=counts)


def start(
    key: jax.Array, num_classes: int, num_styles: int, num_features: int
) -> dict[str, Float[jax.Array, "..."]]:
    """Return a start of all parameters: every class alike, its styles apart at random.

    Each probability is in [0.4, 0.6].
    """
    probs = jax.random.uniform(key, (num_classes, num_styles, num_features), minval=0.4, maxval=0.6)
    return {
        "prevalence": jnp.full(num_classes, 1 / num_classes),
        "styles": jnp.full((num_classes, num_styles), 1 / num_styles),
        "probs": probs,
    }


def hand_derived_step(
    params: Mapping[str, ArrayLike],
    labels: Int[ArrayLike, "sample"],
    counts: Int[ArrayLike, "sample feature"],
    weight: Float[ArrayLike, "sample"],
    total: int,
    num_classes: int,
    num_styles: int,
) -> dict[str, Float[np.ndarray, "..."]]:
    """One EM step, from the formulas alone: (1) to (4)."""
    prevalence, styles, probs = (
        np.asarray(params[name]) for name in ("prevalence", "styles", "probs")
    )
    labels, weight = np.asarray(labels), np.asarray(weight)
    counts = np.asarray(counts, float)
    with np.errstate(divide="ignore"):  # a style without a sample has no mass
        log_weight = np.log(prevalence)[:, None] + np.log(styles)
    log_joint = (
        log_weight
        + np.einsum("nd,ksd->nks", counts, np.log(probs))
        + np.einsum("nd,ksd->nks", total - counts, np.log1p(-probs))
    )
    possible = (labels[:, None] == -1) | (labels[:, None] == np.arange(num_classes))
    log_joint = np.where(possible[:, :, None], log_joint, -np.inf)
    responsibilities = np.exp(log_joint - log_joint.max((1, 2), keepdims=True))
    responsibilities /= responsibilities.sum((1, 2), keepdims=True)  # (1)
    weighted = weight[:, None, None] * responsibilities
    size = weighted.sum(0)
    pseudo = CONCENTRATION - 1
    return {
        "prevalence": size.sum(1) / weight.sum(),  # (2)
        "styles": size / size.sum(1, keepdims=True),  # (3)
        "probs": (pseudo + np.einsum("nks,nd->ksd", weighted, counts))
        / (2 * pseudo + total * size[:, :, None]),  # (4)
    }
