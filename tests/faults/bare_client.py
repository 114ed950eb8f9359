"""A minimal agent that follows only the contract: a WebSocket, JSON frames and an SSH key; it retries nothing and hides no
repeat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from artcafe.sdk.keys import load_signer
from artcafe.wire import frames, replies
from tests.platform import Cast

OPEN_S: Final = 10.0
PING_S: Final = 20.0

GONE: Final = (OSError, TimeoutError, ConnectionClosed, InvalidHandshake)
"""Exceptions raised when the server is or becomes unreachable. `ConnectionError` is one of them."""


class BareClient:
    """One authenticated connection of an agent."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._id = 1

    def new_id(self) -> int:
        """Return an id for a command, before sending it can fail."""
        self._id += 1
        return self._id

    async def send(self, kind: str, body: frames.Body, id: int) -> None:
        """Send a command. Raise one of `GONE` if the connection fails; the command may have been sent even then."""
        await self._socket.send(frames.command(kind, body, id), text=True)

    async def ack(self, channel: str, seq: int) -> None:
        await self._socket.send(frames.command("ack", frames.Ack(channel, seq)), text=True)

    async def cancel(self, id: int) -> None:
        """Cancel the request that was sent as command `id`."""
        await self._socket.send(frames.command("cancel", frames.Cancel(id)), text=True)

    def abort(self) -> None:
        """Break the connection without a close frame."""
        self._socket.transport.abort()

    async def receive(self) -> replies.Incoming:
        """Return the next frame. Raise one of `GONE` if the connection fails."""
        return replies.parse_incoming(await self._socket.recv())

    async def subscribe(self, channel: str, start: frames.Start) -> replies.SubscribeReply:
        """Subscribe, and ignore frames of other channels meanwhile. Raise one of `GONE` if the connection fails."""
        id = self.new_id()
        await self.send("subscribe", frames.Subscribe(channel, start), id)
        while (frame := await self.receive()).id != id:
            pass
        assert frame.subscribe is not None, frame
        return frame.subscribe


@asynccontextmanager
async def connected(
    url: str, cast: Cast, number: int, max_unacked: int | None = None, *, has_pings: bool = True
) -> AsyncIterator[BareClient]:
    """Connect agent `number` of the tenant to the gateway at `url`, and close the connection cleanly. Raise one of `GONE` if the
    connection fails. Without `has_pings` it is not closed while the server cannot answer them."""
    protocol, ping_s = Subprotocol(frames.SUBPROTOCOL), PING_S if has_pings else None
    async with connect(
        url, subprotocols=[protocol], compression=None, open_timeout=OPEN_S, close_timeout=1, ping_interval=ping_s
    ) as socket:
        async with asyncio.timeout(OPEN_S):
            await _login(socket, cast, number, max_unacked)
        yield BareClient(socket)


async def _login(socket: ClientConnection, cast: Cast, number: int, max_unacked: int | None) -> None:
    await socket.send(frames.command("challenge", frames.Challenge(cast.tenant, cast.agents[number]), 0), text=True)
    posed = (await _answer(socket)).challenge
    assert posed is not None
    signature = await load_signer(cast.keys[number]).sign(posed.challenge)
    proof = frames.Connect(challenge_id=posed.challenge_id, signature=signature, max_unacked=max_unacked)
    await socket.send(frames.command("connect", proof, 1), text=True)
    assert (await _answer(socket)).connect is not None


async def _answer(socket: ClientConnection) -> replies.Incoming:
    frame = replies.parse_incoming(await socket.recv())
    if frame.error is not None:
        assert frame.error.temporary, frame
        raise ConnectionError(frame.error.message)
    return frame
