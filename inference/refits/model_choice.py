"""Which of several models? A row for each, and what each criterion chooses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from emjax.em import EM
from emjax.refits.cross_validation import CrossValidation, cross_validate
from emjax.refits.information_criteria import Criteria, criteria
from emjax.run.annotations import Whole
from emjax.run.loop import has_failed
from emjax.run.result import EMResult

if TYPE_CHECKING:
    Candidates = Mapping[Any, EM | Callable[..., Any]]
else:  # what is none reaches our own error
    Candidates = Any

CRITERIA = ("AIC", "BIC", "ICL", "CV", "CV, 1 SE")


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
        """Whether EM failed on all data, so that there is no estimate to judge."""
        return bool(has_failed(self.result.status))

    @property
    def losses(self) -> dict[str, float]:
        """AIC, BIC, ICL, and −2 × the held-out log-likelihood (CV), those that there are: of each,
        the lower the better.
        """
        found = (
            {}
            if self.has_failed
            else {"AIC": self.criteria.aic, "BIC": self.criteria.bic, "ICL": self.criteria.icl}
        )
        if not self.has_failed and self.cross_validation is not None:
            found["CV"] = -2 * self.cross_validation.log_likelihood
        return {name: value for name, value in found.items() if np.isfinite(value)}


@dataclass(frozen=True, eq=False)
class Choice:
    """Models side by side, and what each criterion chooses; prints as a table.

    `candidates`: {label: `Candidate`}, in the order in which they were given.
    """

    candidates: Mapping[Any, Candidate]

    @property
    def chosen(self) -> dict[str, Any]:
        """{criterion: the label that it chooses} for "AIC", "BIC", "ICL", "CV" and "CV, 1 SE"; a
        criterion that no candidate has is absent.

        "CV, 1 SE" is the one of the fewest free parameters of those that are not clearly worse than
        CV's choice: whose held-out log-likelihood is at most one standard error of the difference,
        element by element, below. Source: Breiman, Friedman, Olshen & Stone (1984), section 3.4.3;
        for the paired standard error, Vehtari, Gelman & Gabry (2017), (24).
        """
        losses = {label: candidate.losses for label, candidate in self.candidates.items()}
        found = {}
        for name in CRITERIA[:4]:
            of_name = {label: own[name] for label, own in losses.items() if name in own}
            if of_name:
                found[name] = min(of_name, key=of_name.__getitem__)
        if "CV" in found:
            close = [
                label
                for label, own in losses.items()
                if "CV" in own and self._is_close(label, found["CV"])
            ]
            found["CV, 1 SE"] = min(
                close, key=lambda label: self.candidates[label].criteria.num_free_parameters
            )
        return found

    def _is_close(self, label, best) -> bool:
        """Whether a candidate's held-out log-likelihood is within one standard error of the
        difference below the best one.
        """
        own, other = (self.candidates[of].cross_validation.pointwise for of in (label, best))
        if len(own) != len(other):
            return label == best
        difference = other - own
        return (
            bool(difference.sum() <= jnp.sqrt(len(difference) * jnp.var(difference, ddof=1)))
            or label == best
        )

    def __str__(self) -> str:
        chosen = self.chosen
        head = ["", "EM", "steps", "log-likelihood", "parameters", "AIC", "BIC", "ICL"]
        has_folds = any(
            candidate.cross_validation is not None for candidate in self.candidates.values()
        )
        rows = [head + (["held-out, per element"] if has_folds else [])]
        for label, candidate in self.candidates.items():
            marks = {name for name, of in chosen.items() if of == label}
            rows.append(
                _row(label, candidate, marks) + ([_held_out(candidate, marks)] if has_folds else [])
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if i < 2 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        notes = [
            "* the choice of each criterion; AIC, BIC and ICL: the lower the better; "
            "log-likelihoods in nats"
        ]
        if has_folds:
            notes.append(
                "held-out: the higher the better, ± one standard error; ° the fewest parameters "
                "among those within one standard error of the best"
            )
        return "\n".join([*lines, *notes])


def _row(label, candidate: Candidate, marks) -> list[str]:
    values = candidate.criteria
    head = [str(label), str(candidate.result.status), str(candidate.result.num_steps)]
    if candidate.has_failed:
        return [*head, "–", str(values.num_free_parameters), "– ", "– ", "– "]
    cells = [
        f"{value:.2f}{'*' if name in marks else ' '}"
        for name, value in (("AIC", values.aic), ("BIC", values.bic), ("ICL", values.icl))
    ]
    return [*head, f"{float(values.log_likelihood):.3f}", str(values.num_free_parameters), *cells]


def _held_out(candidate: Candidate, marks) -> str:
    found = candidate.cross_validation
    if candidate.has_failed or found is None:
        return "–  "
    if found.has_failed:
        failed = sum(bool(has_failed(status)) for status in found.status)
        return f"failed in {failed} of {len(found.status)} folds  "
    n = len(found.pointwise)
    return (
        f"{found.mean:.4f} ± "
        f"{found.standard_error / n:.4f}{'*' if 'CV' in marks else ' '}{'°' if 'CV, 1 SE' in marks else ' '}"
    )


def choose(
    candidates: Candidates,
    rng_key: Any,
    *args: Any,
    num_folds: Whole | None = 5,
    plate: str | None = None,
    rows: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Choice:
    """Return how models compare on the same data: information criteria and cross-validation, and
    what each chooses.

    `candidates`: {label: an `EM`, or a program for one with default settings}. `args`, `kwargs`:
    the models' own data, the same for all; what tells the models apart is theirs: `{K:
    EM(functools.partial(program, num_components=K), num_restarts=10) for K in range(1, 7)}`.
    `num_folds`: None for no cross-validation; the folds are the same for all models. `plate`,
    `rows`: as `cross_validate` takes them.

    A candidate whose EM failed (an objective that decreased or is not finite) is shown so, and
    chosen by nothing; where only the EM of a fold failed, CV does not choose it. Errors:
    `ValueError` for no candidates, and for one that is neither an EM nor a program; those of
    `criteria` and `cross_validate`, with the candidate's label.
    """
    if not isinstance(candidates, Mapping) or not candidates:
        raise ValueError(
            f"candidates must be a dictionary {{label: EM or program}} with at least one entry, "
            f"not {candidates!r}."
        )
    found = {}
    for label, candidate in candidates.items():
        if not isinstance(candidate, EM) and not callable(candidate):
            raise ValueError(f"Candidate {label!r} must be an EM or a program, not {candidate!r}.")
        em = candidate if isinstance(candidate, EM) else EM(candidate)
        try:
            found[label] = _candidate(em, rng_key, args, kwargs, num_folds, plate, rows)
        except ValueError as error:
            raise ValueError(f"Candidate {label!r}: {error}") from error
    return Choice(found)


def _candidate(em: EM, rng_key, args, kwargs, num_folds, plate, rows) -> Candidate:
    result = em.run(rng_key, *args, **kwargs)
    values = criteria(em, result.params, *args, plate=plate, **kwargs)
    if num_folds is None or has_failed(result.status):
        return Candidate(result, values, None)
    folds = jax.random.fold_in(rng_key, 1)
    return Candidate(
        result,
        values,
        cross_validate(em, folds, *args, num_folds=num_folds, plate=plate, rows=rows, **kwargs),
    )
