"""A client session and a server session, joined in memory: whole frames, or the bytes of a WebSocket in pieces of any size."""

from __future__ import annotations

from typing import Protocol

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import Protocol as WebSocket
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from artcafe.wire import frames, replies
from artcafe.wire.session import ClientSession, ServerSession


class Transport(Protocol):
    """Carries frames in both directions, in order."""

    def to_server(self, frame: bytes) -> list[bytes]:
        """Return the frames that arrive at the server."""

    def to_client(self, frame: bytes) -> list[bytes]:
        """Return the frames that arrive at the client."""


class Whole:
    """Passes each frame on as it is."""

    def to_server(self, frame: bytes) -> list[bytes]:
        return [frame]

    def to_client(self, frame: bytes) -> list[bytes]:
        return [frame]


class Pieces:
    """Passes the bytes of a WebSocket on in pieces of `size` bytes, through the sans-I/O halves of the library `websockets`."""

    def __init__(self, size: int) -> None:
        self._size = size
        subprotocols = [Subprotocol(frames.SUBPROTOCOL)]
        self._client = ClientProtocol(parse_uri("ws://127.0.0.1/v1/connect"), subprotocols=subprotocols)
        self._server = ServerProtocol(subprotocols=subprotocols)
        self._client.send_request(self._client.connect())
        for event in self._move(self._client, self._server):
            assert isinstance(event, Request)
            self._server.send_response(self._server.accept(event))
        self._move(self._server, self._client)
        assert self._client.subprotocol == frames.SUBPROTOCOL

    def to_server(self, frame: bytes) -> list[bytes]:
        self._client.send_text(frame)
        return self._texts(self._client, self._server)

    def to_client(self, frame: bytes) -> list[bytes]:
        self._server.send_text(frame)
        return self._texts(self._server, self._client)

    def _texts(self, sender: WebSocket, receiver: WebSocket) -> list[bytes]:
        events = self._move(sender, receiver)
        return [bytes(each.data) for each in events if isinstance(each, Frame) and each.opcode is Opcode.TEXT]

    def _move(self, sender: WebSocket, receiver: WebSocket) -> list[object]:
        data = b"".join(sender.data_to_send())
        for at in range(0, len(data), self._size):
            receiver.receive_data(data[at : at + self._size])
        return list(receiver.events_received())


class ConnectionPair:
    """Both sessions of one connection, and what each has received."""

    def __init__(self, transport: Transport | None = None) -> None:
        self._transport = transport or Whole()
        self.client, self.server = ClientSession(), ServerSession()
        self.commands: list[tuple[int | None, str, frames.Body]] = []
        self.answers: list[tuple[str | None, replies.Incoming]] = []

    def send(self, kind: str, body: frames.Body, id: int | None = None) -> bytes:
        """Send a command from the client to the server, and return its frame."""
        frame = self.client.send(kind, body, id)
        self.deliver_to_server(frame)
        return frame

    def deliver_to_server(self, frame: bytes) -> None:
        """Deliver a frame to the server, whatever the client's session allows. Raises as `ServerSession.receive` does."""
        for each in self._transport.to_server(frame):
            self.commands.append(self.server.receive(each))

    def deliver_to_client(self, frame: bytes) -> None:
        """Deliver a frame to the client. Raises as `ClientSession.receive` does."""
        for each in self._transport.to_client(frame):
            self.answers.append(self.client.receive(each))
