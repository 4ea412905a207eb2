"""Which of several models? A row for each, and what each criterion chooses."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import numpy as np

from emjax.em import EM
from emjax.refits.cross_validation import (
    CrossValidation,
    cross_validate,
    standard_error_of_sum,
)
from emjax.refits.information_criteria import INFORMATION, Criteria, criteria, in_words
from emjax.run import verdicts
from emjax.run.annotations import Whole
from emjax.run.columns import NO_NUMBER, Column, Table, lines_of
from emjax.run.compilation import CompiledFunction
from emjax.run.findings import Finding
from emjax.run.result import EMResult
from emjax.run.runner import is_degenerate
from emjax.run.state import has_failed, has_settled

if TYPE_CHECKING:
    Candidates = Mapping[Any, EM | Callable[..., Any]]
else:
    # what is none reaches our own error
    Candidates = Any

CRITERIA = (*INFORMATION, "CV")
# those that have a column when a choice is printed; a line says what the others choose
SHOWN = ("AIC", "BIC", "ICL")
KEY_OF_FOLDS = CompiledFunction(lambda rng_key: jax.random.fold_in(rng_key, 1))
ONE_STANDARD_ERROR = "CV, 1 SE"


class Candidate(eqx.Module):
    """A model among others.

    **Attributes:**

    - `result`: what EM found on all data.
    - `criteria`: its information criteria there.
    - `cross_validation`: its held-out log-likelihood; None if none was asked for.
    """

    result: EMResult
    criteria: Criteria
    cross_validation: CrossValidation | None

    @property
    def has_failed(self) -> bool:
        """Whether EM failed on all data, so that there is no estimate to judge.

        It has failed, too, where a component has collapsed: its likelihood has no bound.
        """
        return bool(has_failed(self.result.status)) or is_degenerate(self.result)

    @property
    def losses(self) -> dict[str, float]:
        """Information criteria, and −2 × the held-out log-likelihood (CV), those that there are.

        Of each, the lower the better.
        """
        if self.has_failed:
            return {}
        losses = dict(self.criteria.by_name)
        if self.cross_validation is not None:
            losses["CV"] = -2 * self.cross_validation.log_likelihood
        # infinite where a datum is impossible, NaN where a fold failed: neither is compared
        return {name: value for name, value in losses.items() if np.isfinite(value)}


@dataclass(frozen=True, eq=False)
class Choice(Table):
    """Models side by side, and what each criterion chooses; prints as a table.

    `candidates`: {label: `Candidate`}, in the order in which they were given. Only what can be
    compared is: information criteria of estimates of hard or tempered E-steps are no rivals of
    those of soft ones, and all but AIC are those of one number of samples. `findings` says so.
    """

    candidates: Mapping[Any, Candidate]

    @property
    def chosen(self) -> dict[str, Any]:
        """{criterion: the label that it chooses}; a criterion that no candidate has is absent.

        Criteria are "AIC", "BIC", "SABIC", "CAIC", "ICL", "AWE" (see `Criteria`), "CV" and
        "CV, 1 SE". The last is the one of the fewest free parameters of those that are not clearly
        worse than CV's choice: whose held-out log-likelihood is at most one standard error of the
        difference, element by element, below.
        Source: Breiman, Friedman, Olshen & Stone (1984), section 3.4.3; for the paired standard
        error, Vehtari, Gelman & Gabry (2017), (24).
        """
        losses = self._compared
        chosen = {}
        for name in CRITERIA:
            of_criterion = {label: each[name] for label, each in losses.items() if name in each}
            # of equals the first is taken, as in the order of the candidates
            if of_criterion:
                chosen[name] = min(of_criterion, key=of_criterion.__getitem__)
        if "CV" in chosen:
            close = []
            for label, each in losses.items():
                if "CV" in each and self._is_close(label, chosen["CV"]):
                    close.append(label)
            chosen[ONE_STANDARD_ERROR] = min(close, key=self._num_free_parameters)
        return chosen

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What cannot be compared, and what is to be known of what is."""
        found: list[Finding] = []
        if len(self._temperatures) > 1:
            e_steps = [in_words(temperature) for temperature in self._temperatures]
            labels = [label for label in self.candidates if not self._is_soft(label)]
            found.append(verdicts.other_e_steps(list(map(str, labels)), e_steps))
        elif self._temperatures != {1.0: None}:
            found.append(verdicts.not_maximum_likelihood(in_words(*self._temperatures)))
        if any(candidate.criteria.is_pseudo for candidate in self.candidates.values()):
            found.append(verdicts.pseudo_likelihood())
        numbers = self._num_samples
        if len(set(numbers.values())) > 1:
            words = {str(label): f"{number:g}" for label, number in numbers.items()}
            found.append(verdicts.other_samples(words))
        for label, candidate in self.candidates.items():
            if candidate.cross_validation is not None:
                found += _caveats(candidate.cross_validation, f"candidate {label}")
        return tuple(found)

    @property
    def _temperatures(self) -> dict[float, None]:
        """The temperatures of the candidates' E-steps, each once."""
        return {each.criteria.temperature: None for each in self.candidates.values()}

    def _is_soft(self, label: Any) -> bool:
        return self.candidates[label].criteria.temperature == 1

    @property
    def _num_samples(self) -> dict[Any, float]:
        """How many samples each candidate counts, of those that say what a sample is."""
        numbers = {}
        for label, candidate in self.candidates.items():
            if not candidate.criteria.undefined:
                numbers[label] = candidate.criteria.num_samples
        return numbers

    @property
    def _compared(self) -> dict[Any, dict[str, float]]:
        """What is compared of each candidate, by criterion: the lower the better."""
        are_mixed = len(self._temperatures) > 1
        num_samples_differ = len(set(self._num_samples.values())) > 1
        compared = {}
        for label, candidate in self.candidates.items():
            left_out: set[str] = set()
            if are_mixed and not self._is_soft(label):
                left_out |= set(INFORMATION)
            if num_samples_differ:
                left_out |= set(INFORMATION) - {"AIC"}
            losses = candidate.losses.items()
            compared[label] = {name: loss for name, loss in losses if name not in left_out}
        return compared

    def _num_free_parameters(self, label: Any) -> int:
        return self.candidates[label].criteria.num_free_parameters

    def _is_close(self, label: Any, best: Any) -> bool:
        """Whether a candidate is within one standard error of the difference from the best one."""
        if label == best:
            return True
        validation, of_best = (self.candidates[of].cross_validation for of in (label, best))
        assert validation is not None and of_best is not None
        # of other elements, nothing can be compared element by element
        if not np.array_equal(validation.multiplicity, of_best.multiplicity):
            return False
        difference = np.asarray(of_best.pointwise) - np.asarray(validation.pointwise)
        return bool(difference.sum() <= standard_error_of_sum(difference, of_best.multiplicity))

    def __str__(self) -> str:
        lines = lines_of(self._columns())
        lines.append(
            "* the choice of each criterion; AIC, BIC and ICL: the lower the better; "
            "log-likelihoods in nats"
        )
        chosen = self.chosen
        others = [name for name in INFORMATION if name in chosen and name not in SHOWN]
        if others:
            words = ", ".join(f"{name} {chosen[name]}" for name in others)
            lines.append(f"others choose: {words}")
        if self._has_folds:
            lines.append(
                "held-out: the higher the better, ± one standard error; ° the fewest parameters "
                "among those within one standard error of the best"
            )
        return "\n".join([*lines, *map(str, self.findings)])

    @property
    def _has_folds(self) -> bool:
        """Whether any candidate was cross-validated."""
        return any(each.cross_validation is not None for each in self.candidates.values())

    def _columns(self) -> list[Column]:
        """Return a row for each candidate."""
        marks = {label: set[str]() for label in self.candidates}
        for name, label in self.chosen.items():
            marks[label].add(name)
        each, likelihoods = list(self.candidates.values()), []
        for one in each:
            # of an EM that failed, no number is an estimate's
            value = math.nan if one.has_failed else float(one.criteria.log_likelihood)
            likelihoods.append(value)
        columns = [
            Column("candidate", [str(label) for label in self.candidates], title=""),
            Column("status", [str(one.result.status) for one in each], title="EM"),
            Column("num_steps", [one.result.num_steps for one in each], title="steps"),
            Column("log_likelihood", likelihoods, ".3f", "log-likelihood"),
            Column(
                "num_free_parameters",
                [one.criteria.num_free_parameters for one in each],
                title="parameters",
            ),
        ]
        for name in INFORMATION:
            values = [one.losses.get(name, math.nan) for one in each]
            cells = [_cell(*pair, name) for pair in zip(values, marks.values(), strict=True)]
            columns.append(Column(name, values, cells, is_printed=name in SHOWN))
        if self._has_folds:
            columns += _held_out(each, list(marks.values()))
        words = [", ".join(sorted(of)) for of in marks.values()]
        return [*columns, Column("chosen_by", words, is_printed=False)]


def _caveats(validation: CrossValidation, model: str) -> list[Finding]:
    """Return what is to be known of a model's folds before they are compared."""
    caveats = []
    reasons = Counter(str(status) for status in validation.status if not has_settled(status))
    if reasons:
        caveats.append(verdicts.unconverged_folds(model, reasons, len(validation.status)))
    if validation.num_impossible:
        caveats.append(verdicts.impossible_held_out(validation.num_impossible, model))
    return caveats


def _cell(value: float, marks: Collection[str], name: str) -> str:
    """Return what is printed of a criterion of a candidate."""
    number = NO_NUMBER if math.isnan(value) else f"{value:.2f}"
    return f"{number}{_mark('*', name, marks)}"


def _held_out(each: Sequence[Candidate], marks: Sequence[Collection[str]]) -> list[Column]:
    """Return the columns of cross-validation, a row for each candidate."""
    means, errors, cells = [], [], []
    for candidate, of in zip(each, marks, strict=True):
        validation = candidate.cross_validation
        mean = error = math.nan
        if candidate.has_failed or validation is None:
            cells.append(f"{NO_NUMBER}  ")
        elif validation.has_failed:
            failed = sum(bool(has_failed(status)) for status in validation.status)
            cells.append(f"failed in {failed} of {len(validation.status)} folds  ")
        else:
            mean, error = validation.mean, validation.standard_error / validation.num_samples
            of_marks = _mark("*", "CV", of) + _mark("°", ONE_STANDARD_ERROR, of)
            cells.append(f"{mean:.4f} ± {error:.4f}{of_marks}")
        means.append(mean)
        errors.append(error)
    return [
        Column("held_out", means, cells, "held-out, per element"),
        Column("held_out_standard_error", errors, is_printed=False),
    ]


def _mark(mark: str, name: str, marks: Collection[str]) -> str:
    return mark if name in marks else " "


def choose(
    candidates: Candidates,
    rng_key: Any,
    *args: Any,
    num_folds: Whole | None = 5,
    plate: str | None = None,
    rows: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Choice:
    """Return how models compare on the same data, and what each criterion chooses.

    Criteria are information criteria and cross-validation. `candidates`: {label: an `EM`, or a
    program for one with default settings}. `args`, `kwargs`: the models' own data, the same for
    all; what tells the models apart is theirs: `{K: EM(functools.partial(program,
    num_components=K), num_restarts=10) for K in range(1, 7)}`.
    `num_folds`: None for no cross-validation; the folds are the same for all models. `plate`,
    `rows`: as `cross_validate` takes them.

    A candidate whose EM failed (an objective that decreased or is not finite, a component that has
    collapsed) is shown so, and chosen by nothing; where only the EM of a fold failed, CV does not
    choose it. AIC alone needs no plate. Errors: `ValueError` for no candidates, and for what is no
    EM or program; those of `criteria` and `cross_validate`, with the candidate's label.
    """
    if not isinstance(candidates, Mapping) or not candidates:
        raise ValueError(
            f"candidates must be a dictionary {{label: EM or program}} with at least one entry, "
            f"not {candidates!r}."
        )
    judged = {}
    for label, candidate in candidates.items():
        if not isinstance(candidate, EM) and not callable(candidate):
            raise ValueError(f"Candidate {label!r} must be an EM or a program, not {candidate!r}.")
        em = candidate if isinstance(candidate, EM) else EM(candidate)
        try:
            result = em.run(rng_key, *args, **kwargs)
            values = criteria(em, result.params, *args, plate=plate, **kwargs)
            if num_folds is not None and values.undefined:
                raise ValueError(f"{values.undefined} AIC needs none: choose(..., num_folds=None).")
            validation = None
            if num_folds is not None and not Candidate(result, values, None).has_failed:
                folds = {"num_folds": num_folds, "plate": plate, "rows": rows}
                # another key than the run's, the same for every candidate: equal folds
                key = KEY_OF_FOLDS(rng_key)
                validation = cross_validate(em, key, *args, **folds, **kwargs)
        # a message about data or plates does not say which of the models it is about
        except ValueError as error:
            raise ValueError(f"Candidate {label!r}: {error}") from error
        judged[label] = Candidate(result, values, validation)
    return Choice(judged)
