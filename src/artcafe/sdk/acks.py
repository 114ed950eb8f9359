"""Which messages of one channel the program has acknowledged, in any order, and up to where none is missing."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Acked:
    """Every message up to `through` is acknowledged, and runs of messages above it.

    Sequences of a channel skip numbers, so a message is known by its own sequence and that of the message before it. A run is one
    entry however long it is: memory grows with the holes between runs, not with the messages.
    """

    through: int = 0
    _ends: dict[int, int] = field(default_factory=dict)
    """The last sequence of each run above `through`, by the sequence before its first."""
    _begins: dict[int, int] = field(default_factory=dict)
    """The same the other way round."""

    def add(self, before: int, seq: int) -> None:
        """Acknowledge the message `seq`, which follows the message `before`. Once for each message."""
        if seq <= self.through:
            return
        end = self._ends.pop(seq, seq)
        self._begins.pop(end, None)
        if before <= self.through:
            self.through = end
            return
        begin = self._begins.pop(before, before)
        self._ends[begin], self._begins[end] = end, begin

    def add_all(self, seq: int) -> None:
        """Acknowledge every message up to `seq`."""
        for begin, end in sorted(self._ends.items()):
            if begin > seq:
                break
            seq = max(seq, end)
            del self._ends[begin], self._begins[end]
        self.through = max(self.through, seq)

    def reset(self, through: int) -> None:
        """Begin anew: every message up to `through` counts as acknowledged, and none above it."""
        self.through = through
        self._ends.clear()
        self._begins.clear()
