"""Which messages of queues have been acknowledged, by the end marks that queues with `key_ordered` store (`key_log`).

A queue may have many marks, and a receipt looks every second: marks that were searched for a message are not read again for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from typing import Final, NamedTuple

from artcafe.fabric.tenant_log import TenantLog
from artcafe.model import ChannelId, Epoch, Seq, TenantId
from artcafe.rules import subjects
from artcafe.wire.envelopes import parse_end_mark

MOST: Final = 4096
"""Messages whose search is remembered."""


class SearchedQueue(NamedTuple):
    """A queue channel in one log of its tenant."""

    tenant_id: TenantId
    epoch: Epoch | None
    channel_id: ChannelId


class EndMarkSearch:
    """Searches the end marks of queues, for this server's receipts."""

    def __init__(self) -> None:
        self._read_to: OrderedDict[tuple[SearchedQueue, Seq], Seq | None] = OrderedDict()
        """By message: the last mark that was searched; None if the message has ended. The last ones asked for are at the end."""

    async def ended(self, log: TenantLog, queue: SearchedQueue, seqs: Collection[Seq]) -> set[Seq]:
        """Return those of the messages that have been acknowledged and have a mark. Raise `Unavailable`."""
        # The mark of a message is stored after it.
        read_to = {seq: self._read_to.get((queue, seq), seq) for seq in seqs}
        ended = {seq for seq, to in read_to.items() if to is None}
        after = min((to for to in read_to.values() if to is not None), default=None)
        while after is not None and (marks := await log.following(subjects.end_marks(queue.channel_id), after)):
            after = marks[-1].seq
            ended.update(seq for mark in marks for seq in parse_end_mark(mark.data).ended if seq in read_to)
        for seq in seqs:
            self._remember(queue, seq, None if seq in ended else after)
        return ended

    def _remember(self, queue: SearchedQueue, seq: Seq, read_to: Seq | None) -> None:
        self._read_to[queue, seq] = read_to
        self._read_to.move_to_end((queue, seq))
        if len(self._read_to) > MOST:
            self._read_to.popitem(last=False)
