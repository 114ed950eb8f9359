"""The state of a tenant's log, as `fabric.tenant_log` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from artcafe.model import Epoch, Seq
from artcafe.rules.start_position import LogLineage


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
    def is_complete(self) -> bool:
        """Whether no message has ever been removed."""
        return self.messages == self.last_seq
