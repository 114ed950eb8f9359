"""The order of a queue's messages with keys: which message of each key is the first that has not ended. No I/O.

It is built from a channel's log: messages are added in the order of their sequences, and ends in any order, repeated or early.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from artcafe.model import Seq

MAX_EARLY: Final = 10_000
"""Ends of messages that were not read yet, above which the log must be read again."""


class KeyOrder:
    """The messages with keys above `floor`, at or below which every message has ended."""

    __slots__ = ("_early", "_keys", "_lines", "floor", "read_to")

    def __init__(self, floor: Seq) -> None:
        self.floor = self.read_to = floor
        """`read_to`: every message of the channel up to here was added, if it has a key."""
        self._keys: dict[Seq, str] = {}
        """The keys of the messages that have not ended."""
        self._lines: dict[str, deque[Seq]] = {}
        """By key: its messages in order. The first one has not ended; a later one may have."""
        self._early: set[Seq] = set()
        """Messages above `read_to` that have ended."""

    def __len__(self) -> int:
        """Return the number of messages that were read and have not ended."""
        return len(self._keys)

    def __contains__(self, seq: object) -> bool:
        """Return whether a message was read, has a key, and has not ended."""
        return seq in self._keys

    @property
    def unread_to(self) -> Seq:
        """The sequence up to which the log must be read, because too many messages ended that were not read; otherwise 0."""
        return max(self._early) if len(self._early) > MAX_EARLY else 0

    def add(self, seq: Seq, key: str) -> None:
        """Add the channel's next message with a key. Ignore one at or below `read_to`."""
        if seq <= self.read_to:
            return
        self.read_to = seq
        if seq in self._early:
            self._early.discard(seq)
            return
        self._keys[seq] = key
        self._lines.setdefault(key, deque()).append(seq)

    def reach(self, seq: Seq) -> None:
        """Note that every message with a key up to `seq` was added."""
        if seq > self.read_to:
            self.read_to = seq
            self._early = {each for each in self._early if each > seq}

    def is_first(self, seq: Seq) -> bool:
        """Return whether every earlier message of this one's key has ended. False for a message that is not here."""
        key = self._keys.get(seq)
        return key is not None and self._lines[key][0] == seq

    def is_ended(self, seq: Seq) -> bool:
        """Return whether a message with a key is known to have ended."""
        return seq in self._early or (seq <= self.read_to and seq not in self._keys)

    def blocker(self, seq: Seq) -> Seq | None:
        """Return the message that must end first, the first of this one's key; None if that is itself, or it is not here."""
        key = self._keys.get(seq)
        first = seq if key is None else self._lines[key][0]
        return None if first == seq else first

    def end(self, seq: Seq) -> Seq | None:
        """Note that a message has ended. Return the message that is the first of its key now, if that has changed."""
        key = self._keys.pop(seq, None)
        if key is None:
            if seq > self.read_to:
                self._early.add(seq)
            return None
        line = self._lines[key]
        was_first = line[0] == seq
        while line and line[0] not in self._keys:
            line.popleft()
        if not line:
            del self._lines[key]
            return None
        return line[0] if was_first else None

    def raise_floor(self, floor: Seq) -> None:
        """Note that every message up to `floor` has ended."""
        if floor <= self.floor:
            return
        for seq in [each for each in self._keys if each <= floor]:
            self.end(seq)
        self.floor = floor
        self.reach(floor)
