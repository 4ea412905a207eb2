"""Dawid–Skene in place of crowd-kit's: what is true of tasks that several workers labeled."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_scalar
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

import emjax
from emjax.models import dawid_skene
from emjax.sklearn.annotations import Real, Whole
from emjax.sklearn.precision import in_double

COLUMNS = ("task", "worker", "label")
Model = TypeVar("Model", bound="DawidSkene")


class Labels(NamedTuple):
    """Labels in long form, as numbers: row n says that worker[n] gave task[n] label[n].

    - `tasks`: the names of the tasks, in the order in which they first appear.
    - `is_frame`: whether they came as a data frame, and answers go back as such.
    """

    task: np.ndarray
    worker: np.ndarray
    label: np.ndarray
    tasks: np.ndarray
    is_frame: bool


class DawidSkene(BaseEstimator):
    """The truth of tasks and the errors of workers, in place of `crowdkit.aggregation.DawidSkene`.

    Data are in long form: a data frame with the columns `task`, `worker` and `label`, a row for
    each label, or three arrays, (task, worker, label). That is no matrix of samples × features, a
    task has as many rows as it has labels, and so scikit-learn's `check_estimator` does not apply.

    Maximum likelihood: crowd-kit keeps every probability above 1e-10, and here none is bounded.

    **Arguments:**

    - `n_iter`: the largest number of EM steps.
    - `tol`: EM has converged when a step increases the log-likelihood by at most tol · (1 +
      |log-likelihood|). crowd-kit compares the increase per label with its own.

    **Attributes:** pandas objects of a data frame, with the names in it; arrays of arrays.

    - `probas_`: (task, class), p(class | labels), tasks in the order in which they first appear.
    - `labels_`: (task,), the most probable class.
    - `priors_`: (class,), how common the classes are.
    - `errors_`: of a data frame, indexed by (worker, label), a column for each true class; of
      arrays, (worker, label, class): the probability that the worker gives the label to the class.
    - `loss_history_`: the log-likelihood per label in nats at the start and after each step.
    - `classes_`, `workers_`: the classes, sorted; the workers, as they first appear.
    - `converged_`, `n_iter_`; `fit_`: the emjax `Fit`.

    Source: Dawid & Skene (1979), Applied Statistics 28.

    ```python
    from emjax.sklearn import DawidSkene

    task = np.repeat(["a", "b", "c"], 3)
    worker = np.tile([1, 2, 3], 3)
    label = np.array(["cat", "cat", "dog", "dog", "dog", "cat", "cat", "cat", "cat"])
    model = DawidSkene().fit((task, worker, label))
    model.labels_, model.probas_
    ```
    """

    classes_: np.ndarray
    workers_: np.ndarray
    fit_: emjax.Fit
    converged_: bool
    n_iter_: int
    loss_history_: list[float]
    probas_: Any
    labels_: Any
    priors_: Any
    errors_: Any

    def __init__(self, n_iter: Whole = 1000, tol: Real = 1e-9):
        self.n_iter = n_iter
        self.tol = tol

    def fit(self: Model, data: Any, true_labels: Any = None, initial_error: Any = None) -> Model:
        """Fit the model to labels by EM, and return it.

        `true_labels`: {task: class} of tasks whose truth is known, a dictionary or a series. The
        start: every worker answers correctly half of the time, so that the first step is a soft
        majority vote. `initial_error`: another start of `errors_`, in its form, with the mean share
        of each label among the labels of a task as `priors_`. Warns with `ConvergenceWarning` where
        EM did not converge. Errors: `ValueError` for data of another form.
        """
        check_scalar(self.n_iter, "n_iter", int | np.integer, min_val=1)
        check_scalar(self.tol, "tol", float | int | np.number, min_val=0)
        columns, is_frame = _columns(data)
        self.classes_ = np.unique(columns["label"])
        self.workers_ = _as_they_appear(columns["worker"])
        labels = self._coded(columns, is_frame)
        program, args = dawid_skene.program, self._arguments(labels)
        if true_labels is not None:
            program = emjax.labeled(program, "truth")
            args = (self._known(labels, true_labels), *args)
        start = None if initial_error is None else self._start(labels, initial_error)
        with in_double():
            em = emjax.EM(program, tol=float(self.tol), max_steps=int(self.n_iter))
            self.fit_ = em.run(jax.random.key(0), *args, init_params=start)
            probas = np.asarray(self.fit_.posterior()["truth"])
        self._keep(labels, probas)
        return self

    def _keep(self, labels: Labels, probas: np.ndarray) -> None:
        fit = self.fit_
        self._params = {name: np.asarray(value) for name, value in fit.params.items()}
        self.converged_ = fit.status == emjax.Status.CONVERGED
        self.n_iter_ = max(fit.num_steps, 1)
        self.loss_history_ = (np.asarray(fit.objective) / len(labels.label)).tolist()
        self.probas_ = self._of_tasks(labels, probas)
        self.labels_ = self._most_probable(labels, probas)
        self.priors_ = self._params["prevalence"]
        # (worker, class, label) in the program
        self.errors_ = self._params["confusion"].swapaxes(1, 2)
        if labels.is_frame:
            import pandas

            names = pandas.Index(self.classes_, name="label")
            self.priors_ = pandas.Series(self.priors_, names, name="prior")
            rows = pandas.MultiIndex.from_product(
                [self.workers_, self.classes_], names=["worker", "label"]
            )
            table = self.errors_.reshape(len(rows), -1)
            self.errors_ = pandas.DataFrame(table, rows, pandas.Index(self.classes_))
        if not self.converged_:
            words = "\n".join([fit.status.message, *fit.warnings])
            warnings.warn(f"DawidSkene: {words}", ConvergenceWarning, stacklevel=3)

    def predict_proba(self, data: Any) -> Any:
        """Return p(class | labels) of tasks that known workers labeled: (task, class)."""
        labels, bound = self._asked(data)
        with in_double():
            probas = np.asarray(bound.posterior(self._params)["truth"])
        return self._of_tasks(labels, probas)

    def predict(self, data: Any) -> Any:
        """Return the most probable class of tasks that known workers labeled: (task,)."""
        labels, bound = self._asked(data)
        with in_double():
            probas = np.asarray(bound.posterior(self._params)["truth"])
        return self._most_probable(labels, probas)

    def score(self, data: Any) -> float:
        """Return the log-likelihood per label in nats."""
        labels, bound = self._asked(data)
        with in_double():
            return float(bound.log_likelihood(self._params)) / len(labels.label)

    def fit_predict(self, data: Any, true_labels: Any = None, initial_error: Any = None) -> Any:
        """Fit the model, and return the most probable class of each task: (task,)."""
        return self.fit(data, true_labels, initial_error).labels_

    def fit_predict_proba(
        self, data: Any, true_labels: Any = None, initial_error: Any = None
    ) -> Any:
        """Fit the model, and return p(class | labels) of each task: (task, class)."""
        return self.fit(data, true_labels, initial_error).probas_

    # ── names and numbers ─────────────────────────────────────────────────────────────────────────

    def _coded(self, columns: dict[str, np.ndarray], is_frame: bool) -> Labels:
        tasks = _as_they_appear(columns["task"])
        return Labels(
            _numbers(columns["task"], tasks, "task"),
            _numbers(columns["worker"], self.workers_, "worker"),
            _numbers(columns["label"], self.classes_, "label"),
            tasks,
            is_frame,
        )

    def _arguments(self, labels: Labels) -> tuple:
        sizes = len(labels.tasks), len(self.workers_), len(self.classes_)
        return labels.task, labels.worker, labels.label, *sizes

    def _asked(self, data: Any) -> tuple[Labels, Any]:
        check_is_fitted(self, "fit_")
        labels = self._coded(*_columns(data))
        return labels, emjax.EM(dawid_skene.program).on(*self._arguments(labels))

    def _known(self, labels: Labels, true_labels: Any) -> np.ndarray:
        """Return the class of each task as a number, −1 where it is unknown."""
        known = np.full(len(labels.tasks), -1)
        place = {task: number for number, task in enumerate(labels.tasks.tolist())}
        for task, label in dict(true_labels).items():
            if task in place:
                known[place[task]] = _numbers(np.array([label]), self.classes_, "label")[0]
        return known

    def _start(self, labels: Labels, initial_error: Any) -> dict[str, np.ndarray]:
        votes = np.zeros((len(labels.tasks), len(self.classes_)))
        np.add.at(votes, (labels.task, labels.label), 1)
        errors = initial_error
        if hasattr(errors, "loc"):
            rows = [(worker, label) for worker in self.workers_ for label in self.classes_]
            errors = errors.loc[rows, list(self.classes_)].to_numpy()
        shape = (len(self.workers_), len(self.classes_), len(self.classes_))
        errors = np.asarray(errors, np.float64).reshape(shape)
        shares = votes / votes.sum(axis=1, keepdims=True)
        confusion = (errors / errors.sum(axis=1, keepdims=True)).swapaxes(1, 2)
        return {"prevalence": shares.mean(axis=0), "confusion": confusion}

    def _of_tasks(self, labels: Labels, probas: np.ndarray) -> Any:
        if not labels.is_frame:
            return probas
        import pandas

        index = pandas.Index(labels.tasks, name="task")
        return pandas.DataFrame(probas, index, pandas.Index(self.classes_, name="label"))

    def _most_probable(self, labels: Labels, probas: np.ndarray) -> Any:
        found = self.classes_[probas.argmax(axis=1)]
        if not labels.is_frame:
            return found
        import pandas

        return pandas.Series(found, pandas.Index(labels.tasks, name="task"), name="agg_label")


def _columns(data: Any) -> tuple[dict[str, np.ndarray], bool]:
    """Return {"task", "worker", "label": (row,)}, and whether data are a data frame."""
    is_frame = hasattr(data, "columns")
    if is_frame:
        missing = [name for name in COLUMNS if name not in data.columns]
        if missing:
            raise ValueError(f"The data frame has no column {', '.join(map(repr, missing))}.")
        columns = [data[name].to_numpy() for name in COLUMNS]
    elif isinstance(data, tuple | list) and len(data) == len(COLUMNS):
        columns = [column_or_1d(column) for column in data]
    else:
        raise ValueError(
            "Labels are in long form: a data frame with the columns task, worker and label, or "
            "three arrays, fit((task, worker, label))."
        )
    check_consistent_length(*columns)
    if not len(columns[0]):
        raise ValueError("There are no labels.")
    return dict(zip(COLUMNS, columns, strict=True)), is_frame


def _as_they_appear(names: np.ndarray) -> np.ndarray:
    """Return distinct names, in the order in which they first appear."""
    distinct, first = np.unique(names, return_index=True)
    return distinct[np.argsort(first)]


def _numbers(names: np.ndarray, known: np.ndarray, what: str) -> np.ndarray:
    """Return each name's place among those that are known. Errors: `ValueError` for others."""
    order = np.argsort(known)
    place = np.searchsorted(known[order], names).clip(max=len(known) - 1)
    found = order[place]
    is_known = known[found] == names
    if not is_known.all():
        unknown = names[~is_known].tolist()[0]
        raise ValueError(f"{what} {unknown!r} was not among the labels of the fit.")
    return found
