"""Every sentence that emjax says of data, a start or a result, with its remedy, word for word.

What sees the fault is tested elsewhere; whoever changes a sentence on purpose changes it here, too.
"""

import inspect

import numpy as np
import pytest
from numpyro.distributions import constraints

from emjax.run import endings, findings, verdicts

# of each function of `findings`: its arguments, the kind, the site, where, and what is printed
SAID = [
    (
        "not_maximized",
        (["rho"], "Newton", "it enters the probs of 'y' through 'clamp'", 12.34, np.nan),
        ("not maximized", "rho", "'rho'"),
        "'rho' could not be improved by Newton (it enters the probs of 'y' through 'clamp'), "
        "though Q gains 12 nats more elsewhere and it has no derivative there. Start elsewhere, "
        "write what the parameter enters without that step, or pass a maximizer of your own:\n"
        "    EM(program, m_step={'rho': optax.adam(1e-2)})",
    ),
    (
        "not_maximized",
        (["rho"], "optax", "asked for", np.inf, 0.5),
        ("not maximized", "rho", "'rho'"),
        "'rho' could not be improved by optax (asked for), though Q gains more and its derivative "
        "is 0.5 there. Raise its learning rate, or leave the parameter to emjax.",
    ),
    (
        "missing_datum",
        ("x", (3,), 2, "Normal"),
        ("not a number", "x", "(3,)"),
        "Site 'x': the observed value is NaN at index (3,) (2 in all). Missing values are declared "
        "with a mask:\n    numpyro.sample('x', ..., obs=jnp.nan_to_num(value), "
        "obs_mask=~jnp.isnan(value))",
    ),
    (
        "missing_datum",
        ("x", (3, 0), 1, "MultivariateNormal"),
        ("not a number", "x", "(3, 0)"),
        "Site 'x': the observed value is NaN at index (3, 0) (1 in all). Missing coordinates are "
        "declared where the normal is:\n    numpyro.sample('x', "
        "emjax.distributions.PartiallyObserved(dist.MultivariateNormal(...), "
        "observed=~jnp.isnan(x)), obs=x)",
    ),
    (
        "missing_datum",
        ("x", (3, 0), 1, "PartiallyObserved"),
        ("not a number", "x", "(3, 0)"),
        "Site 'x': the observed value is NaN at index (3, 0) (1 in all). Its `observed` says that "
        "this coordinate is observed: pass observed=~jnp.isnan(x).",
    ),
    (
        "index_out_of_range",
        ("x", (4,), 3, "5 of 2 rows"),
        ("out of range", "x", "(4,)"),
        "Site 'x': an index that it reads is out of range at position (4,) (3 in all): 5 of 2 "
        "rows. Indices run from 0: subtract 1 if yours begin at 1, or give the plate or table that "
        "it indexes more rows.",
    ),
    (
        "outside_support",
        ("heads", (0,), 1, "BernoulliProbs"),
        ("outside the support", "heads", "(0,)"),
        "Site 'heads': the observed value at index (0,) lies outside the support of Bernoulli (1 "
        "in all). Correct the data, or exclude it: with numpyro.handlers.mask(mask=valid): "
        "numpyro.sample('heads', ...).",
    ),
    (
        "outside_support",
        ("y", (2,), 1, "CategoricalProbs"),
        ("outside the support", "y", "(2,)"),
        "Site 'y': the observed value at index (2,) lies outside the support of Categorical (1 in "
        "all). Categories are 0, 1, …: subtract 1 if yours begin at 1 (y - 1), or exclude it: with "
        "numpyro.handlers.mask(mask=valid): numpyro.sample('y', ...).",
    ),
    (
        "outside_support",
        ("z_label", (1,), 1, "Label"),
        ("outside the support", "z_label", "(1,)"),
        "Site 'z_label': the observed value at index (1,) lies outside the support of Label (1 in "
        "all). Labels are values of the latent, or -1: subtract 1 if yours begin at 1, or exclude "
        "it: with "
        "numpyro.handlers.mask(mask=valid): numpyro.sample('z_label', ...).",
    ),
    (
        "nothing_observed",
        (["z", "x"],),
        ("nothing observed", "", ""),
        "No site of the program is observed, and the likelihood is 1; it draws 'z', 'x'. Is obs= "
        "missing? numpyro.sample('x', ..., obs=x)",
    ),
    (
        "nan_value",
        ("init_params['loc']", "loc", (1,), "Give it a number."),
        ("not a number", "loc", "(1,)"),
        "init_params['loc'] is NaN at index (1,). Give it a number.",
    ),
    (
        "outside_constraint",
        (
            "init_params['scale']",
            "scale",
            (1,),
            np.array(-2.0),
            constraints.positive,
            "Choose another.",
        ),
        ("outside its constraint", "scale", "(1,)"),
        "init_params['scale'] must satisfy Positive(lower_bound=0.0), and does not at index (1,) "
        "(value -2.). Choose another.",
    ),
    (
        "negative_probability",
        ("init_params['weights']", "weights", (1,), -0.25),
        ("outside its constraint", "weights", "(1,)"),
        "init_params['weights'] must be probabilities; at index (1,) it is -0.25. Make it "
        "non-negative.",
    ),
    (
        "sum_is_not_one",
        ("init_params['weights']", "weights", (), 1.5),
        ("outside its constraint", "weights", "()"),
        "init_params['weights'] must be probabilities that sum to one; they sum to 1.5. Divide by "
        "the sum: probs / probs.sum(-1, keepdims=True).",
    ),
    (
        "impossible_datum",
        ("x", "3", " (value 7)"),
        ("impossible", "x", "3"),
        "The start has zero likelihood: site 'x' at index (3) (value 7) is impossible under every "
        "value of its latents. Start elsewhere, em.run(..., init_params={...}), or check that "
        "datum.",
    ),
    (
        "impossible_prior",
        ("weights",),
        ("impossible", "weights", ""),
        "The start has zero density under the prior of 'weights'. Start elsewhere: em.run(..., "
        "init_params={...}).",
    ),
    (
        "impossible_jointly",
        (),
        ("impossible", "", ""),
        "The start has zero likelihood: some datum is impossible under every joint value of its "
        "latents, though each site alone is possible. Start elsewhere: em.run(..., "
        "init_params={...}).",
    ),
    (
        "identical_starts",
        (20, True),
        ("identical starts", "", ""),
        "All 20 starts are the same: init_params gives every parameter. They end alike, and tell "
        "no other optimum. Give init_params for some parameters alone, ask for a start that is "
        "drawn, EM(model, init='subsets') or numpyro.param(name, lambda key: ...), or for one "
        "start.",
    ),
    (
        "equal_values",
        ("z", 1, 3),
        ("equal values", "z", ""),
        "Latent 'z': at the start only 1 of its 3 values give the data different distributions, "
        "and EM can never part equal ones. Start from different values: em.run(..., "
        "init_params={...}), or numpyro.param(name, lambda key: ...).",
    ),
    (
        "many_values",
        ("effect", 100, ["x"]),
        ("many values", "effect", ""),
        "Continuous latent 'effect' has as many values (100) as site 'x' has data. EM estimates "
        "each by MAP, not by integrating it out: estimates of other parameters may be biased.",
    ),
    (
        "many_values",
        ("effect", 100, ["x"], True),
        ("many values", "effect", ""),
        "Continuous latent 'effect' has as many values (100) as site 'x' has data. EM estimates "
        "each by MAP, not by integrating it out: estimates of other parameters may be biased. "
        "Integrate it out: EM(..., integrate={'effect'}).",
    ),
    (
        "many_values",
        ("effect", 100, ["x", "y"]),
        ("many values", "effect", ""),
        "Continuous latent 'effect' has as many values (100) as sites 'x', 'y' have data. EM "
        "estimates each by MAP, not by integrating it out: estimates of other parameters may be "
        "biased.",
    ),
    (
        "collapsed",
        ("scale", "[1]", "component 1 of 'z'", 1.25e-7, "x"),
        ("collapsed", "scale", "[1]"),
        "component 1 of 'z' collapses: 'scale'[1] has shrunk to 1.2e-07 of the spread of 'x'. The "
        "likelihood has no maximum there: state a floor (constraints.greater_than(...)), or a "
        "prior, or use fewer components.",
    ),
    (
        "collapsed",
        ("scale", "[1]", "component 1 of 'z'", np.nan, "x"),
        ("collapsed", "scale", "[1]"),
        "component 1 of 'z' collapses: 'scale'[1] is no number. The likelihood has no maximum "
        "there: state a floor (constraints.greater_than(...)), or a prior, or use fewer "
        "components.",
    ),
    (
        "collapsed_argument",
        ("scale", "x", ["log_sd", "shift"], "component 1 of 'z'", 1.25e-7),
        ("collapsed", "log_sd, shift", "component 1 of 'z'"),
        "component 1 of 'z' collapses: the scale of 'x', computed from 'log_sd', 'shift', has "
        "shrunk to 1.2e-07 of its spread. The likelihood has no maximum there: state a floor "
        "(constraints.greater_than(...)), or a prior, or use fewer components.",
    ),
    (
        "collapsed_density",
        ("component 1 of 'z'", "x", (15,), ["scale", "shape"], 3e5),
        ("collapsed", "x", "component 1 of 'z'"),
        "component 1 of 'z' collapses: its density of 'x' at index (15,) falls by 3.0e+05 nats "
        "where that datum is moved by a thousandth of its distance from the next one; it depends "
        "on 'scale', 'shape'. The likelihood has no maximum there: bound what makes it so narrow "
        "(constraints.interval(...)), or state a prior, or use fewer components.",
    ),
    (
        "collapsed_density",
        ("site 'x'", "x", (15,), ["scale"], 1e30),
        ("collapsed", "x", "site 'x'"),
        "site 'x' collapses: its density of 'x' at index (15,) vanishes where that datum is moved "
        "by a thousandth of its distance from the next one; it depends on 'scale'. The likelihood "
        "has no maximum there: bound what makes it so narrow (constraints.interval(...)), or state "
        "a prior, or use fewer components.",
    ),
    (
        "collapsed_density",
        ("site 'x'", "x", (15,), ["scale"], np.inf),
        ("collapsed", "x", "site 'x'"),
        "site 'x' collapses: its density of 'x' at index (15,) is infinite; it depends on "
        "'scale'. The likelihood has no maximum there: bound what makes it so narrow "
        "(constraints.interval(...)), or state a prior, or use fewer components.",
    ),
    (
        "collapsed_density",
        ("site 'x'", "x", (), ["scale"], None),
        ("collapsed", "x", "site 'x'"),
        "site 'x' collapses: its density of 'x' is beyond all proportion to the spread of 'x'; it "
        "depends on 'scale'. The likelihood has no maximum there: bound what makes it so narrow "
        "(constraints.interval(...)), or state a prior, or use fewer components.",
    ),
    (
        "constant",
        ("x", np.array([[False, True, True]])),
        ("collapsed", "x", "[..., 1], [..., 2]"),
        "'x'[..., 1], [..., 2] is constant: without a spread, its density has no maximum, whatever "
        "the components. Leave it out, or state a floor (constraints.greater_than(...)) or a "
        "prior.",
    ),
    (
        "constant",
        ("x", np.array([True])),
        ("collapsed", "x", ""),
        "'x' is one number for all data: without a spread, its density has no maximum, whatever "
        "the components. Leave it out, or state a floor (constraints.greater_than(...)) or a "
        "prior.",
    ),
    (
        "not_a_number",
        ("loc",),
        ("not a number", "loc", ""),
        "'loc' is not a number",
    ),
    (
        "dead",
        ("z", 2, ["weights"], 1.5e-30),
        ("dead", "z", "2"),
        "component 2 of 'z' has died: 'weights' gives it probability 1.5e-30, and no element "
        "belongs to it. Use fewer components, or start elsewhere.",
    ),
    (
        "dead",
        ("z", 2, ["initial", "transition"], 0.0),
        ("dead", "z", "2"),
        "component 2 of 'z' has died: 'initial', 'transition' give it probability 0.0e+00, and no "
        "element belongs to it. Use fewer components, or start elsewhere.",
    ),
    (
        "without_elements",
        ("z", 2, 1.5e-30),
        ("dead", "z", "2"),
        "component 2 of 'z' has died: 1.5e-30 elements are expected to belong to it. Use fewer "
        "components, or start elsewhere.",
    ),
    (
        "copies_of",
        ("z", [(0, 1)]),
        ("copies", "z", "0 and 1"),
        "components 0 and 1 of 'z' are copies of each other: they give all data the same "
        "distribution, and EM does not part them. Start elsewhere (num_restarts=..., "
        "init_params={...}), or use fewer components; em.diagnose says whether it is a saddle.",
    ),
    (
        "copies_of",
        ("z", [(0, 1), (0, 2), (1, 2), (3, 4)]),
        ("copies", "z", "0 and 1, 0 and 2, 1 and 2, … (4 pairs in all)"),
        "components 0 and 1, 0 and 2, 1 and 2, … (4 pairs in all) of 'z' are copies of each other: "
        "they give all data the same distribution, and EM does not part them. Start elsewhere "
        "(num_restarts=..., init_params={...}), or use fewer components; em.diagnose says whether "
        "it is a saddle.",
    ),
    (
        "at_saddle",
        ({"z": (0, 1)}, 28.5684, 20),
        ("saddle", "z", "0 and 1"),
        "the estimate is at a saddle, where components 0 and 1 of 'z' hardly differ: from "
        "parameters beside it, EM gains 28.6 nats within 20 steps. Start elsewhere: "
        "EM(model, num_restarts=10).",
    ),
    (
        "at_saddle",
        ({}, 28.5684, 220),
        ("saddle", "", ""),
        "the estimate is at a saddle: from parameters beside it, EM gains 28.6 nats within 220 "
        "steps. Start elsewhere: EM(model, num_restarts=10).",
    ),
    (
        "far_from_zero",
        ("level", 2e6),
        ("digits lost", "level", ""),
        "Gaussian latent 'level' is some 2e+06 standard deviations from zero, about which its "
        "moments are taken: digits of the log-likelihood, of its variance and of the estimates "
        "that follow from it are lost. Draw it about zero, and add its mean where it is read: "
        "numpyro.sample('level', dist.Normal(0, scale)), then mean + level; or measure the data "
        "from their mean.",
    ),
    (
        "no_effect",
        ("factor", (0, 1)),
        ("saddle", "factor", "0, 1"),
        "all coefficients of 'factor' are zero (coordinate 0, 1), and EM never leaves these: "
        "nothing is known of it, so that the next coefficients are zero, too. Start elsewhere: "
        "EM(model, init='responsibilities').",
    ),
    (
        "better_start",
        (12.345, 20),
        ("better start", "", ""),
        "a start at clusters of the data leads higher: by 12.3 nats after 20 steps. Try several "
        "starts: EM(model, num_restarts=10).",
    ),
    (
        "at_boundary",
        ("rate", np.array(True)),
        ("at the boundary", "rate", "its value"),
        "'rate' has reached the boundary at its value, and EM stays there: its data are without a "
        "single such case. If the program should think it possible, state a prior.",
    ),
    (
        "at_boundary",
        ("emission", np.array([[True, False], [True, True], [True, False]])),
        ("at the boundary", "emission", "(0, 0), (1, 0), (1, 1), … (4 in all)"),
        "'emission' has reached the boundary at (0, 0), (1, 0), (1, 1), … (4 in all), and EM stays "
        "there: its data are without a single such case. If the program should think it possible, "
        "state a prior.",
    ),
    (
        "on_bound",
        ("weight", np.array([True, False]), np.array([0.5, 0.0])),
        ("at the boundary", "weight", "(0,)"),
        "'weight' has ended on the bound of its constraint (0.5) at (0,): beyond it, the objective "
        "may be higher. If that bound is not meant, widen the constraint.",
    ),
    (
        "no_variance",
        ("tau", [(0,), (2,)], ("b",), ("b",), 0.0123),
        ("variance of zero", "tau", "[0], [2]"),
        "'tau'[0], [2], a variance of 'b', goes to zero: at a tenth of it the objective is 0.012 "
        "nats higher. The likelihood is bounded there: it is an estimate on the boundary, and the "
        "data vary no more than they would without 'b'. Leave 'b' out, or state a prior that keeps "
        "away from zero. EM crawls there: EM(model, acceleration='anderson') comes nearer in fewer "
        "steps.",
    ),
    (
        "no_variance",
        ("sigma", [()], ("b",), ("b",), 0.0123, True),
        ("variance of zero", "sigma", ""),
        "'sigma', a covariance of 'b', goes to zero in one direction: at a tenth of it the "
        "objective is 0.012 nats higher. The likelihood is bounded there: it is an estimate on the "
        "boundary, and one coordinate of 'b' follows from the others. Use fewer coordinates of "
        "'b', or state a prior that keeps away from zero. EM crawls there: "
        "EM(model, acceleration='anderson') comes nearer in fewer steps.",
    ),
    (
        "no_noise",
        ("noise", [()], ("x",), ("factor",), 0.0123),
        ("variance of zero", "noise", ""),
        "'noise', noise of 'x', goes to zero: at a tenth of it the objective is 0.012 nats higher. "
        "The likelihood is bounded there: 'factor' explains these data without rest (a Heywood "
        "case). Use fewer coordinates of 'factor', or state a floor "
        "(constraints.greater_than(...)), or a prior. EM crawls there: "
        "EM(model, acceleration='anderson') comes nearer in fewer steps.",
    ),
    (
        "degenerate",
        ([endings.not_a_number("loc"), endings.not_a_number("scale")],),
        ("degenerate", "", ""),
        "'loc' is not a number 'scale' is not a number",
    ),
    (
        "before_maximum",
        (0.123,),
        ("not stationary", "", ""),
        "the maximum is 0.12 standard errors away. Run on from here: em.run(key, ..., "
        "init_params=params), or with a smaller tol",
    ),
    (
        "still_moving",
        (0.5,),
        ("not stationary", "", ""),
        "EM is still moving, by 0.5 standard errors of the complete data a step. Run on from here: "
        "em.run(key, ..., init_params=params)",
    ),
    (
        "unbounded_prior",
        ("weights", "Dirichlet", np.array(True), True),
        ("unbounded prior", "weights", ""),
        "'weights' has no finite mode: the density of its Dirichlet prior is infinite at the bound "
        "to which EM goes. Take the mode in unconstrained coordinates, "
        'EM(model, map="unconstrained"), or state concentrations of at least 1.',
    ),
    (
        "unbounded_prior",
        ("width", "Chi2", np.array([True, False, True]), False),
        ("unbounded prior", "width", "(0,), (2,)"),
        "'width' has no finite mode: the density of its Chi2 prior is infinite at the bound to "
        "which EM goes at (0,), (2,). Take the mode in unconstrained coordinates, "
        'EM(model, map="unconstrained"), or another prior.',
    ),
    (
        "saddle",
        ("+1 loc[0], -1 loc[1]",),
        ("saddle", "", "+1 loc[0], -1 loc[1]"),
        "the objective increases along +1 loc[0], -1 loc[1], and EM stays only for the symmetry. "
        "Start from elsewhere",
    ),
    (
        "ridge",
        ("+1 a, -1 b", ("a", "b"), 1),
        ("ridge", "", "+1 a, -1 b"),
        "the objective is flat along +1 a, -1 b: the data do not determine 'a', 'b'. Hold one of "
        "them, EM(model, fixed={'a'}), or state a prior",
    ),
    (
        "ridge",
        ("+1 a[0]", ("a",), 2),
        ("ridge", "", "+1 a[0]"),
        "the objective is flat along 2 directions, such as +1 a[0]: the data do not determine 'a'. "
        "Hold it, EM(model, fixed={'a'}), or state a prior",
    ),
    (
        "no_derivative",
        ("rho", "logit rho", "it enters the probs of 'y' through 'clamp'"),
        ("no derivative", "rho", "logit rho"),
        "The derivatives of the objective are not finite along logit rho (it enters the probs of "
        "'y' through 'clamp'). At this value a step of the program has none, such as a clamp at "
        "its bound, a root or logarithm of 0, or a `where` whose other branch is NaN. Write it so "
        "that it has one, start elsewhere, or hold the parameter: EM(model, fixed={'rho'}).",
    ),
    (
        "local_maximum",
        ("curves downward", 0),
        ("local maximum", "", ""),
        "the gradient is zero and curves downward",
    ),
    (
        "local_maximum",
        ("curves downward", 1),
        ("local maximum", "", ""),
        "the gradient is zero and curves downward, in what is free: 1 entry on the boundary",
    ),
    (
        "local_maximum",
        ("curves downward", 2),
        ("local maximum", "", ""),
        "the gradient is zero and curves downward, in what is free: 2 entries on the boundary",
    ),
    (
        "local_maximum",
        ("curves downward", 0, "a rotation leaves a direction open"),
        ("local maximum", "", ""),
        "the gradient is zero and curves downward; a rotation leaves a direction open",
    ),
    (
        "without_basis",
        (["factor"], 1),
        ("no basis", "factor", ""),
        "a change of the basis of 'factor', a rotation say, leaves a direction open",
    ),
    (
        "without_basis",
        (["state", "factor"], 5),
        ("no basis", "state", ""),
        "a change of the basis of 'state', 'factor', a rotation say, leaves 5 directions open",
    ),
    (
        "not_maximum_likelihood",
        ("hard",),
        ("not maximum likelihood", "", "hard"),
        "The E-step is hard: its estimate does not maximize log p(x | θ), as information "
        "criteria take for granted. Run on with a soft one, EM(model).run(key, ..., "
        "init_params=result.params), or compare by cross-validation, which is of any estimate.",
    ),
    (
        "pseudo_likelihood",
        (),
        ("pseudo-likelihood", "", ""),
        "The samples have sampling weights: log p is a pseudo-log-likelihood, and criteria price "
        "parameters as if the sample were a simple random one (Lumley & Scott, 2015). Take them "
        "for a guide; emjax.cross_validate weighs what it holds out, too.",
    ),
    (
        "other_e_steps",
        (["k-means"], ["soft", "hard"]),
        ("other E-steps", "", "k-means"),
        "The E-steps are soft and hard: information criteria are of maxima of log p(x | θ), and "
        "k-means are none. They leave these out; CV is of any estimate. Compare models of one "
        "E-step.",
    ),
    (
        "other_samples",
        ({"a": "12", "b": "9"},),
        ("other samples", "", ""),
        "The models count different numbers of samples (a: 12, b: 9): no information criterion "
        "but AIC chooses among them, and AIC compares them only if all observe the same data. Name "
        "the plate whose elements are the samples, choose(..., plate=...), and mask the same data "
        "in all.",
    ),
    (
        "impossible_held_out",
        (2, "candidate 3"),
        ("impossible", "", "candidate 3"),
        "candidate 3: 2 of the elements are impossible under the estimate from the other folds: "
        "they hold values that no other fold has. State a prior that allows these, such as a "
        "Dirichlet with concentrations above 1, or use more folds.",
    ),
    (
        "unconverged_folds",
        ("candidate 3", {"collapsed": 2, "max steps": 1}, 5),
        ("unconverged folds", "", "candidate 3"),
        "candidate 3: of 5 folds EM came to no maximum in 3 (collapsed in 2, max steps in 1), so "
        "that what they held out is no estimate's. State a floor or a prior where something "
        "collapses, or take more steps.",
    ),
    (
        "failed_refits",
        (3,),
        ("failed refits", "", ""),
        "3 of them failed and are left out",
    ),
    (
        "unconverged_refits",
        (3,),
        ("unconverged refits", "", ""),
        "3 did not converge",
    ),
    (
        "refits_at_resolution",
        (3,),
        ("refits at resolution", "", ""),
        "3 stopped at the resolution of float32, perhaps too near to where they started "
        "(jax.config.update('jax_enable_x64', True))",
    ),
    (
        "labels_aligned",
        (["z", "w"],),
        ("labels aligned", "z, w", ""),
        "labels of z, w aligned",
    ),
    (
        "labels_not_aligned",
        (["z", "w"],),
        ("labels not aligned", "z, w", ""),
        "no exchange of parameters exchanges the values of z, w, whose labels are as each refit "
        "left them",
    ),
    (
        "never_moved",
        (["loc", "scale"],),
        ("never moved", "loc, scale", ""),
        "loc, scale never moved: the estimate is a saddle, or a component is dead (em.diagnose "
        "says more)",
    ),
    (
        "not_at_maximum",
        ("larger", "max steps"),
        ("not at maximum", "", "larger"),
        "The fit of the larger program is no maximum of its likelihood (max steps), and a "
        "likelihood ratio is of two maxima. Run it again: more starts, EM(model, num_restarts=10), "
        "or more steps; a floor or a prior where something collapses.",
    ),
    (
        "negative_statistic",
        (-3.25,),
        ("negative likelihood ratio", "", ""),
        "The larger program explains the data worse (-3.25): its fit is a poor optimum, or its "
        "likelihood does not include that of the smaller one. Try more starts: EM(model, "
        "num_restarts=10).",
    ),
    (
        "failed_replicates",
        (2, 100),
        ("failed replicates", "", ""),
        "2 of 100 replicates are left out: a fit failed, or something collapsed. State a floor or "
        "a prior where it does.",
    ),
    (
        "unconverged_replicates",
        (4, 100),
        ("unconverged replicates", "", ""),
        "In 4 of 100 replicates a fit stopped before it had converged: these count as they are, "
        "and what its last steps would have gained is missing. Fit both programs with more steps, "
        "EM(model, max_steps=5000), which replicates take, too.",
    ),
    (
        "negative_replicates",
        (1, 100),
        ("negative replicates", "", ""),
        "In 1 of 100 replicates the larger program explains the data worse than the smaller one: "
        "its optimum there is a poor one, and their likelihood ratios are too small. Try more "
        "starts: num_starts=20.",
    ),
    (
        "checkpoint_not_written",
        ("run.checkpoint", "No space left on device"),
        ("not saved", "run.checkpoint", ""),
        "The checkpoint 'run.checkpoint' could not be written when it was last due (No space left "
        "on device): the file is as it was before, and the run has gone on. Make room there, or "
        "pass another path: em.run(..., checkpoint='run.checkpoint').",
    ),
]

WHY_IT_STOPPED = {
    "CONVERGED": "converged: the objective's last increase was within tol",
    "AT_RESOLUTION": "stopped at the resolution of float32: a step gains less than that tells from "
    "none, though perhaps more than tol; let the run end in double, EM(model, precision='double'), "
    "or enable float64 (jax.config.update('jax_enable_x64', True))",
    "MAX_STEPS": "stopped at max_steps before convergence: raise max_steps, or start from "
    "result.params",
    "INTERRUPTED": "interrupted before convergence: go on from where it stands, em.run(..., "
    "init_params=result.params); with em.run(..., checkpoint='run.checkpoint'), the same call goes "
    "on as if nothing had happened",
    "OBJECTIVE_DECREASED": "the objective decreased by more than rounding: params are those before "
    "the decrease; enable float64 (jax.config.update('jax_enable_x64', True)) if it is off, or "
    "check a maximizer given in m_step",
    "NOT_FINITE": "the objective became infinite or NaN: params are the last finite ones; a scale "
    "that shrinks to zero has no maximum, so state a floor (constraints.greater_than(...)) or a "
    "prior, or use fewer components (a prior that is itself infinite at a bound has no mode there: "
    'EM(model, map="unconstrained"))',
    "NOT_MAXIMIZED": "not converged: steps gain no more than tol, but a maximizer fails: it leaves "
    "parameters where Q is not at its maximum",
    "COLLAPSED": "not converged: the objective's last increase was within tol, but something has "
    "collapsed, and the likelihood has no maximum there",
}


FUNCTIONS = {}
for module in (findings, endings, verdicts):
    for name, function in inspect.getmembers(module, inspect.isfunction):
        is_own = function.__module__ == module.__name__ and not name.startswith("_")
        if is_own and name not in ("plain", "why_it_stopped"):
            FUNCTIONS[name] = function


@pytest.mark.parametrize(
    ("name", "arguments", "about", "printed"),
    SAID,
    ids=[f"{name}-{number}" for number, (name, *_) in enumerate(SAID)],
)
def test_a_finding_says_this_word_for_word(name, arguments, about, printed):
    finding = FUNCTIONS[name](*arguments)
    assert str(finding) == printed
    assert (finding.kind, finding.site, finding.where) == about


def test_every_finding_is_in_the_table():
    assert set(FUNCTIONS) == {name for name, *_ in SAID}


def test_why_a_run_stopped_is_said_word_for_word():
    assert endings.WHY_IT_STOPPED == WHY_IT_STOPPED
    nothing = [endings.not_a_number("loc")]
    for status, sentence in WHY_IT_STOPPED.items():
        assert endings.why_it_stopped(status, nothing) == sentence
    collapsed = [endings.collapsed("scale", "[1]", "component 1 of 'z'", 1e-9, "x")]
    assert endings.why_it_stopped("OBJECTIVE_DECREASED", collapsed) == (
        "the objective decreased by more than rounding, for something has collapsed, and with it "
        "the objective loses its digits: params are those before the decrease"
    )
    vanished = [endings.no_noise("noise", [()], ("x",), ("factor",), 0.01)]
    assert endings.why_it_stopped("OBJECTIVE_DECREASED", vanished) == (
        "the objective decreased by more than rounding, for a variance goes to zero, and with it "
        "the objective loses its digits: params are those before the decrease"
    )
    assert endings.why_it_stopped("MAX_STEPS", collapsed) == WHY_IT_STOPPED["MAX_STEPS"]
