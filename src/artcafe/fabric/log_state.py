"""The state of a tenant's log, as `fabric.tenant_log` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

from artcafe.model import Epoch, Seq
from artcafe.rules.start_position import LogLineage


class LogEnd(NamedTuple):
    """The end of a log: its epoch and last sequence."""

    epoch: Epoch | None
    seq: Seq


NO_LOG: Final = LogEnd(None, 0)
"""The end of a tenant's log before its first message."""


class LogState(NamedTuple):
    """The state of a log at one moment. Sequences rise over the whole log, so `last_seq` is at or above every channel's last
    one."""

    epoch: Epoch
    first_seq: Seq
    last_seq: Seq
    messages: int = 0
    continues: Mapping[Epoch, Seq] = {}
    has_quorum: bool = True
    """Whether a majority of the replicas followed the reporting leader. Otherwise another leader may have been elected."""
    size_bytes: int = 0
    """The disk space of its messages."""
    consumers: int = 0
    """How many JetStream consumers it has: one for each queue that has ever had a subscriber."""
    first_at: datetime | None = None
    """When its oldest message was stored; None if it is empty."""

    @property
    def lineage(self) -> LogLineage:
        return LogLineage(self.epoch, self.continues)

    @property
    def end(self) -> LogEnd:
        return LogEnd(self.epoch, self.last_seq)

    @property
    def is_complete(self) -> bool:
        """Whether no message has ever been removed."""
        return self.messages == self.last_seq


class CheckedEnd:
    """The end of the log up to which this server has every message that it follows.

    A check against the log sets it, and each message that arrives right after it moves it on, so that a log whose messages have
    all arrived needs no other check.
    """

    __slots__ = ("_epoch", "_seq")

    def __init__(self) -> None:
        self._epoch: Epoch | None = None
        self._seq = -1  # nothing was checked

    def set(self, end: LogEnd) -> None:
        """Note the result of a check."""
        self._epoch, self._seq = end

    def note(self, seq: Seq) -> None:
        """Note the arrival of a message."""
        if seq == self._seq + 1:
            self._seq = seq

    def is_at(self, end: LogEnd) -> bool:
        """Return whether the log has nothing beyond, and is still the same one."""
        return (self._epoch, self._seq) == end
