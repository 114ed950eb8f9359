"""The acknowledged messages of one channel, in any order, and the cursor below the first unacknowledged one."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Acked:
    """The acknowledged messages: all up to `through`, and runs above it.

    Sequences of a channel skip numbers, so a message is identified by its own sequence and that of the message before it. A run
    of any length is one entry: memory grows with the number of holes, not of messages.
    """

    through: int = 0
    _ends: dict[int, int] = field(default_factory=dict)
    """The last sequence of each run above `through`, by the sequence before its first."""
    _begins: dict[int, int] = field(default_factory=dict)
    """The sequence before the first of each run, by its last sequence."""

    def add(self, before: int, seq: int) -> None:
        """Acknowledge the message `seq`, the successor of `before`. Call it once for each message."""
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
        """Forget all: messages up to `through` count as acknowledged, and no others."""
        self.through = through
        self._ends.clear()
        self._begins.clear()
