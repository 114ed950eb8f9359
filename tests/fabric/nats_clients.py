"""Plain NATS clients for tests of the fabric. Each is one user of a real server, and never reconnects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nats.aio.client import Client
from nats.errors import Error as NatsError

from artcafe.fabric.accounts import UserCredentials

BOUND_S = 20


async def _ignore(_: Exception) -> None:
    """Ignore the error callback: the error is raised by the call too."""


class PlainClient(Client):
    """A client that reports when either side has closed it."""

    def __init__(self) -> None:
        super().__init__()
        self.was_closed = asyncio.Event()

    async def note_closed(self) -> None:
        self.was_closed.set()


@asynccontextmanager
async def connected(url: str, user: UserCredentials) -> AsyncIterator[PlainClient]:
    """Connect as `user`. Raise nats-py's error when the server refuses."""
    client = PlainClient()
    try:
        async with asyncio.timeout(BOUND_S):
            await client.connect(
                url,
                allow_reconnect=False,
                reconnect_time_wait=0,
                max_reconnect_attempts=1,
                error_cb=_ignore,
                closed_cb=client.note_closed,
                user_jwt_cb=user.user_jwt_cb,
                signature_cb=user.signature_cb,
            )
        yield client
    finally:
        await client.close()


async def push(system: Client, jwt: str) -> None:
    """Register an account as the system user, and wait until it is active."""
    answer = json.loads((await system.request("$SYS.REQ.CLAIMS.UPDATE", jwt.encode(), timeout=BOUND_S)).data)
    assert answer.get("data", {}).get("code") == 200, answer


async def is_admitted(url: str, user: UserCredentials) -> bool:
    try:
        async with connected(url, user):
            return True
    except NatsError as exc:
        if "Authorization Violation" in str(exc) or "maximum account" in str(exc):
            return False
        raise


async def until(condition: asyncio.Event) -> None:
    async with asyncio.timeout(BOUND_S):
        await condition.wait()
