"""What sockets are sent together: frames as bytes, each encoded once, and joined in the order in which they came."""

from __future__ import annotations

from collections.abc import Sequence


class Piece:
    """Frames of one channel that sockets get together, and the turn of each among those of all channels."""

    __slots__ = ("frames", "turns")

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.turns: list[int] = []

    def since(self, first: int) -> Piece:
        """Those from the one at `first` on."""
        rest = Piece()
        rest.frames, rest.turns = self.frames[first:], self.turns[first:]
        return rest


def joined(pieces: Sequence[Piece]) -> bytes:
    """The frames of all the pieces, by their turns."""
    if len(pieces) == 1:
        return b"".join(pieces[0].frames)  # which makes no copy of a single one
    turned = sorted(pair for piece in pieces for pair in zip(piece.turns, piece.frames, strict=True))
    return b"".join([frame for _, frame in turned])


def text_frame(payload: bytes) -> bytes:
    """An unmasked WebSocket text frame, as a server sends it (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        return b"%c%c%b" % (0x81, size, payload)
    if size < 65536:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), payload)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), payload)
