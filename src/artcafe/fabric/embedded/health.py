"""Health checks of a NATS server, over NATS, as the system account."""

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
"""Errors of a connection attempt that this process or machine causes: no descriptors, memory or ports left. NATS is not at
fault."""
CLOSE_S: Final = 1.0


class HealthScope(Enum):
    """The depth of a check: `HealthzOptions` in nats-server's `monitor.go`.

    `STREAMS` checks every stream on disk, so it may be slow with many streams: a missing answer proves nothing.
    """

    SERVER = b'{"details":true,"js-enabled-only":true}'
    STREAMS = b'{"details":true}'


class LocalShortage(Exception):
    """A check did not reach NATS, because this process or its machine lacks a resource."""


class HealthClient:
    """A client for checks of one nats-server. Its connection stays open, because a check must work without free file
    descriptors."""

    def __init__(self, urls: Sequence[str], accounts: Accounts, tls: ssl.SSLContext) -> None:
        """`urls` is read again for each connection. Only a server with our operator and our certificate is accepted."""
        self._urls, self._accounts, self._tls = urls, accounts, tls
        self._client: VerifiedClient | None = None

    async def problems(self, scope: HealthScope, *, within_s: float) -> list[str] | None:
        """Return the problems that a restart would solve, an empty list for a healthy server, and None without an answer in time.

        These are a disabled JetStream, and a stream that met a full disk: it refuses every message until nats-server restarts,
        also after there is space again (2.15.1). Not among them are an account unknown to this NATS, which is pushed when needed,
        and a stream that could not be recovered, since a restart would not change that.

        Raise `LocalShortage` if the fault is on this side, which says nothing about NATS.
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
        """Close the connection; the next check opens a new one. May be repeated."""
        client, self._client = self._client, None
        if client is not None:
            await _close(client)

    async def _connected(self) -> VerifiedClient:
        """Return the open connection, or a new one. Raise the system error that prevented it, if any."""
        if self._client is not None and self._client.is_connected:
            return self._client
        await self.close()
        client, user, errors = VerifiedClient(), self._accounts.system_user(), list[Exception]()

        async def note(exc: Exception) -> None:
            """Collect an error. nats-py itself raises only "no servers available", and its default handler would log this one."""
            errors.append(exc)

        try:
            await client.connect(
                list(self._urls),
                name="artcafe health",
                allow_reconnect=False,
                # Otherwise a refused first connection is retried sixty times, 2 s apart, before it fails (nats-py 2.16).
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
    """Close a client. nats-py waits without limit for the end of a TLS connection to a hanging or rejected server."""
    try:
        async with asyncio.timeout(CLOSE_S):
            await client.close()
    except (NatsError, OSError, TimeoutError):
        pass  # the rest ends with the socket
