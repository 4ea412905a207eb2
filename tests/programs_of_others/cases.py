"""All programs of others, on data: by where they come from, and by name."""

import numpy as np

from tests.programs_of_others import (
    annotation,
    capture_recapture,
    choices,
    chorales,
    enumeration_tutorial,
    mixtures,
    plates,
    truncated,
)
from tests.programs_of_others.case import Case

JOINT_TABLE = "joint table"


def of_captures() -> dict[str, Case]:
    """Return the five models, the first as it is meant, and the occupancy model."""
    captures, sex = capture_recapture.histories(100, 6, seed=0)
    # of the years that are scanned, those up to the first capture are masked
    num_masked = int((np.cumsum(captures, 1)[:, :-1] == 0).sum())

    def case(program):
        return Case(program, (captures, sex), num_masked={2: num_masked})

    return {
        "model 1": case(capture_recapture.constant_survival),
        "model 2": case(capture_recapture.survival_of_each_year),
        "model 3": case(capture_recapture.random_survival_of_each_year),
        "model 4": case(capture_recapture.survival_of_each_sex),
        "model 5": case(capture_recapture.survival_of_each_sex_and_year),
        "model 1, as meant": Case(capture_recapture.constant_survival_as_meant, (captures, sex)),
        "occupancy": Case(capture_recapture.occupancy, (capture_recapture.visits(),)),
    }


def of_chorales(include_prior: bool) -> dict[str, Case]:
    """Return models 0 to 6; the sparse priors have no finite mode but in logits."""
    few = chorales.chorales((4, 3), 2, seed=1)
    sequences, lengths = chorales.chorales((9, 6, 10, 8, 10, 7), 3, seed=0)
    num_after_the_end = lengths.max() * len(lengths) - lengths.sum()
    settings = {"map": "unconstrained"} if include_prior else {}
    settings["num_restarts"] = 20
    name = "model {}, priors" if include_prior else "model {}"

    def case(program, data, num_chains=1, num_masked=0, **fewer):
        return Case(
            program,
            (*data, 2),
            {"include_prior": include_prior},
            num_masked={2: num_chains * num_masked},
            settings=settings | fewer,
        )

    longer = (sequences, lengths)
    return {
        name.format(0): case(chorales.one_by_one, few),
        name.format(1): case(chorales.plain, longer, 1, num_after_the_end),
        name.format(2): case(chorales.autoregressive, longer, 1, num_after_the_end),
        name.format(3): case(chorales.factorial, longer, 2, num_after_the_end),
        name.format(4): case(chorales.dynamic_bayesian_network, longer, 2, num_after_the_end),
        name.format(5): case(chorales.neural, few, 1, 1, num_restarts=60, short_steps=None),
        name.format(6): case(chorales.second_order, longer, 1, num_after_the_end),
    }


def of_annotation() -> dict[str, Case]:
    """Return the six models; 45 items of 4 classes have 7 labels each, of 5 annotators."""
    annotator, labels = annotation.annotations(45, 4, seed=0)
    several = {"num_restarts": 10}
    in_logits = {"map": "unconstrained", "num_restarts": 10}
    return {
        "multinomial": Case(annotation.pooled, (labels,), settings=several),
        "Dawid–Skene": Case(annotation.dawid_skene, (annotator, labels), settings=several),
        "MACE": Case(annotation.mace, (annotator, labels), settings=in_logits),
        "hierarchical Dawid–Skene": Case(
            annotation.hierarchical_dawid_skene, (annotator, labels), settings=several
        ),
        "item difficulty": Case(annotation.item_difficulty, (labels,), settings=several),
        "logistic random effects": Case(
            annotation.logistic_random_effects, (annotator, labels), settings=several
        ),
    }


def of_mixtures() -> dict[str, Case]:
    """Return the mixture of five points: its density is infinite at a scale of 0."""
    settings = {"map": "unconstrained", "num_restarts": 10}
    return {
        "five points": Case(mixtures.gaussian_mixture, (mixtures.FIVE_POINTS,), settings=settings)
    }


def of_truncated_data() -> dict[str, Case]:
    """Return what is truncated, folded, or has too many zeros."""
    below = truncated.below(1.2, 60, seed=0)
    counts = np.maximum(np.random.default_rng(3).poisson(3.0, 20), 2)
    trips = truncated.fishing(60, seed=0)
    return {
        "truncated normal": Case(truncated.truncated_normal, (len(below), 1.2, below)),
        "folded Student": Case(truncated.folded_student, (len(below), np.abs(below))),
        "a normal of one's own": Case(truncated.right_truncated_normal, (len(below), 1.2, below)),
        "a Poisson of one's own": Case(
            truncated.truncated_poisson, (len(counts), counts), oracle=JOINT_TABLE
        ),
        "zero-inflated regression": Case(truncated.zero_inflated_regression, trips),
        "its zeros as a latent": Case(truncated.zero_inflated_regression_by_a_latent, trips),
    }


def of_plates() -> dict[str, Case]:
    """Return what `test_enum_elbo` sums out."""
    binary, three = np.array([0, 1]), np.array([0, 0, 1])
    data, is_known, all_known = np.array([1, 0, 1]), np.arange(3) < 2, np.ones(3, bool)
    square, oblong, ones = plates.SQUARE, plates.OBLONG, np.array([1, 2])
    points = np.array([0.5, 1.5])
    crossed = {"oracle": JOINT_TABLE}
    return {
        "enumerate_1": Case(plates.unobserved_leaf),
        "enumerate_2": Case(plates.line),
        "enumerate_3": Case(plates.line_scaled_in_part),
        "plate_1": Case(plates.plate_of_leaves, (data, all_known)),
        "plate_1, masked": Case(plates.plate_of_leaves, (data, is_known)),
        "plate_2": Case(plates.plate_below_the_root, (data, all_known)),
        "plate_2, masked": Case(plates.plate_below_the_root, (data, is_known), num_masked={2: 1}),
        "plate_3": Case(plates.plate_of_lines, (data, all_known)),
        "plate_3, masked": Case(plates.plate_of_lines, (data, is_known), num_masked={2: 2}),
        "plate_4, outer": Case(plates.outside_and_inside, (2.0, None)),
        "plate_4": Case(plates.outside_and_inside, (2.0, points)),
        "plate_5": Case(plates.global_and_local, (ones,)),
        "plate_5, loops": Case(plates.global_and_local_in_loops, (ones,)),
        "plate_6": Case(plates.two_globals, (ones,)),
        "plate_7": Case(plates.ladder, (np.array([0, 0]),)),
        "plate_9": Case(plates.two_levels, (ones,)),
        "plate_10": Case(plates.two_levels_of_plates, (oblong,)),
        "plate_11": Case(plates.two_levels_in_the_plate, (oblong,)),
        "plate_12": Case(plates.three_levels, (oblong,)),
        "plate_13": Case(plates.unobserved_branch, (oblong,)),
        "plates_1": Case(plates.plates_apart, (binary, three)),
        "plates_2": Case(plates.plates_of_one_root, (binary, three)),
        "plates_3": Case(plates.nested_plates, (square,)),
        "plates_4": Case(plates.tree_of_plates, (square,)),
        "plates_5": Case(plates.tree_with_a_shortcut, (square,)),
        "plates_6": Case(plates.crossed_plates, (square,), **crossed),
        "plates_6, plate and loop": Case(plates.crossed_plate_and_loop, (square,)),
        "plates_6, loops": Case(plates.crossed_loops, (square,)),
        "plates_7": Case(plates.crossed_plates_of_trees, (square,)),
        "plates_8": Case(plates.global_in_the_inner_plate, (np.array([[0, 1], [0, 2]]),)),
        "enumerate_2, scale 10": Case(plates.line, (), {"scale": 10}, oracle="ELBO"),
        "plates_4, scale 10": Case(plates.tree_of_plates, (square,), {"scale": 10}, oracle="ELBO"),
        "subsample_2, all": Case(plates.one_datum_for_a_plate),
        "subsample_3, all": Case(plates.one_datum_for_nested_plates),
    }


def of_choices() -> dict[str, Case]:
    """Return what `test_infer_discrete` sums out."""
    first, second, points = np.array([-1.0, -1.0, 0.0]), np.array([-1.0, 1.0]), np.arange(1.0, 4.0)
    signal = np.array([0.3, 1.1, 2.2, 1.9])
    return {
        "distribution_1": Case(choices.global_choice, (points,)),
        "distribution_2": Case(
            choices.two_global_choices,
            (first, np.array([-1.0, 1.0, 1.0])),
            settings={"init": "responsibilities", "num_restarts": 20},
        ),
        "distribution_3_simple": Case(choices.local_choices, (second,)),
        "distribution_3": Case(choices.global_and_local_choices, (first, second)),
        "distribution_masked": Case(choices.masked_data, (points, np.arange(3) < 1)),
        "model_zzxx": Case(choices.choices_under_priors, (first, second)),
        "model2": Case(choices.prior_that_reads_a_latent, (first, second)),
        "hmm_smoke": Case(choices.hmm_in_a_loop, (signal, 4)),
        "scan_hmm_smoke": Case(choices.hmm_in_a_scan, (signal, 4)),
        "scan_hmm_smoke, one step": Case(choices.hmm_in_a_scan, (signal[:1], 4)),
    }


def of_the_tutorial() -> dict[str, Case]:
    """Return what Pyro's tutorial of enumeration shows, valid to Pyro or not."""
    values, z = np.array([0, 1, 3, 2, 2, 0]), np.random.default_rng(2).integers(0, 2, (4, 5))
    data = np.random.default_rng(0).normal(size=10)
    in_logits = {"map": "unconstrained", "num_restarts": 10}
    sum_of_a_plate = enumeration_tutorial.sum_of_a_plate
    return {
        "x → y → z": Case(enumeration_tutorial.three_in_a_row, (2,)),
        "Vindex": Case(enumeration_tutorial.indexed_by_two, (np.array([0, 1, 4, 2, 1]),)),
        "Gaussian mixture": Case(
            enumeration_tutorial.gaussian_mixture, (data,), settings=in_logits
        ),
        "sum of a plate (invalid)": Case(sum_of_a_plate, (6.3,), oracle=JOINT_TABLE),
        "sum of a loop": Case(enumeration_tutorial.sum_of_a_loop, (6.3,)),
        "Boltzmann machine (invalid)": Case(
            enumeration_tutorial.boltzmann_machine, (z,), oracle=JOINT_TABLE
        ),
        "its rows as a loop": Case(enumeration_tutorial.boltzmann_machine_in_a_loop, (z,)),
        "time series": Case(enumeration_tutorial.hmm, (values, 4, 2), settings=in_logits),
        "under markov": Case(
            enumeration_tutorial.hmm_under_markov, (values, 4, 2), settings=in_logits
        ),
    }


SOURCES: dict[str, dict[str, Case]] = {
    "NumPyro's `examples/capture_recapture.py`": of_captures(),
    "NumPyro's `examples/hmm_enum.py`, without priors": of_chorales(include_prior=False),
    "NumPyro's `examples/hmm_enum.py`, with priors": of_chorales(include_prior=True),
    "NumPyro's `examples/annotation.py`": of_annotation(),
    "NumPyro's tutorial of Gaussian mixtures": of_mixtures(),
    "NumPyro's tutorials of truncated and of zero-inflated data": of_truncated_data(),
    "NumPyro's `test_enum_elbo.py`": of_plates(),
    "NumPyro's `test_infer_discrete.py`": of_choices(),
    "Pyro's tutorial of enumeration": of_the_tutorial(),
}
CASES = {(source, name): case for source, cases in SOURCES.items() for name, case in cases.items()}
