"""Dawid–Skene takes labels with their names, and is the model of emjax.models."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from emjax.models import dawid_skene
from emjax.sklearn import DawidSkene

pandas = pytest.importorskip("pandas")

rng = np.random.default_rng(0)
TRUTH = rng.integers(0, 2, 12)
TASK, WORKER = np.repeat(np.arange(12), 3), np.tile([2, 0, 1], 12)
LABEL = np.where(rng.random(36) < 0.8, TRUTH[TASK], 1 - TRUTH[TASK])
FRAME = pandas.DataFrame(
    {
        "label": np.array(["cat", "dog"])[LABEL],
        "worker": np.array(["ann", "bob", "cy"])[WORKER],
        "task": [f"t{number}" for number in TASK],
    }
)


def steps_by_hand(params, number):
    # workers are numbered as they first appear
    data = TASK, np.tile([0, 1, 2], 12), LABEL, 12, 3, 2
    for _ in range(number):
        params = dawid_skene.hand_derived_step(params, *data)
    return params


def test_fit_is_that_of_the_equations_under_the_names_of_the_frame():
    errors = pandas.DataFrame(
        [[0.8, 0.3], [0.2, 0.7], [0.6, 0.4], [0.4, 0.6], [0.5, 0.1], [0.5, 0.9]],
        pandas.MultiIndex.from_product([["ann", "bob", "cy"], ["cat", "dog"]]),
        ["cat", "dog"],
    )
    confusion = errors.loc[["cy", "ann", "bob"]].to_numpy().reshape(3, 2, 2).swapaxes(1, 2)
    shares = np.array([1 - LABEL.mean(), LABEL.mean()])
    expected = steps_by_hand({"prevalence": shares, "confusion": confusion}, 5)
    with pytest.warns(ConvergenceWarning, match="max_steps"):
        model = DawidSkene(n_iter=5, tol=0.0).fit(FRAME, initial_error=errors)
    assert list(model.workers_) == ["cy", "ann", "bob"]
    np.testing.assert_allclose(model.priors_[["cat", "dog"]], expected["prevalence"], rtol=1e-8)
    found = model.errors_.loc["ann", ["cat", "dog"]].to_numpy()
    np.testing.assert_allclose(found, expected["confusion"][1].T, rtol=1e-8)
    assert model.probas_.index.tolist() == [f"t{number}" for number in range(12)]
    pandas.testing.assert_frame_equal(model.predict_proba(FRAME), model.probas_)
    assert model.score(FRAME) == pytest.approx(model.loss_history_[-1], rel=1e-10)


def test_arrays_are_answered_in_arrays_and_known_truths_are_kept():
    arrays = tuple(FRAME[name].to_numpy() for name in ("task", "worker", "label"))
    known = {"t3": ["dog", "cat"][TRUTH[3]], "t99": "cat"}
    model = clone(DawidSkene(tol=1e-6)).fit(arrays, true_labels=known)
    assert isinstance(model.labels_, np.ndarray)
    assert model.labels_[3] == known["t3"] and model.probas_[3].max() == 1
    assert (model.predict(FRAME) == np.array(["cat", "dog"])[TRUTH]).mean() > 0.7
    with pytest.raises(ValueError, match="worker 'dan' was not among"):
        model.predict((arrays[0], np.full(36, "dan"), arrays[2]))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (FRAME[["task", "label"]], "no column 'worker'"),
        (np.zeros((3, 4)), "three arrays"),
        (([], [], []), "no labels"),
    ],
)
def test_data_of_another_form_are_refused(data, says):
    with pytest.raises(ValueError, match=says):
        DawidSkene().fit(data)
