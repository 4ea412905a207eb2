"""The settings of `EM`, checked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import numpy as np
from numpyro.infer import init_to_sample

from emjax.run.acceleration import ACCELERATORS, Accelerator
from emjax.run.polish import POLISHERS
from emjax.run.precision import LARGEST
from emjax.starts.strategies import START_STRATEGIES

TEMPERATURES = {"soft": 1.0, "hard": 0.0}
CHOICES = {
    "chains": ("sequential", "checkpointed", "parallel"),
    "map": ("constrained", "unconstrained"),
    "stop": ("gain", "aitken", "never"),
    "polish": (None, *POLISHERS),
    "precision": (None, "double", "single"),
}
# the acceleration that leaps only where EM crawls
AUTO = "auto"
# the start of which the name asks for the program's own values, whatever it states
OWN = "program"
# The history of the objective is as long as a power of two, at least this: runs of other numbers of
# steps are the same program.
LEAST_CAPACITY = 1024
# no step at all is a run, too: it evaluates the start
LEAST = {"max_steps": 0, "num_restarts": 1, "short_steps": 1}


class Numbers(eqx.Module):
    """The settings that are numbers: arguments of what is compiled, and no part of it.

    **Attributes:**

    - `tol`, `max_steps`: as in `EM`.
    - `temperature`: of a tempered E-step; None for a soft or hard one, which is a program of its
      own.
    - `annealing`: the temperatures.
    - `may_settle`: whether a run stops where steps gain no more.
    """

    tol: Any
    max_steps: Any
    temperature: Any
    annealing: Any
    may_settle: Any = True


@dataclass(frozen=True, eq=False)
class Settings:
    """What `EM` was told; see there."""

    e_step: Any
    m_step: Any
    fixed: Any
    integrate: Any
    tol: Any
    stop: str
    max_steps: Any
    acceleration: Any
    polish: str | None
    num_restarts: Any
    short_steps: Any
    init: Any
    annealing: Any
    chains: str
    map: str
    precision: str | None
    progress_bar: bool
    batch_size: Any = None
    step_size: Any = None

    def __post_init__(self):
        self._check_numbers()
        self._check_names()
        self._check_choices()
        self._check_annealing()
        self._check_batches()
        # last: it reads settings that the checks before have found valid
        self._check_combinations()

    # ── what they say ─────────────────────────────────────────────────────────────────────────────

    @property
    def temperature(self) -> Any:
        """The temperature of the E-step: 1 is soft, 0 is hard."""
        return TEMPERATURES.get(self.e_step) if isinstance(self.e_step, str) else self.e_step

    @property
    def accelerator(self) -> Accelerator | None:
        """What leaps ahead of EM's own steps from the first; None: nothing does."""
        if self.acceleration == AUTO:
            return None
        if self.acceleration is None or isinstance(self.acceleration, Accelerator):
            return self.acceleration
        return ACCELERATORS[self.acceleration]()

    @property
    def leaps_where_it_crawls(self) -> bool:
        """Whether leaps are to take turns with EM's own steps, where these are many.

        Not where a rule, a polish or a function of the user's goes with EM's own.
        """
        is_plain = self.temperature == 1 and self.stop == "gain"
        return self.acceleration == AUTO and is_plain and not (self.m_step or self.polish)

    @property
    def strategy(self) -> Callable:
        """How sample sites start, by NumPyro."""
        # a strategy of ours goes on from the program's own start
        if self.init is None or isinstance(self.init, str):
            return init_to_sample
        return self.init

    def ends_in_double(self, num_reals: int) -> bool:
        """Whether a run in single precision on so many numbers is to end in double."""
        if self.precision is None:
            return jax.default_backend() == "cpu" and num_reals <= LARGEST
        return self.precision == "double"

    @property
    def is_tempered(self) -> bool:
        """Whether the E-step is neither soft nor hard."""
        return self.temperature not in TEMPERATURES.values()

    @property
    def numbers(self) -> Numbers:
        """The settings that are numbers."""
        temperature = float(self.temperature) if self.is_tempered else None
        annealing = np.asarray(self.annealing, float)
        may_settle = self.stop != "never"
        return Numbers(float(self.tol), int(self.max_steps), temperature, annealing, may_settle)

    @property
    def capacity(self) -> int:
        """How many values of the objective a run has room for."""
        # the steps that follow a polish need room, too
        return max(LEAST_CAPACITY, 1 << (int(self.max_steps) + 2).bit_length())

    @property
    def structure(self) -> tuple:
        """All that a compiled program depends on, beside the numbers."""
        kind = "tempered" if self.is_tempered else self.temperature
        return (
            kind,
            self.m_step,
            frozenset(self.fixed),
            frozenset(self.integrate),
            self.stop == "aitken",
            self.accelerator,
            self.polish,
            self.num_restarts > 1,
            self.init,
            len(np.asarray(self.annealing, float)),
            self.chains,
            self.map,
            self.capacity,
        )

    # ── whether they make sense ───────────────────────────────────────────────────────────────────

    def _check_numbers(self) -> None:
        if not _is_number(self.temperature) or not 0 <= self.temperature < np.inf:
            raise ValueError(
                f"e_step must be 'soft', 'hard' or a temperature (0 is hard, 1 is soft), not "
                f"{self.e_step!r}."
            )
        # `not >=`, since NaN is to be refused, too
        if not _is_number(self.tol) or not self.tol >= 0:
            raise ValueError(f"tol must be a number of at least 0, not {self.tol!r}.")
        for name, least in LEAST.items():
            value = getattr(self, name)
            runs_to_the_end = name == "short_steps" and value is None
            if not runs_to_the_end and not (is_whole_number(value) and value >= least):
                raise ValueError(
                    f"{name} must be a whole number of at least {least}, not {value!r}."
                )

    def _check_names(self) -> None:
        if self.m_step is not None and not isinstance(self.m_step, Mapping):
            raise ValueError(
                f"m_step must be {{parameter: optax optimizer or function}}, not {self.m_step!r}."
            )
        if not _are_names(self.fixed):
            raise ValueError(
                f"fixed must be a set of parameter names, such as fixed={{'scale'}}, not "
                f"{self.fixed!r}."
            )
        if not _are_names(self.integrate):
            example = self.integrate if isinstance(self.integrate, str) else "f"
            raise ValueError(
                "integrate must be a set of names of sites, such as "
                f"integrate={{{example!r}}}, not {self.integrate!r}."
            )

    def _check_choices(self) -> None:
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name} must be one of {_listed(choices)}, not {value!r}.")
        names = (AUTO, None, *ACCELERATORS)
        if not isinstance(self.acceleration, Accelerator) and self.acceleration not in names:
            raise ValueError(
                f"acceleration must be one of {_listed(names)}, not {self.acceleration!r}. To leap "
                "by a rule of your own, pass an emjax.Accelerator."
            )
        is_strategy = self.init is None or callable(self.init)
        named = (OWN, *START_STRATEGIES)
        if not is_strategy and not (isinstance(self.init, str) and self.init in named):
            raise ValueError(
                f"init must be one of {_listed(named)}, or a NumPyro strategy such as "
                f"numpyro.infer.init_to_median(), not {self.init!r}. Values are given to a run: "
                "em.run(..., init_params={...})."
            )

    def _check_annealing(self) -> None:
        try:
            temperatures = np.asarray(self.annealing, float)
        except (TypeError, ValueError):
            # what is no list of numbers is refused by the same sentence
            temperatures = np.full((1, 1), np.nan)
        if temperatures.ndim != 1 or not ((temperatures > 0) & (temperatures < np.inf)).all():
            raise ValueError(
                f"annealing must be a list of positive temperatures, one for each step, such as "
                f"np.geomspace(2, 1, 50), not {self.annealing!r}."
            )

    def _check_batches(self) -> None:
        size, step = self.batch_size, self.step_size
        if size is not None and not (is_whole_number(size) and size >= 1):
            raise ValueError(f"batch_size must be a whole number of at least 1, not {size!r}.")
        if step is None:
            return
        if size is None:
            raise ValueError(
                f"step_size={step!r} is that of minibatches: say how large they are, batch_size=..."
            )
        if not callable(step) and not (_is_number(step) and 0 < step <= 1):
            raise ValueError(
                "step_size must be a number of more than 0 and at most 1, or an optax schedule, "
                f"such as optax.polynomial_schedule(1.0, 0.01, 0.6, 1000), not {step!r}."
            )

    def _check_combinations(self) -> None:
        self._check_integrals()
        if self.stop == "aitken" and self.accelerator is not None:
            raise ValueError(
                f"stop='aitken' extrapolates the gains of plain EM, which those of "
                f"acceleration={self.acceleration!r} are not. Use stop='gain'."
            )
        if self.stop == "never" and self.polish:
            raise ValueError(
                f"polish={self.polish!r} climbs from where EM ends, and stop='never' goes on to "
                "max_steps. Leave one of them out."
            )
        if self.temperature != 1 and (self.polish or self.stop == "aitken"):
            setting = f"polish={self.polish!r}" if self.polish else "stop='aitken'"
            raise ValueError(
                f"{setting} is for a soft E-step: a hard or tempered one does not climb the "
                "likelihood. Use e_step='soft'."
            )

    def _check_integrals(self) -> None:
        is_annealed = bool(np.size(self.annealing))
        if self.integrate and (self.temperature != 1 or is_annealed):
            setting = "annealing" if self.temperature == 1 else f"e_step={self.e_step!r}"
            names = ", ".join(map(repr, sorted(self.integrate)))
            raise ValueError(
                f"{setting} raises posteriors to a power, which is defined of sums over discrete "
                f"latents; integrate={{{names}}} asks for integrals. Use e_step='soft' without "
                "annealing, or leave these sites out of integrate: they are then MAP parameters."
            )


def _are_names(value: Any) -> bool:
    # a string is a collection as well, of its letters
    is_collection = isinstance(value, Collection) and not isinstance(value, str)
    return is_collection and all(isinstance(name, str) for name in value)


def _is_number(value) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def is_whole_number(value: Any) -> bool:
    """Whether a value is a whole number: True is one to Python, and where numbers go a mistake."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _listed(choices) -> str:
    return ", ".join(map(repr, choices))
