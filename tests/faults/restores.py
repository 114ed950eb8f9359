"""A restore in the history of a run: the events that its backup has, may have, and has not.

The order of a history's events says what the backup has: everything that was answered before `BackupBegan`, and nothing that
began after `BackupEnded`. All events before `Restored` are of the lost log, all later ones of the log that continues the backup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Generic, TypeVar

T = TypeVar("T")

EPOCH: Final = "epoch"
"""The reason of a gap that reports a replaced log."""

SETTLED_S: Final = 5.0
"""How long before a backup an ack without an answer was certainly processed, on a machine that is busy with other tests."""


@dataclass(frozen=True, slots=True)
class BackupBegan:
    """The backup that is restored later begins. `at` is monotonic, as everywhere in this module."""

    at: float


@dataclass(frozen=True, slots=True)
class BackupEnded:
    """That backup is complete."""

    at: float


@dataclass(frozen=True, slots=True)
class Restored:
    """The platform has stopped, no client has a connection, and it is about to start on the backup, whose log ends at
    `last_seq`."""

    last_seq: int
    at: float


class Stage(Enum):
    """A stage of a run with a restore."""

    BEFORE_BACKUP = auto()
    AFTER_BACKUP = auto()
    AFTER_RESTORE = auto()


RestoreEvent = BackupBegan | BackupEnded | Restored


@dataclass(frozen=True)
class Lives(Generic[T]):
    """The events of a run in the parts that a restore makes of it. Without a restore all are in `after`."""

    before: Sequence[T] = ()
    """Before the backup began: it has them."""
    during: Sequence[T] = ()
    """While it was made: it may have them."""
    lost: Sequence[T] = ()
    """After it was complete: it does not have them."""
    after: Sequence[T] = ()
    """After the restore."""
    began: BackupBegan | None = None
    restored: Restored | None = None

    @property
    def first(self) -> list[T]:
        """All events before the restore."""
        return [*self.before, *self.during, *self.lost]

    @property
    def possible(self) -> list[T]:
        """The events that the backup may have."""
        return [*self.before, *self.during]


def lives_of(events: Sequence[T]) -> Lives[T]:
    """Divide the events of a run. The restored backup is the last one before the restore, of which a run has at most one."""
    restored_at = next((at for at, event in enumerate(events) if isinstance(event, Restored)), None)
    if restored_at is None:
        return Lives(after=events)
    first, restored = events[:restored_at], events[restored_at]
    began_at = max(at for at, event in enumerate(first) if isinstance(event, BackupBegan))
    ended_at = max(at for at, event in enumerate(first) if isinstance(event, BackupEnded))
    began = first[began_at]
    assert isinstance(restored, Restored)
    assert isinstance(began, BackupBegan)
    before, during, lost = first[:began_at], first[began_at + 1 : ended_at], first[ended_at + 1 :]
    return Lives(before, during, lost, events[restored_at + 1 :], began, restored)
