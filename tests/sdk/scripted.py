"""A scripted gateway: a WebSocket server with a handler of the test, and helpers for the frames of the real gateway."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from artcafe.sdk.agent import Agent
from artcafe.sdk.keys import Signer
from artcafe.wire import frames

TENANT, AGENT, CHANNEL = "ten_1", "agt_1", "chn_1"

Handler = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def gateway(handler: Handler, *, subprotocol: str | None = frames.SUBPROTOCOL) -> AsyncIterator[str]:
    """Run a WebSocket server, and yield its URL."""
    spoken = [Subprotocol(subprotocol)] if subprotocol else None
    async with serve(handler, "127.0.0.1", 0, subprotocols=spoken, close_timeout=1) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/v1/connect"


async def hear(socket: ServerConnection) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(await socket.recv())
    return found


async def say(socket: ServerConnection, **frame: object) -> None:
    await socket.send(json.dumps(frame))


async def pose(socket: ServerConnection, *, tenant: str = TENANT, service: str = "s") -> None:
    assert "challenge" in await hear(socket)
    subject = f"service={service} tenant={tenant} agent={AGENT} challenge=chl_1"
    text = f"artcafe login 1 {subject} nonce={'0f' * 32} expires=2026-11-22T16:50:57Z"
    await say(socket, id=0, challenge={"challenge_id": "chl_1", "challenge": text, "expires_at": "…"})


async def let_in(socket: ServerConnection, *, service: str = "s") -> None:
    await pose(socket, service=service)
    assert "connect" in await hear(socket)
    await say(socket, id=1, connect={"session_id": "s", "agent_id": AGENT, "tenant_id": TENANT, "ping_s": 25, "limits": {}})


def agent_at(url: str | list[str], key: Signer, connect_timeout_s: float = 0.3) -> Agent:
    return Agent(url, tenant=TENANT, agent=AGENT, key=key, connect_timeout_s=connect_timeout_s)


def message(seq: int) -> dict[str, object]:
    return {"channel": CHANNEL, "seq": seq, "prev": None, "message_id": f"m{seq}", "from": "a", "time": "…", "data": seq}
