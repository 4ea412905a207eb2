"""What happens between the steps of a run: it is kept, and it may be interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from emjax.run.annotations import Every, Path
from emjax.run.checkpoints import Checkpoint, Place
from emjax.run.interrupts import Interrupt, interruptible
from emjax.run.result import EMResult


@dataclass(frozen=True, eq=False)
class Pauses:
    """What happens between pieces of a run.

    - `checkpoint`: keeps where it stands.
    - `interrupt`: whether it is to end there.
    - `are_asked_for`: whether it is in pieces, however short it is.
    """

    checkpoint: Checkpoint = field(default_factory=Checkpoint.none)
    interrupt: Interrupt = field(default_factory=Interrupt)
    are_asked_for: bool = False

    @property
    def without_checkpoint(self) -> Pauses:
        """The same, of a run that nobody needs to keep."""
        return replace(self, checkpoint=Checkpoint.none())

    def place(self, label: str) -> Place:
        """Return the place of the next loop of the run; see `Checkpoint.loop`."""
        # what follows once it is interrupted is no part of the run that will be gone on with
        kept = Checkpoint.none() if self.interrupt.is_wanted else self.checkpoint
        return kept.loop(label)

    def noted(self, result: EMResult) -> EMResult:
        """Return the result of the run, which has ended, and what is wrong with its checkpoint."""
        if not self.interrupt.is_wanted:
            self.checkpoint.end()
        failure = self.checkpoint.failure
        return replace(result, findings=(*result.findings, failure)) if failure else result


@contextmanager
def paused(
    path: Path | None, every: Every, identity: Callable[[], Mapping[str, Mapping[str, str]]]
) -> Iterator[Pauses]:
    """Yield what happens between pieces of a run, within which Ctrl-C does not raise.

    `path`, `every`, `identity`: see `Checkpoint`; the last one is called if there is a path.
    """
    checkpoint = Checkpoint.of(path, every, {} if path is None else identity())
    with interruptible() as interrupt:
        yield Pauses(checkpoint, interrupt, path is not None)
