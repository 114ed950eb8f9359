"""How a NATS server says it is, asked over NATS as the system account; what to do about it is the asker's."""

from __future__ import annotations

import asyncio
import errno
import json
import ssl
from collections.abc import Sequence
from enum import Enum
from typing import Final

from nats.errors import Error as NatsError

from artcafe.fabric.accounts import Accounts
from artcafe.fabric.nats.client import VerifiedClient

OURS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})
"""What this machine or this process lacks when a connection fails so: descriptors, memory, ports. NATS has no part in it."""
CLOSE_S: Final = 1.0


class HealthScope(Enum):
    """How closely the server looks at itself: `HealthzOptions` in nats-server's `monitor.go`.

    `STREAMS` looks for every stream on disk, so it may be slow where there are many: no answer to it means nothing.
    """

    SERVER = b'{"details":true,"js-enabled-only":true}'
    STREAMS = b'{"details":true}'


class LocalShortage(Exception):
    """The question did not reach NATS, because this process or its machine lacks something."""


class HealthClient:
    """Asks one nats-server, over a connection that stays open: to ask costs no descriptor when there are none left."""

    def __init__(self, urls: Sequence[str], accounts: Accounts, tls: ssl.SSLContext) -> None:
        """`urls` is read anew for each connection; only a server of our operator, with our certificate, is believed."""
        self._urls, self._accounts, self._tls = urls, accounts, tls
        self._client: VerifiedClient | None = None

    async def problems(self, scope: HealthScope, *, within_s: float) -> list[str] | None:
        """Return what a restart would mend, an empty list when all is well, and None where there is no answer in that time.

        That is JetStream switched off, and a stream that met a full disk: it refuses everything from then on, also when there is
        room again, until nats-server starts anew (2.15.1). It is not an account that this NATS doesn't know, which is pushed when
        it is needed, nor a stream that could not be recovered, which would stay so.

        Raises `LocalShortage` where the fault is on this side: that says nothing of NATS.
        """
        try:
            async with asyncio.timeout(within_s):
                client = await self._connected()
                answer = await client.request("$SYS.REQ.SERVER.PING.HEALTHZ", scope.value, timeout=within_s)
            health = json.loads(answer.data)["data"]
        except OSError as exc:
            if exc.errno in OURS:
                raise LocalShortage(exc.strerror) from exc
            return None
        except (NatsError, TimeoutError, ValueError, KeyError):
            return None
        found = health.get("errors", [])
        return [one["error"] for one in found if one["type"] == "JETSTREAM" or "write error" in one["error"]]

    async def close(self) -> None:
        """Close the connection; the next question opens one. May be repeated."""
        client, self._client = self._client, None
        if client is not None:
            await _close(client)

    async def _connected(self) -> VerifiedClient:
        """The connection there is, or a new one. Raises the error of the system that kept it from being opened, if one did."""
        if self._client is not None and self._client.is_connected:
            return self._client
        await self.close()
        client, user, errors = VerifiedClient(), self._accounts.system_user(), list[Exception]()

        async def note(exc: Exception) -> None:
            """nats-py raises no more than that no server was left; its own handler would log this besides."""
            errors.append(exc)

        try:
            await client.connect(
                list(self._urls),
                name="artcafe health",
                allow_reconnect=False,
                # Else a first connection that is refused is tried sixty times, 2 s apart, before it fails (nats-py 2.16).
                reconnect_time_wait=0,
                max_reconnect_attempts=1,
                tls=self._tls,
                error_cb=note,
                user_jwt_cb=user.user_jwt_cb,
                signature_cb=user.signature_cb,
            )
        except BaseException:
            await _close(client)
            if ours := [exc for exc in errors if isinstance(exc, OSError) and exc.errno in OURS]:
                raise ours[0] from None
            raise
        self._client = client
        return client


async def _close(client: VerifiedClient) -> None:
    """nats-py waits for ever for the end of a TLS connection to a server that hangs or is not believed."""
    try:
        async with asyncio.timeout(CLOSE_S):
            await client.close()
    except (NatsError, OSError, TimeoutError):
        pass  # what is left of it ends with the socket
