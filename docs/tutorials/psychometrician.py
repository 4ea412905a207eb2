"""Who trusts whom? Latent classes of survey answers, from their number to a report.

600 people, two from each of 300 households of three regions, say yes or no to six items of trust.
People of the north were sampled three times as often as the others, and answered for fewer.
"""

import jax
import numpy as np
import pandas as pd

import emjax
from emjax.models import latent_class

# the survey: the older trust more, and of a household both are alike
rng, key = np.random.default_rng(0), jax.random.key(0)
region = np.repeat(["east", "north", "south"], [150, 300, 150])
survey = pd.DataFrame({"region": region, "household": np.arange(600) // 2})
survey["weight"] = np.where(region == "north", 1.0, 3.0)
survey["decades"] = (rng.integers(18, 80, 600) - 50) / 10
shared = rng.normal(0, 0.5, 300)[survey.household]
logits = np.stack([np.zeros(600), 0.5 * survey.decades + shared, 0.2 - shared])
kind = np.argmax(logits + rng.gumbel(size=(3, 600)), axis=0)
yes = np.array([[0.2] * 6, [0.9] * 6, [0.85, 0.9, 0.8, 0.2, 0.1, 0.2]])[kind]
items = ["neighbors", "family", "friends", "courts", "press", "parliament"]
answers = pd.DataFrame((rng.random((600, 6)) < yes).astype(int), columns=items)

# how many classes? BIC says three, and the bootstrap test sees no need for a fourth
fits = {k: emjax.EM(latent_class.program).run(key, answers, k) for k in (2, 3, 4)}
print("BIC:", {k: round(emjax.criteria(fit).bic, 1) for k, fit in fits.items()})
print(emjax.bootstrap_likelihood_ratio(fits[3], fits[4], key, num_replicates=50))

# three; the weights say for how many of the population each person stands
program = emjax.weighted(latent_class.program, "subjects", kind="sampling")
fit = emjax.EM(program).run(key, survey.weight, answers, 3).relabel("size")
design = {"strata": survey.region, "clusters": survey.household}
print(emjax.class_sizes(fit), emjax.classification(fit), sep="\n")
print(emjax.standard_errors(fit, **design))
print(emjax.three_step(fit, covariates=survey[["decades"]], **design))
