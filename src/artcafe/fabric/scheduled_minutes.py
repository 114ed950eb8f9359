"""The minutes in which tenants have scheduled messages, shared by all servers: they say which tenant to open, and when.

One stream in the platform's account has one message for each tenant and minute. It is stored before the first message scheduled
in that minute is accepted, and removed some time after the minute, so a server finds all minutes when it starts. An unneeded
minute costs one read of the tenant's log, which decides what is delivered (`fabric.scheduled_messages`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from artcafe.errors import NatsConnectionLost, NoResponder
from artcafe.fabric.nats.connection import NatsConnection, unreachable
from artcafe.fabric.nats.jetstream import JetStream, check_answer
from artcafe.model import Seq, TenantId
from artcafe.rules.subjects import SCHEDULED_MINUTES, scheduled_minute

STREAM: Final = "wake-ups"
"""The name that existing installations have stored."""
TIMEOUT_S: Final = 4.0
READ_AT_ONCE: Final = 1000
READ_BYTES: Final = 1 << 20
MINUTE_S: Final = 60


def minute_of(time: datetime) -> int:
    """Return the minute of a time, counted since 1970."""
    return int(time.timestamp()) // MINUTE_S


class ScheduledMinutes:
    """The minutes since 1970 in which tenants have scheduled messages, as read by the last `refresh`."""

    def __init__(self, connection: NatsConnection, *, replicas: int = 1) -> None:
        """`connection` is in the platform's account. `replicas` applies if the stream is created now."""
        self._connection, self.replicas = connection, replicas
        self._jetstream = JetStream(connection)
        self._minutes: dict[TenantId, set[int]] = {}
        self._read_to: Seq = 0

    def by_tenant(self) -> dict[TenantId, set[int]]:
        """Return the known minutes of each tenant with any."""
        return self._minutes

    async def put(self, tenant_id: TenantId, minute: int) -> None:
        """Store that the tenant has a message scheduled in this minute. May be repeated. Raise `Unavailable`."""
        if minute in self._minutes.get(tenant_id, ()):
            return
        await self._connection.wait_up(TIMEOUT_S)
        try:
            await self._put(tenant_id, minute)
        except NoResponder:
            await self._jetstream.create(self._config())
            try:
                await self._put(tenant_id, minute)
            except NoResponder as exc:
                raise unreachable() from exc

    async def _put(self, tenant_id: TenantId, minute: int) -> None:
        try:
            answer = await self._connection.request(scheduled_minute(tenant_id, minute), tenant_id.encode(), timeout_s=TIMEOUT_S)
        except (NatsConnectionLost, TimeoutError) as exc:
            raise unreachable() from exc
        check_answer(msgspec.json.decode(answer.data))
        self._minutes.setdefault(tenant_id, set()).add(minute)

    async def refresh(self) -> None:
        """Read the minutes stored since the last call, by any server. Raise `Unavailable`."""
        await self._connection.wait_up(TIMEOUT_S)
        while found := await self._jetstream.read_after(
            STREAM, SCHEDULED_MINUTES, self._read_to, most=READ_AT_ONCE, most_bytes=READ_BYTES, is_replicated=self.replicas > 1
        ):
            for each in found:
                minute = int(each.subject.rpartition(".")[2])
                self._minutes.setdefault(TenantId(each.data.decode()), set()).add(minute)
            self._read_to = found[-1].seq

    async def is_stored(self, tenant_id: TenantId, minute: int) -> bool:
        """Return whether a minute is still stored. Forget one that another server has removed. Raise `Unavailable`."""
        if await self._jetstream.get_from_leader(STREAM, {"last_by_subj": scheduled_minute(tenant_id, minute)}) is not None:
            return True
        self._forget(tenant_id, minute)
        return False

    async def remove(self, tenant_id: TenantId, minute: int) -> None:
        """Remove a minute in which nothing is scheduled any more. May be repeated. Raise `Unavailable`."""
        await self._jetstream.request(f"STREAM.PURGE.{STREAM}", {"filter": scheduled_minute(tenant_id, minute)})
        self._forget(tenant_id, minute)

    def _forget(self, tenant_id: TenantId, minute: int) -> None:
        minutes = self._minutes.get(tenant_id, set())
        minutes.discard(minute)
        if not minutes:
            self._minutes.pop(tenant_id, None)

    async def raise_replicas(self) -> None:
        """Raise the stream's number of replicas, never lower it. Ignore a missing stream. May be repeated."""
        await self._jetstream.raise_replicas(STREAM, self.replicas)

    def _config(self) -> dict[str, object]:
        return {
            "name": STREAM,
            "subjects": [SCHEDULED_MINUTES],
            "storage": "file",
            "retention": "limits",
            "discard": "old",
            "max_msgs_per_subject": 1,
            "allow_direct": True,
            "num_replicas": self.replicas,
        }
