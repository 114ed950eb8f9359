"""Seconds from a revocation at one server to the last message that the agent receives there, and at another server.

Two servers on the same tables and one NATS; the agent has a socket at each, and 200 messages a second are sent to both. The time
starts before the request is sent. For a change without an announcement, the bench writes directly into the tables, as if NATS had
lost the announcement: the servers find it at their next read of the versions.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from msgspec import Raw

from artcafe.model import AgentId, AgentStatus, TenantId
from artcafe.sdk.client import Client
from artcafe.sdk.keys import load_signer
from artcafe.tables.catalog import Environment
from artcafe.tables.engine.writes import Assign
from artcafe.tables.sqlite.engine import Sqlite
from artcafe.tables.store import Store
from artcafe.wire import frames
from bench.raw_client import RawSocket, connect, masked
from bench.report import Options, Table
from tests.fleet import Fleet, running_fleet
from tests.platform import Cast
from tests.ssh_keygen import make_key, public_line

EVERY_S: Final = 0.005
SILENT_S: Final = 1.0
"""No message for this long, at 200 a second: the previous one was the last."""

Withdraw = Callable[[Fleet, Cast], Awaitable[None]]


class Listener(RawSocket):
    """Records the time of the last message, and the number of messages."""

    def __init__(self) -> None:
        super().__init__()
        self.last = 0.0
        self.count = 0

    def listen(self) -> None:
        self.on_frame = self._got

    def _got(self, payload: bytes) -> None:
        if payload.startswith(b'{"message"'):
            self.last = time.perf_counter()
            self.count += 1


async def _delete(fleet: Fleet, cast: Cast) -> None:
    async with cast.rest() as rest:
        await rest.tenant(cast.tenant).agents.delete(cast.agents[0])


async def _disable(fleet: Fleet, cast: Cast) -> None:
    async with cast.rest() as rest:
        await rest.tenant(cast.tenant).agents.update(cast.agents[0], status="disabled")


async def _rekey(fleet: Fleet, cast: Cast) -> None:
    key = await asyncio.to_thread(make_key, cast.keys[0].with_name("another"))
    async with cast.rest() as rest:
        await rest.tenant(cast.tenant).agents.update(cast.agents[0], public_key=public_line(key))


async def _unsubscribe(fleet: Fleet, cast: Cast) -> None:
    async with cast.rest() as rest:
        await rest.tenant(cast.tenant).subscriptions.delete(cast.channels[0], cast.agents[0])


async def _disable_silently(fleet: Fleet, cast: Cast) -> None:
    tables = await Sqlite.open(fleet.tables, Environment.PROD)
    try:
        tenant = Store(tables).tenant(TenantId(cast.tenant))
        agent = await tenant.agent(AgentId(cast.agents[0]))
        assert agent is not None
        changes = [Assign("status", AgentStatus.DISABLED.value), Assign("epoch", agent.epoch + 1)]
        await tenant.transact([tenant.touch(), tenant.change_agent(agent, changes)])
    finally:
        await tables.close()


WAYS: Final[dict[str, Withdraw]] = {
    "agent deleted": _delete,
    "agent disabled": _disable,
    "agent given another key": _rekey,
    "subscription deleted": _unsubscribe,
    "agent disabled, not announced": _disable_silently,
}


async def run(options: Options) -> list[Table]:
    """Return the table of this bench."""
    table = Table(
        "Seconds from a revocation to the last delivery",
        ["revoked at the first server", "there", "at the other server"],
        [f"Median (highest) of {options.rounds} rounds. The contract allows 5 s."],
    )
    with (
        TemporaryDirectory(prefix="artcafe-bench-", dir=options.folder) as folder,
        running_fleet(Path(folder), python=sys.executable) as fleet,
    ):
        for way, withdraw in WAYS.items():
            times = [await _one(fleet, withdraw) for _ in range(options.rounds)]
            table.rows.append([way, *(_shown(sorted(each)) for each in zip(*times, strict=True))])
    return [table]


def _shown(seconds: list[float]) -> str:
    return f"{seconds[len(seconds) // 2]:.2f} ({seconds[-1]:.2f})"


async def _one(fleet: Fleet, withdraw: Withdraw) -> list[float]:
    """Return the seconds at each server, in a new tenant."""
    cast = await fleet.tenant_with(agents=2)
    listeners = [await _listener(server.gateway_url, cast) for server in fleet.servers]
    async with _publishing(fleet, cast):
        while any(listener.count < 20 for listener in listeners):  # noqa: ASYNC110 (it comes from another process)
            await asyncio.sleep(EVERY_S)
        began = time.perf_counter()
        await withdraw(fleet, cast)
        while any(time.perf_counter() - max(began, each.last) < SILENT_S for each in listeners):  # noqa: ASYNC110 (as above)
            await asyncio.sleep(EVERY_S)
    for listener in listeners:
        listener.close()
    return [max(0.0, listener.last - began) for listener in listeners]


async def _listener(url: str, cast: Cast) -> Listener:
    line = await connect(url, cast.tenant, await _token(cast, 0), Listener)
    assert isinstance(line, Listener)
    line.listen()
    return line


@asynccontextmanager
async def _publishing(fleet: Fleet, cast: Cast) -> AsyncIterator[None]:
    line = await connect(fleet.servers[0].gateway_url, cast.tenant, await _token(cast, 1))
    line.on_frame = lambda _: None  # neither the answers nor its own messages

    async def publish() -> None:
        for id in itertools.count(1):
            line.transport.write(masked(frames.command("publish", frames.Publish(cast.channels[0], Raw(str(id).encode())), id)))
            await asyncio.sleep(EVERY_S)

    async with asyncio.TaskGroup() as group:
        publishing = group.create_task(publish())
        try:
            yield
        finally:
            publishing.cancel()
            line.close()


async def _token(cast: Cast, agent: int) -> str:
    async with Client(cast.url) as rest:
        return (await rest.login(cast.tenant, cast.agents[agent], load_signer(cast.keys[agent]))).access_token
