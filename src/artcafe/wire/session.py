"""The order of frames on one connection, as tables for both roles. Bytes in, commands or frames out; no I/O.

`ServerSession` is the gateway's half and `ClientSession` the SDK's. Both are moved by the tables below, which the tests join in
memory and export as vectors for clients in other languages (`tests/wire/vectors/session.json`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

import msgspec

from artcafe.errors import BadFrame, OutOfTurn, TooLarge
from artcafe.wire import frames, replies


class ServerState(Enum):
    """How far the login has come, for the server.

    The server counts a `connect` as successful until it is refused: a refusal closes the connection, and the commands behind the
    `connect` wait for its outcome. So a client may send them at once.
    """

    FRESH = "fresh"
    CONNECTED = "connected"
    CLOSED = "closed"

    __hash__ = object.__hash__  # In C: every command of a client needs it, and Enum hashes the name in Python.


class ClientState(Enum):
    """How far the login has come, for the client."""

    FRESH = "fresh"
    CHALLENGE_REQUESTED = "waiting for a challenge"
    CHALLENGED = "holding a challenge"
    CONNECT_SENT = "waiting for the reply to connect"
    CONNECTED = "connected"
    RENEWING = "connected, and logging in again"
    CLOSED = "closed"


_LOGIN: Final = frozenset({"challenge", "connect"})
_WORK: Final = frozenset(frames.KINDS) - _LOGIN
_ANSWERS: Final = frozenset(replies.KINDS) - _LOGIN
"""Every frame of a server but the replies to the login: replies, errors, and pushes."""

SERVER_RECEIVES: Final[Mapping[tuple[ServerState, str], ServerState]] = {
    (ServerState.FRESH, "challenge"): ServerState.FRESH,
    (ServerState.FRESH, "connect"): ServerState.CONNECTED,
    (ServerState.CONNECTED, "challenge"): ServerState.CONNECTED,  # to connect again by a signature
    (ServerState.CONNECTED, "connect"): ServerState.CONNECTED,  # again, by a new token or that signature
    **{(ServerState.CONNECTED, kind): ServerState.CONNECTED for kind in _WORK},
}
"""The commands that a server accepts. Any other order ends the connection with `out_of_turn`."""

CLIENT_SENDS: Final[Mapping[tuple[ClientState, str], ClientState]] = {
    (ClientState.FRESH, "challenge"): ClientState.CHALLENGE_REQUESTED,
    (ClientState.FRESH, "connect"): ClientState.CONNECT_SENT,  # by a token
    (ClientState.CHALLENGED, "challenge"): ClientState.CHALLENGE_REQUESTED,  # the one it holds may have expired
    (ClientState.CHALLENGED, "connect"): ClientState.CONNECT_SENT,
    (ClientState.CONNECTED, "challenge"): ClientState.RENEWING,
    (ClientState.CONNECTED, "connect"): ClientState.RENEWING,
    (ClientState.RENEWING, "connect"): ClientState.RENEWING,
    **{
        (state, kind): state
        for state in (ClientState.CONNECT_SENT, ClientState.CONNECTED, ClientState.RENEWING)
        for kind in _WORK
    },
}
"""The commands that a client may send."""

CLIENT_RECEIVES: Final[Mapping[tuple[ClientState, str], ClientState]] = {
    (ClientState.FRESH, "error"): ClientState.FRESH,  # pushed before the server closes
    (ClientState.CHALLENGE_REQUESTED, "challenge"): ClientState.CHALLENGED,
    (ClientState.CHALLENGE_REQUESTED, "error"): ClientState.FRESH,
    (ClientState.CHALLENGED, "error"): ClientState.CHALLENGED,
    (ClientState.CONNECT_SENT, "connect"): ClientState.CONNECTED,
    (ClientState.CONNECT_SENT, "error"): ClientState.FRESH,
    (ClientState.RENEWING, "challenge"): ClientState.RENEWING,
    (ClientState.RENEWING, "connect"): ClientState.CONNECTED,
    **{(state, kind): state for state in (ClientState.CONNECTED, ClientState.RENEWING) for kind in _ANSWERS},
}
"""The frames that a client accepts. After any other order it closes the connection with code 1002."""


class ServerSession:
    """The server's half of one connection."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = ServerState.FRESH

    def receive(self, payload: bytes) -> tuple[int | None, str, frames.Body]:
        """Parse a frame of the client and return its command as `(id, kind, body)`.

        Raises `frames.RefusedCommand` for a frame to be answered with an error, and `BadFrame`, `OutOfTurn` or `TooLarge` for one
        that ends the connection. The state is unchanged then.
        """
        if len(payload) > frames.MAX_FRAME_BYTES:
            raise TooLarge("the frame", frames.MAX_FRAME_BYTES)
        id, kind, body = frames.parse(payload)
        after = SERVER_RECEIVES.get((self.state, kind))
        if after is None:
            raise OutOfTurn(kind)
        self.state = after
        return id, kind, body

    def close(self) -> None:
        """Accept no command any more."""
        self.state = ServerState.CLOSED


class ClientSession:
    """The client's half of one connection."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = ClientState.FRESH

    def send(self, kind: str, body: frames.Body | msgspec.Raw, id: int | None = None) -> bytes:
        """Return the frame of a command. `body` may be its JSON text. Raises `OutOfTurn`, with the state unchanged."""
        after = CLIENT_SENDS.get((self.state, kind))
        if after is None:
            raise OutOfTurn(kind)
        self.state = after
        return frames.command(kind, body, id)

    def receive(self, payload: bytes | str) -> tuple[str | None, replies.Incoming]:
        """Parse a frame of the server and return its kind and content.

        The kind is None for a frame of a newer server, to be ignored. Raises `BadFrame` for one that cannot be read or is out of
        turn; the state is unchanged then.
        """
        frame = replies.parse_incoming(payload)
        kind = replies.kind_of(frame)
        if kind is not None:
            after = CLIENT_RECEIVES.get((self.state, kind))
            if after is None:
                raise BadFrame(f"{kind} is out of turn for a client that is {self.state.value}", example="a frame in its turn")
            self.state = after
        return kind, frame

    def close(self) -> None:
        """Accept and send nothing any more."""
        self.state = ClientState.CLOSED
