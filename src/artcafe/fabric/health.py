"""How a NATS server says it is, asked over NATS as the system account; what to do about it is the asker's."""

from __future__ import annotations

import asyncio
import json
from enum import Enum

from nats.aio.client import Client
from nats.errors import Error as NatsError

from artcafe.fabric.accounts import UserCredentials


class Scope(Enum):
    """How closely the server looks at itself: `HealthzOptions` in nats-server's `monitor.go`.

    `STREAMS` looks for every stream on disk, so it may be slow where there are many: no answer to it means nothing.
    """

    SERVER = b'{"details":true,"js-enabled-only":true}'
    STREAMS = b'{"details":true}'


async def problems(url: str, system: UserCredentials, scope: Scope, *, within_s: float) -> list[str] | None:
    """What a restart would mend, none when all is well, and None where there is no answer in that time.

    That is JetStream switched off, and a stream that met a full disk: it refuses everything from then on, also when there is
    room again, until nats-server starts anew (2.15.1). It is not an account that this NATS doesn't know, which is pushed when
    it is needed, nor a stream that could not be recovered, which would stay so.
    """
    try:
        health = json.loads(await _ask(url, system, scope, within_s))["data"]
    except (NatsError, OSError, TimeoutError, ValueError, KeyError):
        return None
    found = health.get("errors", [])
    return [one["error"] for one in found if one["type"] == "JETSTREAM" or "write error" in one["error"]]


async def _ask(url: str, system: UserCredentials, scope: Scope, within_s: float) -> bytes:
    """On a connection of its own: nothing to keep up, and only a server of our operator lets it in."""
    client = Client()
    try:
        async with asyncio.timeout(within_s):
            await client.connect(
                url,
                name="artcafe health",
                allow_reconnect=False,
                # Else a first connection that is refused is tried sixty times, 2 s apart, before it fails (nats-py 2.16).
                reconnect_time_wait=0,
                max_reconnect_attempts=1,
                error_cb=_ignore,
                user_jwt_cb=system.user_jwt_cb,
                signature_cb=system.signature_cb,
            )
            return (await client.request("$SYS.REQ.SERVER.PING.HEALTHZ", scope.value, timeout=within_s)).data
    finally:
        await client.close()


async def _ignore(_: Exception) -> None:
    """Instead of nats-py's own handler, which logs: what fails here is raised as well."""
