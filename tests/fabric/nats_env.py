"""Connections, logs and writers on a real nats-server, and a proxy in front of it that can lose answers and connections."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from msgspec import Raw

from artcafe.fabric.accounts import Accounts
from artcafe.fabric.log_writer import LogWriter
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.nats.liveness import Liveness
from artcafe.fabric.tenant_log import TenantLog
from artcafe.model import ChannelId, TenantId
from artcafe.rules import subjects
from artcafe.wire.envelopes import envelope
from artcafe.wire.frames import Publish
from artcafe.wire.replies import PublishReply
from tests.fabric.nats_clients import BOUND_S, connected, push

A, B = ChannelId("chn_a"), ChannelId("chn_b")

T = TypeVar("T")

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Nats:
    """A running nats-server."""

    url: str
    accounts: Accounts

    @asynccontextmanager
    async def connection(self, tenant: TenantId, url: str | None = None, *, ping_s: float = 5) -> AsyncIterator[NatsConnection]:
        """Connect to the tenant's account, optionally through a proxy."""

        async def admit() -> None:
            async with connected(self.url, self.accounts.system_user()) as system:
                await push(system, self.accounts.account_jwt(tenant))

        connection = NatsConnection(
            f"test {tenant}", [url or self.url], lambda: self.accounts.user(tenant), admit, liveness=Liveness(ping_s)
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(connection.run())
            try:
                await connection.wait_up(BOUND_S)
                yield connection
            finally:
                connection.close()

    @asynccontextmanager
    async def proxy(self) -> AsyncIterator[Proxy]:
        """Start a proxy in front of this server."""
        proxy = Proxy(int(self.url.rpartition(":")[2]))
        server = await asyncio.start_server(proxy.carry, "127.0.0.1", 0)
        proxy.url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield proxy
            proxy.is_open = False
            proxy.cut()
            await until(lambda: not proxy.carried)


def a_tenant() -> TenantId:
    """Return a tenant id that no other test has."""
    return TenantId(f"ten_{next(_numbers)}")


class Proxy:
    """A proxy between clients and the server.

    While `is_mute`, it discards the server's answers; while not `is_open`, it refuses connections.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.url = ""
        self.is_mute, self.is_open = False, True
        self.lost_bytes = 0
        self.connections = 0
        self._flows = asyncio.Event()
        self._flows.set()
        self.carried: list[tuple[asyncio.StreamWriter, asyncio.Event]] = []

    def stick(self) -> None:
        """Let the current connections hang, as with a stopped server; later ones work."""
        self._flows.clear()
        self._flows = asyncio.Event()
        self._flows.set()

    def cut(self) -> None:
        """Close every connection."""
        for writer, flows in self.carried:
            writer.transport.abort()
            flows.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection."""
        if not self.is_open:
            writer.transport.abort()
            return
        self.connections += 1
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
        flows = self._flows
        both = [(writer, flows), (there_writer, flows)]
        self.carried += both
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, there_writer, flows, is_answer=False))
                group.create_task(self._pump(there_reader, writer, flows, is_answer=True))
        except* OSError:
            pass
        finally:
            for each in both:
                each[0].transport.abort()
                self.carried.remove(each)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flows: asyncio.Event, *, is_answer: bool
    ) -> None:
        while data := await reader.read(65536):
            await flows.wait()
            if is_answer and self.is_mute:
                self.lost_bytes += len(data)
                continue
            writer.write(data)
            await writer.drain()
        raise ConnectionAbortedError


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(BOUND_S):
        while not condition():  # noqa: ASYNC110 (the condition is another process's, without an event)
            await asyncio.sleep(0.001)


async def within(work: Awaitable[T]) -> T:
    """Return the outcome of `work`, or fail after a time limit."""
    async with asyncio.timeout(BOUND_S):
        return await work


class Writer:
    """A running log writer, and publishes as an agent would send them."""

    def __init__(self, log_writer: LogWriter, log: TenantLog) -> None:
        self.log_writer, self.log = log_writer, log

    def submit(
        self, data: object, key: str | None = None, channel: ChannelId = A, headers: dict[str, str] | None = None
    ) -> asyncio.Future[PublishReply]:
        """Queue a message. `data` is JSON as bytes, or an object whose `repr` is JSON; the message ids count up."""
        message_id = f"msg_{next(_numbers)}"
        raw = Raw(data if isinstance(data, bytes) else repr(data).encode())
        stored = envelope(Publish(channel, raw, headers=headers), message_id=message_id, sender="agt_1", time="now")
        dedupe_id = None if key is None else subjects.dedupe_id(channel, "agt_1", key)
        return self.log_writer.submit(subjects.stored(channel), stored, message_id, dedupe_id)

    async def publish(
        self, data: object, key: str | None = None, channel: ChannelId = A, headers: dict[str, str] | None = None
    ) -> PublishReply:
        """Store a message."""
        return await within(self.submit(data, key, channel, headers))

    async def stored(self, channel: ChannelId = A) -> list[bytes]:
        """Return the data of every message in the channel, in order."""
        found, after = [], 0
        while portion := await self.log.after(channel, after):
            found += [one.envelope.partition(b'"data":')[2][:-1] for one in portion]
            after = portion[-1].seq
        return found


@asynccontextmanager
async def writing(
    connection: NatsConnection, *, max_bytes: int | None = None, timeout_s: float = BOUND_S, max_messages: int = 20_000
) -> AsyncIterator[Writer]:
    """Run a writer of the connection's log."""

    async def quota() -> int:
        assert max_bytes is not None
        return max_bytes

    log = TenantLog(connection, quota=None if max_bytes is None else quota)
    log_writer = LogWriter(log, timeout_s=timeout_s, max_messages=max_messages)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(log_writer.run())
        try:
            yield Writer(log_writer, log)
        finally:
            running.cancel()
