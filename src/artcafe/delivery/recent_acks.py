"""Who acknowledged the last messages of a queue on this server, for receipts. JetStream knows only the ack floor."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from artcafe.model import AgentId, Epoch, Seq

MOST: Final = 256
"""Remembered acks in each queue, some 130 bytes each: those before the first question about their messages."""
MOST_WATCHED: Final = 4096
"""Messages of a queue with acks remembered because of a question."""
KEEP_S: Final = 60.0
"""How long they are, since the last question about them."""


class RecentAcks:
    """The last acks of one queue on this server, and those of messages asked about."""

    __slots__ = ("_epoch", "_newest", "_timer", "_watched")

    def __init__(self) -> None:
        self._newest: deque[tuple[Seq, str, Epoch | None]] = deque(maxlen=MOST)
        self._watched: dict[Seq, tuple[str | None, float]] = {}
        """By message: the agent of its ack, and the time of the last question, by the monotonic clock."""
        self._epoch: Epoch | None = None
        """The log of the watched messages."""
        self._timer: asyncio.TimerHandle | None = None

    def note(self, seq: Seq, receiver: str, epoch: Epoch | None) -> None:
        """Note an ack of a message of the log of this epoch. Called for each ack."""
        self._newest.append((seq, receiver, epoch))
        if seq in self._watched and epoch == self._epoch:
            self._watched[seq] = receiver, self._watched[seq][1]

    def find(self, seqs: Sequence[Seq], epoch: Epoch | None) -> dict[Seq, AgentId]:
        """Return the agent of each acknowledged message, and remember the acks of the others for `KEEP_S`."""
        if epoch != self._epoch:
            self._epoch = epoch
            self._watched.clear()
        self._drop()
        newest = {seq: receiver for seq, receiver, of in self._newest if of == epoch}
        found: dict[Seq, AgentId] = {}
        now = time.monotonic()
        for seq in seqs:
            receiver = self._watched.get(seq, (None, 0.0))[0] or newest.get(seq)
            if receiver is not None:
                found[seq] = AgentId(receiver)
            if seq in self._watched or len(self._watched) < MOST_WATCHED:
                self._watched[seq] = receiver, now
        return found

    def _drop(self) -> None:
        """Forget the messages without a question since `KEEP_S`, and all of them `KEEP_S` after the last question."""
        if self._timer is not None:
            self._timer.cancel()
        until = time.monotonic() - KEEP_S
        self._watched = {seq: known for seq, known in self._watched.items() if known[1] > until}
        self._timer = asyncio.get_running_loop().call_later(KEEP_S, self._end_watch)

    def _end_watch(self) -> None:
        """Forget the messages asked about: the last question is `KEEP_S` ago."""
        self._timer = None
        self._watched.clear()
