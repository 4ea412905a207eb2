"""What is made of a saved fit: the settings, a check of the program, the data, and the result."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emjax.answers.plain_frames import frame_of, is_plain_frame
from emjax.answers.recognized import described, differences
from emjax.answers.saved import OTHER, SPECIFICATION
from emjax.graph.factor_graph import FactorGraph
from emjax.m_step.gap import Gap
from emjax.run.archive import NotPlain
from emjax.run.double_end import in_single
from emjax.run.findings import Finding
from emjax.run.precision import double_precision, is_single
from emjax.run.restarts import Restarts
from emjax.run.result import EMResult
from emjax.run.settings import Settings
from emjax.run.state import Status

# Numbers in the data up to which arrays of their shapes are made to trace the program: more would
# be memory for nothing but a check.
LARGEST_TRACED = 2**24
# what an estimate is an estimate of: another one is not what was saved
OF_THE_ESTIMATE = ("e_step", "map", "fixed", "integrate")


@dataclass(frozen=True, eq=False)
class Saved:
    """What a file holds.

    - `content`: as `content_of` returns it.
    """

    content: Mapping[str, Any]

    def settings(self, known: Collection[str]) -> dict[str, Any]:
        """Return the settings of the `EM`. `known`: those that there are.

        Errors: `ValueError` for settings that were no numbers or words, and have to be given again.
        """
        others = self.content["other_settings"]
        if others:
            which = ", ".join(f"{name} ({what})" for name, what in others.items())
            given = ", ".join(f"{name}=…" for name in others)
            raise ValueError(
                f"The fit was made with settings that are code, which no file holds: {which}. Give "
                f"them again: emjax.load(path, emjax.EM(program, {given}))."
            )
        settings = self.content["settings"]
        return {name: value for name, value in settings.items() if name in known}

    def check_settings(self, settings: Settings) -> None:
        """Raise `ValueError` for settings under which the estimate is one of something else."""
        for name in OF_THE_ESTIMATE:
            saved, given = self.content["settings"].get(name), getattr(settings, name)
            if name in ("fixed", "integrate"):
                # a file of an earlier version names no integrals
                saved, given = saved or [], sorted(given)
            if saved != given:
                raise ValueError(
                    f"The fit was made with {name}={saved!r}, and this EM has {name}={given!r}: "
                    f"emjax.load(path, emjax.EM(program, {name}={saved!r}, ...))."
                )

    @property
    def arguments(self) -> tuple[tuple, dict[str, Any]] | None:
        """The program's arguments, arrays of zeros for those that were not saved.

        None where they cannot be made, or are not to be.
        """
        data = self.content["data"]
        if data is None:
            return None
        try:
            args, kwargs = _filled([data["args"], data["kwargs"]])
        except NotPlain:
            return None
        leaves = [leaf for leaf in jax.tree.leaves((args, kwargs)) if isinstance(leaf, np.ndarray)]
        if sum(leaf.size for leaf in leaves) > LARGEST_TRACED and not self.has_data:
            return None
        return tuple(args), kwargs

    @property
    def has_data(self) -> bool:
        """Whether the data were saved."""
        data = self.content["data"]
        return data is not None and data["is_whole"]

    def check_program(self, graph: FactorGraph) -> None:
        """Raise `ValueError` for a program that is not the one that was fitted."""
        saved = self.content["program"]
        others = differences(saved, described(graph))
        if others:
            raise ValueError(
                f"This is another program than the one that was fitted, '{saved['name']}': "
                f"{'; '.join(others)}."
            )

    def result(self, graph: FactorGraph | None) -> EMResult:
        """Return the result, in the precision of now. `graph`: of the program, if it is known."""
        if is_single() and self._is_double:
            with double_precision():
                result = self._result()
            parameters = {} if graph is None else graph.parameters
            if parameters.keys() >= result.params.keys():
                with double_precision():
                    return in_single(result, parameters)
        return self._result()

    @property
    def _is_double(self) -> bool:
        params = self.content["result"]["params"].values()
        return any(value.dtype == np.float64 for value in params)

    def _result(self) -> EMResult:
        saved = self.content["result"]
        restarts = saved["restarts"]
        likelihood = saved["log_likelihood"]
        if jax.dtypes.canonicalize_dtype(likelihood.dtype) == likelihood.dtype:
            likelihood = jnp.asarray(likelihood)
        return EMResult(
            params=_on_device(saved["params"]),
            log_likelihood=likelihood,
            objective=saved["objective"],
            num_steps=saved["num_steps"],
            status=Status[saved["status"]],
            findings=tuple(Finding(**finding) for finding in saved["findings"]),
            gaps={name: Gap(**_on_device(gap)) for name, gap in saved["gaps"].items()},
            restarts=restarts
            and Restarts(**{**restarts, "params": _on_device(restarts["params"])}),
        )


def _on_device(arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {name: jnp.asarray(array) for name, array in arrays.items()}


def _filled(value: Any) -> Any:
    """Return arguments with zeros for arrays that were not saved. Errors: `NotPlain`."""
    if isinstance(value, Mapping):
        if OTHER in value:
            raise NotPlain(value[OTHER])
        if SPECIFICATION in value:
            of_array = value[SPECIFICATION]
            return np.zeros(of_array["shape"], of_array["dtype"])
        if is_plain_frame(value):
            return frame_of(value)
        return {name: _filled(part) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_filled(part) for part in value)
    return value
