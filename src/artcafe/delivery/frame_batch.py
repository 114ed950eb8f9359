"""Batches of encoded messages: joined in the order of their arrival, and written to many descriptors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import repeat


class FrameBatch:
    """Encoded messages of one channel for one flush, each with the number of its arrival, counted over all channels."""

    __slots__ = ("arrivals", "frames")

    def __init__(self, frames: list[bytes], arrivals: list[int]) -> None:
        self.frames, self.arrivals = frames, arrivals

    def since(self, first: int) -> FrameBatch:
        """Return a batch of the messages from index `first` on."""
        return FrameBatch(self.frames[first:], self.arrivals[first:])


def join_batches(batches: Sequence[FrameBatch]) -> bytes:
    """Return the bytes of all batches, in the order of arrival."""
    if len(batches) == 1:
        return b"".join(batches[0].frames)  # of a single frame this makes no copy
    by_arrival = sorted(pair for batch in batches for pair in zip(batch.arrivals, batch.frames, strict=True))
    return b"".join([frame for _, frame in by_arrival])


def write_to_all(descriptors: Sequence[int], frames: bytes) -> list[tuple[int, int]]:
    """Write the same bytes to every descriptor with one system call each: the whole cost of a flush (decision record 23).

    Return the short writes: index in `descriptors` and the number of bytes written. A full buffer and a closed socket count 0;
    the transport detects the close by itself.
    """
    written: list[int] = []
    writes = map(os.write, descriptors, repeat(frames))
    while len(written) < len(descriptors):
        try:
            written.extend(writes)
        except OSError:  # `written` keeps the writes before this one, and the map continues after it
            written.append(0)
    if written.count(len(frames)) == len(written):
        return []
    return [(at, size) for at, size in enumerate(written) if size < len(frames)]
