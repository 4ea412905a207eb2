"""The rows of models that are linear in Gaussian latents, which `EM(integrate=...)` sums out."""

from experiments.benchmarks.row import F64, Goal, Row

BY_ROWS = "hand-written JAX, by rows"
OURS = {"emjax": F64, "hand-written JAX": F64}
FEW_POINTS = {"num_samples": 1_200, "num_features": 6, "num_factors": 2}
SERIES = {"num_steps": 10_000, "num_states": 4, "num_features": 4}
FEW_STEPS = {"num_steps": 60, "num_states": 2, "num_features": 3}


def factors(name: str, num_samples: int, *libraries: str) -> Row:
    """Return a row of factor analysis, where a step takes the same time for any number of rows."""
    return Row(
        name,
        "factor analysis",
        "factor_analysis",
        {"num_samples": num_samples, "num_features": 50, "num_factors": 5},
        FEW_POINTS,
        (2, 2_002),
        OURS | dict.fromkeys(libraries, F64),
        tuple(Goal(1, library, "float64") for library in libraries),
        own_steps=dict.fromkeys(libraries, (1, 3)),
    )


TABLE = (
    factors("factors", 100_000, "scikit-learn, lapack", "scikit-learn, randomized"),
    factors("factors10k", 10_000),
    Row(
        "factors_counted",
        "factor analysis, rows with counts",
        "counted_factor_analysis",
        {"num_samples": 100_000, "num_features": 50, "num_factors": 5},
        FEW_POINTS,
        (2, 22),
        OURS,
    ),
    Row(
        "effects",
        "linear mixed model",
        "linear_mixed_model",
        {"num_rows": 200_000, "num_groups": 5_000, "num_fixed": 4},
        {"num_rows": 600, "num_groups": 30, "num_fixed": 3},
        (2, 102),
        OURS | {BY_ROWS: F64},
    ),
    Row(
        "states",
        "linear state space",
        "linear_state_space",
        SERIES,
        FEW_STEPS,
        (2, 8),
        {"emjax": F64, "emjax, parallel": F64, "hand-written JAX": F64, "dynamax": F64},
    ),
    Row(
        "states_e_step",
        "linear state space, E-step alone",
        "linear_state_space_e_step",
        SERIES,
        FEW_STEPS,
        (2, 8),
        {"emjax": F64, "emjax, parallel": F64, "hand-written JAX": F64, "dynamax": F64},
    ),
)
