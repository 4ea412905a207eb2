"""Splink's own EM on DuckDB, on the comparisons of a file: what it finds, and how long it takes.

Splink starts from records. Here its function for EM, which its public `estimate_parameters_using_
expectation_maximisation` calls after blocking and comparing, is given the levels of a file, so that
EM alone is measured. Written for Splink 5.0 (`pip install splink`).
"""

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.iterates import Params
from experiments.linkage.fits import timed
from experiments.linkage.simulation import NUM_LEVELS

PROBABILITY = "match_rate"


class Splink(NamedTuple):
    """Where Splink's EM ended.

    - `params`: as those of `record_linkage.program`.
    - `num_steps`: how many EM steps it took.
    - `seconds_to_load`: from the file to a table of DuckDB.
    - `seconds`: of EM alone, with what it counts before.
    """

    params: Params
    num_steps: int
    seconds_to_load: float
    seconds: float


def is_installed() -> bool:
    """Say whether Splink is there."""
    return find_spec("splink") is not None


def fitted(path: Path, start: Params, num_steps: int, on_patterns: bool) -> Splink:
    """Return where Splink's EM gets in so many steps at most, m, u and the match rate free.

    `on_patterns`: `estimate_without_term_frequencies`, which counts equal comparisons first; False
    is Splink's default.
    """
    from splink import DuckDBAPI
    from splink.internals.expectation_maximisation import expectation_maximisation

    api = DuckDBAPI(":memory:")
    settings = linker(api, start, num_steps)._settings_obj
    columns = ", ".join(f"{name} as gamma_{name}" for name in NUM_LEVELS)
    seconds: dict[str, float] = {}
    of_file = f"select {columns}, 0 as match_key from read_parquet('{path}')"
    with timed(seconds, "load"):
        api._con.execute(f"create table levels as {of_file}")
    with timed(seconds, "EM"):
        history = expectation_maximisation(
            db_api=api,
            training_settings=settings.training_settings,
            estimate_without_term_frequencies=on_patterns,
            core_model_settings=settings.core_model_settings,
            unique_id_input_columns=[],
            training_fixed_probabilities=set(),
            df_comparison_vector_values=api.table_to_splink_dataframe(
                "__splink__df_comparison_vectors", "levels"
            ),
        )
    return Splink(params_of(history[-1]), len(history) - 1, seconds["load"], seconds["EM"])


def linker(api, start: Params, num_steps: int):
    """Return Splink's model of the fields, from a start, without records."""
    import pyarrow as pa
    from splink import Linker, SettingsCreator
    from splink.internals.comparison_library import CustomComparison

    comparisons = [
        CustomComparison(levels_of(name, start), output_column_name=name) for name in NUM_LEVELS
    ]
    settings = SettingsCreator(
        link_type="dedupe_only",
        comparisons=comparisons,
        probability_two_random_records_match=float(start[PROBABILITY]),
        max_iterations=num_steps,
    )
    records = pa.table({"unique_id": [0, 1], **{name: ["", ""] for name in NUM_LEVELS}})
    return Linker(api.register(records), settings, log_level=logging.ERROR)


def levels_of(name: str, start: Params) -> list[dict]:
    """Return Splink's levels of a field: what is missing, then from the highest down."""
    num = NUM_LEVELS[name]
    column = f"{name}_l"
    levels = [{"sql_condition": f"{column} is null", "is_null_level": True}]
    for level in reversed(range(num)):
        condition = f"{column} = '{level}'" if level else "ELSE"
        of_level = {"m_probability": start[f"m_{name}"], "u_probability": start[f"u_{name}"]}
        probs = {key: float(probs[level]) for key, probs in of_level.items()}
        levels.append({"sql_condition": condition, **probs})
    return [level | {"label_for_charts": name} for level in levels]


def params_of(settings) -> Params:
    """Return Splink's estimates under the names of ours."""
    params = {PROBABILITY: np.asarray(settings.probability_two_random_records_match)}
    for comparison in settings.comparisons:
        levels = [level for level in comparison.comparison_levels if not level.is_null_level]
        levels.sort(key=lambda level: level.comparison_vector_value)
        name = comparison.output_column_name
        params[f"m_{name}"] = np.array([level.m_probability for level in levels])
        params[f"u_{name}"] = np.array([level.u_probability for level in levels])
    return params
