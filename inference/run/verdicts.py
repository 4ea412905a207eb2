"""What EM arrived at, and what is to be known of refits: every sentence, and its remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from emjax.run.findings import Finding

RUN_ON = "Run on from here: em.run(key, ..., init_params=params)"


def _verdict(verdict: str, sentence: str, remedy: str = "", where: str = "") -> Finding:
    return Finding(verdict, "", where, sentence, remedy)


def degenerate(scales: Sequence[Finding]) -> Finding:
    """Return that scales have collapsed, so that there is no maximum to speak of."""
    return _verdict("degenerate", " ".join(map(str, scales)).rstrip("."))


def before_maximum(distance: float) -> Finding:
    """Return that there is a maximum near by, so many standard errors away."""
    sentence = f"the maximum is {distance:.2g} standard errors away."
    return _verdict("not stationary", sentence, f"{RUN_ON}, or with a smaller tol")


def still_moving(distance: float) -> Finding:
    """Return that EM still moves, by so many standard errors of the complete data a step."""
    step = f"by {distance:.2g} standard errors of the complete data a step"
    return _verdict("not stationary", f"EM is still moving, {step}.", RUN_ON)


def saddle(direction: str) -> Finding:
    """Return that the objective increases along a direction, which the latents' symmetry hides.

    `direction`: in words, from `certificates.curvature.described`; likewise for `ridge`.
    """
    sentence = f"the objective increases along {direction}, and EM stays only for the symmetry."
    return _verdict("saddle", sentence, "Start from elsewhere", direction)


def ridge(direction: str, parameters: Sequence[str], num_directions: int) -> Finding:
    """Return that the objective is flat along some directions, of which one is named.

    `parameters`: those that they leave open.
    """
    names = ", ".join(f"'{name}'" for name in parameters)
    along = (
        direction if num_directions == 1 else f"{num_directions} directions, such as {direction}"
    )
    sentence = f"the objective is flat along {along}: the data do not determine {names}."
    held = "".join(repr(name) for name in parameters[:1])
    which = "it" if len(parameters) == 1 else "one of them"
    remedy = f"Hold {which}, EM(model, fixed={{{held}}}), or state a prior"
    return _verdict("ridge", sentence, remedy, direction)


def without_basis(latents: Sequence[str], num_directions: int) -> Finding:
    """Return that Gaussian latents have no basis of their own, in so many directions."""
    names = ", ".join(f"'{name}'" for name in latents)
    which = "a direction" if num_directions == 1 else f"{num_directions} directions"
    sentence = f"a change of the basis of {names}, a rotation say, leaves {which} open"
    return Finding("no basis", latents[0], "", sentence, "")


def local_maximum(downward: str, num_on_boundary: int, without: str = "") -> Finding:
    """Return that nothing is wrong.

    `downward`: what is known of the second derivatives; `without`: of which directions nothing is,
    in words, from `without_basis`.
    """
    sentence = f"the gradient is zero and {downward}"
    if num_on_boundary:
        entries = "entry" if num_on_boundary == 1 else "entries"
        sentence += f", in what is free: {num_on_boundary} {entries} on the boundary"
    return _verdict("local maximum", f"{sentence}; {without}" if without else sentence)


def no_derivative(parameter: str, coordinate: str, how: str) -> Finding:
    """Return that the objective has no finite derivatives by a parameter.

    `coordinate`: along which one; `how`: how the parameter is maximized, in words.
    """
    return Finding(
        "no derivative",
        parameter,
        coordinate,
        f"The derivatives of the objective are not finite along {coordinate}{how and f' ({how})'}.",
        "At this value a step of the program has none, such as a clamp at its bound, a root or "
        "logarithm of 0, or a `where` whose other branch is NaN. Write it so that it has one, "
        f"start elsewhere, or hold the parameter: EM(model, fixed={{'{parameter}'}}).",
    )


# ── models side by side ───────────────────────────────────────────────────────────────────────────


def not_maximum_likelihood(e_step: str) -> Finding:
    """Return that an estimate is not where information criteria take it to be. `e_step`: which."""
    return Finding(
        "not maximum likelihood",
        "",
        e_step,
        f"The E-step is {e_step}: its estimate does not maximize log p(x | θ), as information "
        "criteria take for granted.",
        "Run on with a soft one, EM(model).run(key, ..., init_params=result.params), or compare "
        "by cross-validation, which is of any estimate.",
    )


def pseudo_likelihood() -> Finding:
    """Return that information criteria are of samples that stand for different numbers."""
    return Finding(
        "pseudo-likelihood",
        "",
        "",
        "The samples have sampling weights: log p is a pseudo-log-likelihood, and criteria price "
        "parameters as if the sample were a simple random one (Lumley & Scott, 2015).",
        "Take them for a guide; emjax.cross_validate weighs what it holds out, too.",
    )


def other_e_steps(labels: Sequence[str], e_steps: Sequence[str]) -> Finding:
    """Return which of several models are left out by information criteria, for their E-step."""
    names, words = ", ".join(labels), " and ".join(e_steps)
    return Finding(
        "other E-steps",
        "",
        names,
        f"The E-steps are {words}: information criteria are of maxima of log p(x | θ), and {names} "
        "are none. They leave these out; CV is of any estimate.",
        "Compare models of one E-step.",
    )


def other_samples(numbers: Mapping[str, str]) -> Finding:
    """Return that models count different samples. `numbers`: {label: how many it counts}."""
    listed = ", ".join(f"{label}: {number}" for label, number in numbers.items())
    return Finding(
        "other samples",
        "",
        "",
        f"The models count different numbers of samples ({listed}): no information criterion "
        "but AIC chooses among them, and AIC compares them only if all observe the same data.",
        "Name the plate whose elements are the samples, choose(..., plate=...), and mask the same "
        "data in all.",
    )


def unconverged_folds(model: str, reasons: Mapping[str, int], num_folds: int) -> Finding:
    """Return that folds of a model's cross-validation came to no maximum.

    `reasons`: {status: in how many folds}.
    """
    listed = ", ".join(f"{reason} in {count}" for reason, count in reasons.items())
    return Finding(
        "unconverged folds",
        "",
        model,
        f"{model}: of {num_folds} folds EM came to no maximum in {sum(reasons.values())} "
        f"({listed}), so that what they held out is no estimate's.",
        "State a floor or a prior where something collapses, or take more steps.",
    )


def impossible_held_out(count: int, model: str = "") -> Finding:
    """Return that some held-out elements are impossible without their folds.

    `model`: which of several.
    """
    return Finding(
        "impossible",
        "",
        model,
        f"{model and f'{model}: '}{count} of the elements are impossible under the estimate from "
        "the other folds: they hold values that no other fold has.",
        "State a prior that allows these, such as a Dirichlet with concentrations above 1, or use "
        "more folds.",
    )


# ── refits ────────────────────────────────────────────────────────────────────────────────────────


def failed_refits(count: int) -> Finding:
    """Return that some refits failed."""
    return Finding("failed refits", "", "", f"{count} of them failed and are left out")


def unconverged_refits(count: int) -> Finding:
    """Return that some refits stopped before they had converged."""
    sentence = f"{count} did not converge"
    return Finding("unconverged refits", "", "", sentence)


def refits_at_resolution(count: int) -> Finding:
    """Return that some refits, which start at the estimate, stopped for want of precision."""
    sentence = (
        f"{count} stopped at the resolution of float32, perhaps too near to where they started"
    )
    remedy = "(jax.config.update('jax_enable_x64', True))"
    return Finding("refits at resolution", "", "", sentence, remedy)


def labels_aligned(latents: Sequence[str]) -> Finding:
    """Return whose labels in the refits are those of the estimate."""
    names = ", ".join(latents)
    return Finding("labels aligned", names, "", f"labels of {names} aligned")


def labels_not_aligned(latents: Sequence[str]) -> Finding:
    """Return whose labels in the refits may be others than those of the estimate."""
    names = ", ".join(latents)
    return Finding(
        "labels not aligned",
        names,
        "",
        f"no exchange of parameters exchanges the values of {names}, whose labels are as each "
        "refit left them",
    )


def never_moved(parameters: Sequence[str]) -> Finding:
    """Return which parameters are the same in all refits."""
    names = ", ".join(parameters)
    return Finding(
        "never moved",
        names,
        "",
        f"{names} never moved: the estimate is a saddle, or a component is dead",
        "(em.diagnose says more)",
    )


# ── tests of the number of classes ────────────────────────────────────────────────────────────────


def not_at_maximum(which: str, status: str) -> Finding:
    """Return that one of two fits is no maximum. `which`: "smaller" or "larger"."""
    return Finding(
        "not at maximum",
        "",
        which,
        f"The fit of the {which} program is no maximum of its likelihood ({status}), and a "
        "likelihood ratio is of two maxima.",
        "Run it again: more starts, EM(model, num_restarts=10), or more steps; a floor or a prior "
        "where something collapses.",
    )


def negative_statistic(statistic: float) -> Finding:
    """Return that the larger of two programs has the smaller likelihood."""
    return Finding(
        "negative likelihood ratio",
        "",
        "",
        f"The larger program explains the data worse ({statistic:.4g}): its fit is a poor optimum, "
        "or its likelihood does not include that of the smaller one.",
        "Try more starts: EM(model, num_restarts=10).",
    )


def failed_replicates(count: int, total: int) -> Finding:
    """Return that some replicates have no likelihood ratio."""
    return Finding(
        "failed replicates",
        "",
        "",
        f"{count} of {total} replicates are left out: a fit failed, or something collapsed.",
        "State a floor or a prior where it does.",
    )


def unconverged_replicates(count: int, total: int) -> Finding:
    """Return that a fit to some replicates stopped before it had converged."""
    return Finding(
        "unconverged replicates",
        "",
        "",
        f"In {count} of {total} replicates a fit stopped before it had converged: these count as "
        "they are, and what its last steps would have gained is missing.",
        "Fit both programs with more steps, EM(model, max_steps=5000), which replicates take, too.",
    )


def negative_replicates(count: int, total: int) -> Finding:
    """Return that the larger program came to a poor optimum in some replicates."""
    return Finding(
        "negative replicates",
        "",
        "",
        f"In {count} of {total} replicates the larger program explains the data worse than the "
        "smaller one: its optimum there is a poor one, and their likelihood ratios are too small.",
        "Try more starts: num_starts=20.",
    )
