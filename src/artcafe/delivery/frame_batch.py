"""What sockets are sent together: frames as bytes, each encoded once, joined in the order in which they came, and written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import repeat


class FrameBatch:
    """Frames of one channel that sockets get together, and the turn of each among those of all channels."""

    __slots__ = ("frames", "turns")

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.turns: list[int] = []

    def since(self, first: int) -> FrameBatch:
        """Those from the one at `first` on."""
        rest = FrameBatch()
        rest.frames, rest.turns = self.frames[first:], self.turns[first:]
        return rest


def join_batches(pieces: Sequence[FrameBatch]) -> bytes:
    """The frames of all the pieces, by their turns."""
    if len(pieces) == 1:
        return b"".join(pieces[0].frames)  # which makes no copy of a single one
    turned = sorted(pair for piece in pieces for pair in zip(piece.turns, piece.frames, strict=True))
    return b"".join([frame for _, frame in turned])


def write_to_all(descriptors: Sequence[int], frames: bytes) -> list[tuple[int, int]]:
    """Writes the same bytes to every descriptor with one system call each, the whole of what it costs (record 23).

    Tells who has not taken everything: the place in `descriptors`, and how many bytes were taken. That is 0 where there is no
    room now, and where the socket is gone, which its transport will find out.
    """
    taken: list[int] = []
    writes = map(os.write, descriptors, repeat(frames))
    while len(taken) < len(descriptors):
        try:
            taken.extend(writes)
        except OSError:  # what was taken before it stays, and the map goes on behind it
            taken.append(0)
    if taken.count(len(frames)) == len(taken):
        return []
    return [(at, size) for at, size in enumerate(taken) if size < len(frames)]


def text_frame(payload: bytes) -> bytes:
    """An unmasked WebSocket text frame, as a server sends it (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        return b"%c%c%b" % (0x81, size, payload)
    if size < 65536:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), payload)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), payload)
