"""The server's half of a connection as a state machine: a frame's bytes in, a command out, transitions as a table. No I/O."""

from __future__ import annotations

from enum import Enum
from typing import Final

from artcafe.errors import OutOfTurn, TooLarge
from artcafe.wire import frames


class State(Enum):
    """How far the two ends have come. A connect is believed until it is refused: refusing it ends the connection, and the
    commands behind it wait for its outcome, so a client need not."""

    FRESH = "fresh"
    CONNECTED = "connected"
    CLOSED = "closed"


NEXT: Final[dict[tuple[State, str], State]] = {
    (State.FRESH, "challenge"): State.FRESH,
    (State.FRESH, "connect"): State.CONNECTED,
    (State.CONNECTED, "challenge"): State.CONNECTED,  # to connect again by a signature
    (State.CONNECTED, "connect"): State.CONNECTED,  # again, with a fresh token or that
    (State.CONNECTED, "publish"): State.CONNECTED,
    (State.CONNECTED, "subscribe"): State.CONNECTED,
    (State.CONNECTED, "unsubscribe"): State.CONNECTED,
    (State.CONNECTED, "ack"): State.CONNECTED,
    (State.CONNECTED, "status"): State.CONNECTED,
    (State.CONNECTED, "history"): State.CONNECTED,
    (State.CONNECTED, "watch"): State.CONNECTED,
    (State.CONNECTED, "unwatch"): State.CONNECTED,
}


class Session:
    """What one connection has said so far."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = State.FRESH

    def receive(self, payload: bytes) -> tuple[int | None, str, frames.Body]:
        """The command in a frame, as `(id, kind, body)`.

        Raises `frames.Refused` for a frame to be answered with an error, and `BadFrame`, `OutOfTurn` or `TooLarge` for one that
        ends the connection. Nothing has changed then.
        """
        if len(payload) > frames.MAX_FRAME_BYTES:
            raise TooLarge("the frame", frames.MAX_FRAME_BYTES)
        id, kind, body = frames.parse(payload)
        after = NEXT.get((self.state, kind))
        if after is None:
            raise OutOfTurn(kind)
        self.state = after
        return id, kind, body

    def close(self) -> None:
        """Nothing is received any more."""
        self.state = State.CLOSED
