"""Record linkage: what the experiment prints and draws, and that Splink finds the same."""

import re

import jax
import numpy as np
import pytest

from emjax import compress
from experiments import linkage
from experiments.linkage import febrl, fits, simulation

LEVELS = tuple(simulation.FIELDS)


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    yield
    jax.clear_caches()


@pytest.mark.parametrize("kind", [febrl.LEVELS, febrl.SURNAMES])
def test_splink_finds_the_same(kind):
    params, probability = febrl.fitted(kind)
    # Splink goes on for ten steps after the last that gains anything
    assert febrl.farthest(params, kind) < 1e-9
    count, matches = febrl.febrl().patterns.count, febrl.febrl().patterns.matches
    # the patterns that are more probably matches than not are those of matches
    assert count[(probability > 0.5) != (matches > count / 2)].sum() < 10


def test_patterns_of_a_file_are_those_of_all_its_comparisons(tmp_path, monkeypatch):
    monkeypatch.setattr(simulation, "CHUNK", 3_000)
    path = tmp_path / "comparisons.parquet"
    simulation.write(path, 10_000)
    chunks = [part.args[0] for part in simulation.read(path, (*LEVELS, "match"))]
    assert [len(chunk["match"]) for chunk in chunks] == [3_000, 3_000, 3_000, 1_000]
    whole = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    match = whole.pop("match")
    (levels,), count, rows = compress(whole)
    patterns = fits.with_truth(path)
    for name in LEVELS:
        np.testing.assert_array_equal(patterns.levels[name], levels[name])
    np.testing.assert_array_equal(patterns.count, count)
    np.testing.assert_array_equal(patterns.matches, np.bincount(rows, match))


def test_thresholds_accept_what_weighs_as_much():
    weight, count = np.array([3.0, 1.0, 3.0, 2.0]), np.array([4, 100, 6, 10])
    found = fits.accepted(weight, count, matches=np.array([4, 5, 5, 6]))
    np.testing.assert_array_equal(found.weight, [3, 2, 1])
    np.testing.assert_allclose(found.precision, [9 / 10, 15 / 20, 20 / 120])
    np.testing.assert_allclose(found.recall, [9 / 20, 15 / 20, 1])


def test_records_are_linked_from_a_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(simulation, "CHUNK", 9_000)
    linkage.link(tmp_path, 20_000, all_checks=True)
    printed = " ".join(capsys.readouterr().out.split())
    of_probability, of_likelihood = re.findall(r"(\S+) (?:of any probability|nats)", printed)
    assert float(of_probability) < 1e-10 and float(of_likelihood) < 1e-8
    assert "they agree" in printed
    assert "20,000 comparisons of 6 fields" in printed and "(converged)" in printed
    assert len(list(tmp_path.glob("*.png"))) == 3
