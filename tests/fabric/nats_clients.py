"""Plain NATS clients for the tests of the fabric: they speak to a real server as one of its users, and never reconnect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nats.aio.client import Client
from nats.errors import Error as NatsError

from artcafe.fabric.accounts import UserCredentials

BOUND_S = 5


async def _ignore(_: Exception) -> None:
    """What goes wrong is raised where it is asked for."""


class Connection(Client):
    """A client that says when it was closed, by whichever side."""

    def __init__(self) -> None:
        super().__init__()
        self.was_closed = asyncio.Event()

    async def note_closed(self) -> None:
        self.was_closed.set()


@asynccontextmanager
async def connected(url: str, user: UserCredentials) -> AsyncIterator[Connection]:
    """Raises what nats-py raises when the server refuses the user."""
    client = Connection()
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
    """Tells NATS an account, as the system user, and waits until it is in force."""
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
