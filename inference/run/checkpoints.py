"""Where a run stands, kept in a file: the same call goes on from there, to the same bits."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import jax
import numpy as np

from emjax.numerics.guards import is_key
from emjax.run.annotations import Path
from emjax.run.archive import CHECKPOINT, remove_unfinished
from emjax.run.endings import checkpoint_not_written
from emjax.run.findings import Finding
from emjax.run.settings import is_whole_number

# What is lost at most where nothing else is asked for; saving takes milliseconds.
EVERY = timedelta(minutes=1)


@dataclass(eq=False)
class Checkpoint:
    """A file of where a run stands; without a path, none is kept.

    A run is one loop of steps or several of them, one after another: those of its starts, say.
    The file has all of them so far, in their order, so that those that have ended are not run
    again.

    - `identity`: {what it depends on: {name: word}}; a run that differs in any is another one.
    - `every`: steps, or time, between two saves.
    - `places`: where each loop stands, as plain arrays.
    - `failure`: why the file could not be written, when it was last tried.
    """

    path: Path | None
    every: int | timedelta
    identity: Mapping[str, Mapping[str, str]]
    places: list[dict[str, Any]] = field(default_factory=list)
    failure: Finding | None = None
    _num_loops: int = 0
    _saved_at: float = field(default_factory=time.monotonic)

    @classmethod
    def none(cls) -> Checkpoint:
        """Return that of a run of which nothing is kept."""
        return cls(None, EVERY, {})

    @classmethod
    def of(
        cls,
        path: Path | None,
        every: int | timedelta | None,
        identity: Mapping[str, Mapping[str, str]],
    ) -> Checkpoint:
        """Return that of a run: as its file says, if there is one, else a new one.

        Errors: `ValueError` for a file that is of another run or damaged, `OSError` where none can
        be written.
        """
        every = _checked(path, every)
        checkpoint = cls(path, every, identity)
        if path is None:
            return checkpoint
        try:
            if jax.process_index() == 0:
                remove_unfinished(path)
            if os.path.exists(path):
                content = _content(path)
                _check_is_same(path, content, identity)
                checkpoint.places = content["places"]
            # a folder that does not exist is to be known now, not in an hour
            checkpoint._write()
        except OSError as error:
            raise OSError(
                error.errno,
                f"The checkpoint cannot be written ({error.strerror}): pass a file in a folder "
                "that exists and may be written to, em.run(..., checkpoint='run.checkpoint')",
                os.fspath(path),
            ) from error
        return checkpoint

    def loop(self, label: str = "") -> Place:
        """Return the place of the next loop of the run.

        `label`: what tells it from others, beside its shapes; what is saved of another one is not
        gone on with.
        """
        number, self._num_loops = self._num_loops, self._num_loops + 1
        return Place(self, number, label)

    def end(self) -> None:
        """Say in the file that the run has ended: the next time, nothing is left to do."""
        self._try_to_write(has_ended=True)

    def _try_to_write(self, has_ended: bool = False) -> None:
        """Write the file; where that fails, the last one stays, and the run goes on."""
        self._saved_at = time.monotonic()
        # of several processes, all of which stand at the same place, one writes
        if self.path is None or jax.process_index() > 0:
            return
        try:
            self._write(has_ended)
        except OSError as error:
            is_first = self.failure is None
            self.failure = checkpoint_not_written(os.fspath(self.path), str(error.strerror))
            if is_first:
                warnings.warn(str(self.failure), RuntimeWarning, stacklevel=2)
        else:
            self.failure = None

    def _write(self, has_ended: bool = False) -> None:
        assert self.path is not None
        if jax.process_index() == 0:
            content = {"identity": self.identity, "has_ended": has_ended, "places": self.places}
            CHECKPOINT.write(self.path, content)


@dataclass(frozen=True, eq=False)
class Place:
    """Where one loop of a run stands, in the file of the run."""

    checkpoint: Checkpoint
    number: int
    label: str

    def saved(self, template: Any) -> Any:
        """Return where the loop stood when it was saved; None where it was not.

        `template`: a tree of arrays and numbers, of the same structure, shapes and types. What is
        on a device in it is put there.
        """
        leaves, tree = jax.tree.flatten(template)
        places, expected = self.checkpoint.places, self._described(leaves)
        # in the same process a run may leave out a loop that has failed before
        while self.number < len(places) and places[self.number]["of"] not in (expected, []):
            del places[self.number]
        if self.number >= len(places) or not places[self.number]["of"]:
            return None
        saved = places[self.number]["leaves"]
        restored = [_restored(leaf, array) for leaf, array in zip(leaves, saved, strict=True)]
        return jax.tree.unflatten(tree, restored)

    def save(self, state: Any) -> None:
        """Save where the loop stands: a tree of arrays and numbers.

        Where the file cannot be written, a warning says so, and the last one stays.
        """
        if self.checkpoint.path is None:
            return
        leaves = jax.tree.leaves(state)
        place = {"of": self._described(leaves), "leaves": list(map(_plain, leaves))}
        places = self.checkpoint.places
        # of loops that took no step nothing was saved
        while len(places) < self.number:
            places.append({"of": [], "leaves": []})
        places[self.number :] = [place]
        self.checkpoint._try_to_write()

    def _described(self, leaves: list) -> list[str]:
        return [self.label, *map(_specification, leaves)]

    def is_due(self, step: int) -> bool:
        """Whether the loop is to be saved after so many steps."""
        every = self.checkpoint.every
        if self.checkpoint.path is None:
            return False
        if isinstance(every, timedelta):
            return time.monotonic() - self.checkpoint._saved_at >= every.total_seconds()
        return step % every == 0

    def next_stop(self, step: int) -> int | float:
        """Return the next step after this one at which the loop may be due; infinite: at any."""
        every = self.checkpoint.every
        if self.checkpoint.path is None or isinstance(every, timedelta):
            return math.inf
        return (step // every + 1) * every


def _checked(path: Any, every: Any) -> int | timedelta:
    """Return how often to save. Errors: `ValueError` for what is no path, no steps and no time."""
    if path is not None and not isinstance(path, str | os.PathLike):
        raise ValueError(
            f"checkpoint takes the file: em.run(..., checkpoint='run.checkpoint'), not {path!r}."
        )
    if every is None:
        return EVERY
    if path is None:
        raise ValueError(
            f"every={every!r} says how often a checkpoint is saved, and there is none: "
            "em.run(..., checkpoint='run.checkpoint', every=100)."
        )
    is_time = isinstance(every, timedelta)
    if is_time and every > timedelta(0):
        return every
    if not is_time and is_whole_number(every) and every > 0:
        return int(every)
    raise ValueError(
        "every must be a number of steps, every=100, or a time, "
        f"every=datetime.timedelta(minutes=1), not {every!r}."
    )


def _content(path: Path) -> dict[str, Any]:
    try:
        return CHECKPOINT.read(path)
    except ValueError as error:
        raise ValueError(
            f"{error} If nobody needs it, delete it, and the run starts anew; else pass another "
            "path, em.run(..., checkpoint='run.checkpoint')."
        ) from error


def _check_is_same(
    path: Path, content: Mapping[str, Any], identity: Mapping[str, Mapping[str, str]]
) -> None:
    """Raise `ValueError` for the file of another run."""
    changed = []
    for what, words in identity.items():
        before = content["identity"].get(what, {})
        for name in {**before, **words}:
            if before.get(name) != words.get(name):
                changed.append(_changed(what, name, before.get(name), words.get(name)))
    if changed:
        raise ValueError(
            f"The checkpoint '{os.fspath(path)}' is of another run: {'; '.join(changed)}. Pass "
            "another path, or delete the file to start anew; to start from its estimate under "
            "what has changed, finish it as it was: em.run(..., init_params=result.params)."
        )


# a digest, of which nobody reads more
LONGEST_WORD = 30


def _changed(what: str, name: str, before: str | None, now: str | None) -> str:
    """Return what has changed, in words."""
    whose = f"{what} '{name}'" if name else what
    if before is None or now is None:
        return f"{whose} was {'not there' if before is None else 'there'} before"
    if max(len(before), len(now)) > LONGEST_WORD:
        return f"{whose} has changed"
    return f"{whose} was {before}, and is {now}"


# ── leaves of a state ─────────────────────────────────────────────────────────────────────────────


def _specification(leaf: Any) -> str:
    """Return shape and type of a leaf."""
    if isinstance(leaf, bool | int | float):
        return type(leaf).__name__
    return f"{leaf.dtype}{list(leaf.shape)}"


def _plain(leaf: Any) -> Any:
    """Return a leaf as NumPy has it by itself."""
    if isinstance(leaf, bool | int | float):
        return leaf
    array = np.array(jax.random.key_data(leaf) if is_key(leaf) else leaf)
    # bfloat16 and its like, which the file does not have
    return array.view(f"u{array.itemsize}") if array.dtype.kind == "V" else array


def _restored(template: Any, plain: Any) -> Any:
    """Return a leaf of which `_plain` was saved, where the template is."""
    if isinstance(template, bool | int | float):
        return plain
    if is_key(template):
        return jax.random.wrap_key_data(plain, impl=jax.random.key_impl(template))
    array = plain if plain.dtype == template.dtype else plain.view(template.dtype)
    if isinstance(template, np.ndarray | np.generic):
        return array
    is_placed = isinstance(template, jax.Array) and template.committed
    return jax.device_put(array, template.sharding if is_placed else None)
