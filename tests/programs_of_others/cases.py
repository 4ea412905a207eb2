"""All programs of others, on data."""

import numpy as np

from tests.models import test_numpyro_programs as published
from tests.programs_of_others import (
    capture_recapture,
    chorales,
    enumeration,
    enumeration_tutorial,
    truncated,
)
from tests.programs_of_others.case import Case

CAPTURES, SEX = capture_recapture.histories(40, 6, seed=0)
NUM_UNKNOWN = int((np.cumsum(CAPTURES, 1)[:, :-1] == 0).sum())  # years before the first capture
SEQUENCES, LENGTHS = chorales.chorales((6, 4, 5), 3, seed=1)
NUM_AFTER_THE_END = int(LENGTHS.max() * len(LENGTHS) - LENGTHS.sum())
X1, X2 = np.array([-1.0, -1.0, 0.0]), np.array([-1.0, 1.0])
BINARY = np.array([0, 1])
THREE_POINTS = np.array([1.0, 2.0, 3.0])


def captured(program, **fields):
    return Case(program, (CAPTURES, SEX), num_masked={2: NUM_UNKNOWN}, **fields)


def of_chorales(program, num_states, num_chains=1, **fields):
    priors_off = {"include_prior": False}
    masked = {num_states: num_chains * NUM_AFTER_THE_END}
    args = SEQUENCES, LENGTHS, num_states
    return Case(program, args, priors_off, num_masked=masked, **fields)


CASES = {
    "capture_recapture 1": captured(capture_recapture.constant_survival),
    "capture_recapture 2": captured(capture_recapture.survival_of_each_year),
    "capture_recapture 3": captured(capture_recapture.random_survival_of_each_year),
    "capture_recapture 4": captured(capture_recapture.survival_of_each_sex),
    "capture_recapture 5": captured(capture_recapture.survival_of_each_sex_and_year),
    "occupancy": Case(capture_recapture.occupancy, (capture_recapture.visits(),)),
    "hmm_enum 0": Case(chorales.one_by_one, (SEQUENCES, LENGTHS, 2), {"include_prior": False}),
    "hmm_enum 1": of_chorales(chorales.plain, 2),
    "hmm_enum 2": of_chorales(chorales.autoregressive, 2),
    "hmm_enum 3": of_chorales(chorales.factorial, 2, num_chains=2),
    "hmm_enum 4": of_chorales(chorales.dynamic_bayesian_network, 2, num_chains=2),
    "hmm_enum 5": of_chorales(chorales.neural, 2),
    "hmm_enum 6": of_chorales(chorales.second_order, 2),
}
WITH_PRIORS = {
    f"{name}, priors": Case(
        case.program, case.args, {}, case.oracle, case.num_masked, case.settings, case.start
    )
    for name, case in CASES.items()
    if name.startswith("hmm_enum")
}
ANNOTATION = {name: Case(case.program, case.args) for name, case in published.PROGRAMS.items()}
KNOWN3, ALL3 = np.array([True, True, False]), np.array([True, True, True])
DATA3 = np.array([1, 0, 1])
ENUM_ELBO = {
    name: Case(program, args, kwargs)
    for name, program, args, kwargs in [
        ("enumerate_1", enumeration.unobserved_leaf, (), {}),
        ("enumerate_2", enumeration.line, (), {}),
        ("enumerate_3", enumeration.line_scaled_in_part, (), {}),
        ("plate_1", enumeration.plate_of_leaves, (DATA3, ALL3), {}),
        ("plate_1 masked", enumeration.plate_of_leaves, (DATA3, KNOWN3), {}),
        ("plate_2", enumeration.plate_below_the_root, (DATA3, ALL3), {}),
        ("plate_2 masked", enumeration.plate_below_the_root, (DATA3, KNOWN3), {}),
        ("plate_3", enumeration.plate_of_lines, (DATA3, ALL3), {}),
        ("plate_3 masked", enumeration.plate_of_lines, (DATA3, KNOWN3), {}),
        ("plate_4 outer", enumeration.outside_and_inside, (2.0, None), {}),
        ("plate_4 inner", enumeration.outside_and_inside, (None, np.array([0.5, 1.5])), {}),
        ("plate_4", enumeration.outside_and_inside, (2.0, np.array([0.5, 1.5])), {}),
        ("plate_7", enumeration.ladder, (np.array([0, 0]),), {}),
        ("plates_1", enumeration.plates_apart, (BINARY, np.array([0, 0, 1])), {}),
        ("plates_2", enumeration.plates_of_one_root, (BINARY, np.array([0, 0, 1])), {}),
        ("plates_3", enumeration.nested_plates, (enumeration.SQUARE,), {}),
        ("plates_4", enumeration.tree_of_plates, (enumeration.SQUARE,), {}),
        ("plates_5", enumeration.tree_with_a_shortcut, (enumeration.SQUARE,), {}),
        ("plates_6", enumeration.crossed_plates, (enumeration.SQUARE,), {}),
        ("plates_6 plate, loop", enumeration.crossed_plate_and_loop, (enumeration.SQUARE,), {}),
        ("plates_6 loops", enumeration.crossed_loops, (enumeration.SQUARE,), {}),
        ("plates_7", enumeration.crossed_plates_of_trees, (enumeration.SQUARE,), {}),
        ("subsample_2", enumeration.one_datum_for_a_plate, (), {}),
        ("subsample_3", enumeration.one_datum_for_nested_plates, (), {}),
    ]
}
ENUM_ELBO_UNSCALED = {
    name: Case(program, args)
    for name, program, args in [
        ("plate_5", enumeration.global_and_local, (np.array([1, 2]),)),
        ("plate_5 loops", enumeration.global_and_local_in_loops, (np.array([1, 2]),)),
        ("plate_6", enumeration.two_globals, (np.array([1, 2]),)),
        ("plates_8", enumeration.global_in_the_inner_plate, (np.array([[0, 1], [0, 2]]),)),
        ("plate_9", enumeration.two_levels, (np.array([1, 2]),)),
        ("plate_10", enumeration.two_levels_of_plates, (enumeration.OBLONG,)),
        ("plate_11", enumeration.two_levels_in_the_plate, (enumeration.OBLONG,)),
        ("plate_12", enumeration.three_levels, (enumeration.OBLONG,)),
        ("plate_13", enumeration.unobserved_branch, (enumeration.OBLONG,)),
        ("guide_plate_contraction", enumeration.sum_of_counts, ()),
    ]
}
INFER_DISCRETE = {
    name: Case(program, args)
    for name, program, args in [
        ("distribution_1", enumeration.global_choice, (THREE_POINTS,)),
        ("distribution_2", enumeration.two_global_choices, (X1, np.array([-1.0, 1.0, 1.0]))),
        ("distribution_3_simple", enumeration.local_choices, (X2,)),
        ("distribution_3", enumeration.global_and_local_choices, (X1, X2)),
        ("zzxx", enumeration.choices_under_priors, (X1, X2)),
        ("model2", enumeration.prior_that_reads_a_latent, (X1, X2)),
        (
            "distribution_masked",
            enumeration.masked_data,
            (THREE_POINTS, np.array([True, False, False])),
        ),
        ("hmm_smoke", enumeration.hmm_in_a_loop, (np.array([0.3, 1.1, 2.2, 1.9]), 4)),
        ("scan_hmm_smoke", enumeration.hmm_in_a_scan, (np.array([0.3, 1.1, 2.2, 1.9]), 4)),
        ("scan_hmm_smoke length 1", enumeration.hmm_in_a_scan, (np.array([0.3]), 4)),
    ]
}
Z = np.random.default_rng(2).integers(0, 2, (4, 5))
TUTORIAL = {
    name: Case(program, args, kwargs)
    for name, program, args, kwargs in [
        ("tutorial one latent", enumeration_tutorial.one_latent, (), {}),
        ("tutorial x y z", enumeration_tutorial.three_in_a_row, (2,), {}),
        ("tutorial Vindex", enumeration_tutorial.indexed_by_two, (np.array([0, 1, 4, 2, 1]),), {}),
        (
            "tutorial mixture",
            enumeration_tutorial.gaussian_mixture,
            (np.random.default_rng(0).normal(size=10),),
            {},
        ),
        ("tutorial sum of a plate", enumeration_tutorial.sum_of_a_plate, (6.3,), {}),
        ("tutorial sum of a loop", enumeration_tutorial.sum_of_a_loop, (6.3,), {}),
        ("tutorial Boltzmann", enumeration_tutorial.boltzmann_machine, (Z,), {}),
        ("tutorial Boltzmann loop", enumeration_tutorial.boltzmann_machine_in_a_loop, (Z,), {}),
        ("tutorial hmm", enumeration_tutorial.hmm, (np.array([0, 1, 3, 2, 2, 0]), 4, 3), {}),
        (
            "tutorial hmm markov",
            enumeration_tutorial.hmm_under_markov,
            (np.array([0, 1, 3, 2, 2, 0]), 4, 3),
            {},
        ),
        (
            "tutorial hmm flat",
            enumeration_tutorial.hmm,
            (np.array([0, 1, 3, 2, 2, 0]), 4, 3),
            {"concentration": 1.0},
        ),
    ]
}
BELOW = truncated.below(1.2, 60, seed=0)
FEATURES, COUNTS = truncated.fishing(60, seed=0)
TRUNCATED = {
    name: Case(program, args)
    for name, program, args in [
        ("truncated normal", truncated.truncated_normal, (len(BELOW), 1.2, BELOW)),
        ("folded Student", truncated.folded_student, (len(BELOW), np.abs(BELOW))),
        ("right-truncated normal", truncated.right_truncated_normal, (len(BELOW), 1.2, BELOW)),
        (
            "truncated Poisson",
            truncated.truncated_poisson,
            (
                20,
                np.random.default_rng(3).poisson(3.0, 40)[:20] * 0
                + np.maximum(np.random.default_rng(3).poisson(3.0, 20), 2),
            ),
        ),
        ("zero-inflated", truncated.zero_inflated_regression, (FEATURES, COUNTS)),
        (
            "zero-inflated latent",
            truncated.zero_inflated_regression_by_a_latent,
            (FEATURES, COUNTS),
        ),
    ]
}
CASES = (
    CASES
    | WITH_PRIORS
    | ANNOTATION
    | ENUM_ELBO
    | ENUM_ELBO_UNSCALED
    | INFER_DISCRETE
    | TUTORIAL
    | TRUNCATED
)
