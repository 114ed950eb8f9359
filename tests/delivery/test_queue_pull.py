"""Pulled queue messages: held by their receipts on every server, given back, extended, and held by nobody else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from artcafe.assembly import ServiceKeys, Services, ServiceSettings
from artcafe.delivery.pull import PulledPage, PullRequest
from artcafe.delivery.pull_holds import ACK, EXTEND, NAK, REJECT
from artcafe.delivery.pull_settling import Settled, SettleEntry
from artcafe.delivery.pull_waits import PullWait
from artcafe.fabric.fabric import Fabric
from artcafe.model import AgentPrincipal, Channel, ChannelType
from artcafe.rules.queues import QueueChange
from tests.gateway.gateway_app import GatewayApp, gateway_app, until
from tests.gateway.raw_client import BOUND_S
from tests.services.service_env import new_key, proven

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = PullRequest.checked(wait_s=25)
NOW = PullRequest.checked()
HELD_S = 3
"""Long enough for an ack in time on a machine that is busy with other tests."""


@dataclass(frozen=True)
class Worker:
    """An agent that pulls from one server."""

    services: Services
    principal: AgentPrincipal

    async def pull(self, request: PullRequest = NOW, wait: PullWait | None = None) -> list[dict[str, Any]]:
        """Pull, and return the items."""
        return items_of(await self.services.pulls.pull(self.principal, self.principal.agent_id, request, wait))

    async def settle(self, kind: str, item: dict[str, Any], **more: Any) -> Settled:
        """Send one entry about an item, with its receipt."""
        entry = SettleEntry(kind, item["channel"], item["seq"], item["receipt"], **more)
        (outcome,) = await self.services.pulls.settle(self.principal, self.principal.agent_id, [entry])
        return outcome

    async def code(self, kind: str, item: dict[str, Any], **more: Any) -> str | None:
        """Send one entry, and return the code of its error."""
        error = (await self.settle(kind, item, **more)).error
        return None if error is None else error.code


def items_of(pulled: PulledPage) -> list[dict[str, Any]]:
    return [msgspec.json.decode(item) for item in pulled.items]


def data_of(items: list[dict[str, Any]]) -> list[Any]:
    return [item["data"] for item in items]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def it(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayApp]:
    """Yield the server shared by the tests of this module."""
    async with gateway_app(tmp_path_factory.mktemp("server")) as made:
        yield made


async def a_queue(it: GatewayApp, change: QueueChange | None = None) -> Channel:
    change = change or QueueChange()
    return await it.services.channels.create(it.owner, name="tasks", type=ChannelType.QUEUE, queue=change)


async def a_worker(it: GatewayApp, *channels: Channel) -> Worker:
    agent = await it.services.agents.create(it.owner, name="worker", public_key=new_key())
    for channel in channels:
        await it.services.subscriptions.put(it.owner, channel.id, agent.id)
    return Worker(it.services, proven(agent))


async def publish(it: GatewayApp, channel: Channel, *data: int) -> None:
    for one in data:
        await it.publish(b"%d" % one, channel)


@asynccontextmanager
async def another_server(it: GatewayApp) -> AsyncIterator[Services]:
    """Run the services of a second server on the same tables and NATS. At its end it gives back nothing that pulls hold."""
    async with asyncio.TaskGroup() as group:
        fabric = Fabric([it.nats.url], it.nats.accounts)
        running = group.create_task(fabric.run())
        await fabric.wait_up(BOUND_S)
        keys = ServiceKeys(agent_tokens=b"t" * 32, invitations=b"v" * 32)
        settings = ServiceSettings(service_name="test")
        async with asyncio.TaskGroup() as hub_group:
            services = Services(it.services.store, fabric, it.identity, keys, it.clock, settings, hub_group)
            await until(lambda: fabric.hold_requests.is_listening)
            try:
                yield services
            finally:
                await services.queue_hub.close()
        fabric.close()
        await running


# --- one server ----------------------------------------------------------------------------------------------------------


@pytest.mark.promise("p8", "p9")
async def test_pulled_message_has_one_holder_until_it_is_acknowledged(it: GatewayApp) -> None:
    queue = await a_queue(it)
    one, other = await a_worker(it, queue), await a_worker(it, queue)
    await publish(it, queue, 1)

    (item,) = await one.pull()
    assert (item["data"], item["deliveries"], item["prev"]) == (1, 1, None)
    assert item["held_until"] > item["time"]
    assert await other.pull() == []
    assert await one.code(ACK, item) is None
    for kind in (ACK, NAK, EXTEND):
        assert await one.code(kind, item) == "not_held"
    assert await one.pull() == await other.pull() == []


@pytest.mark.promise("p11", "p13")
async def test_message_given_back_goes_to_another_agent_and_the_old_receipt_is_void(it: GatewayApp) -> None:
    queue = await a_queue(it)
    one, other = await a_worker(it, queue), await a_worker(it, queue)
    await publish(it, queue, 1)
    (item,) = await one.pull()

    assert await one.code(NAK, item) is None
    (again,) = await other.pull(LONG)
    assert (again["seq"], again["deliveries"]) == (item["seq"], 2)
    assert await one.code(ACK, item) == "not_held"
    assert await other.code(ACK, again) is None


@pytest.mark.promise("p11")
async def test_delay_of_a_nak_is_kept(it: GatewayApp) -> None:
    queue = await a_queue(it)
    worker = await a_worker(it, queue)
    await publish(it, queue, 1)
    (item,) = await worker.pull()
    assert await worker.code(NAK, item, delay_s=3600.0) is None
    assert await worker.pull() == []
    await publish(it, queue, 2)
    (other,) = await worker.pull()
    assert await worker.code(NAK, other, delay_s=-1.0) == "invalid"
    assert await worker.code(NAK, other, delay_s=1e9) == "invalid"


@pytest.mark.promise("p11", "p13")
async def test_message_whose_deadline_passes_comes_again_and_an_extended_one_does_not(it: GatewayApp) -> None:
    queue = await a_queue(it, QueueChange(ack_wait_s=1))
    worker = await a_worker(it, queue)
    await publish(it, queue, 1)
    (item,) = await worker.pull()
    extended = await worker.settle(EXTEND, item)
    assert extended.error is None
    assert extended.receipt is not None
    assert extended.held_until is not None

    (again,) = await worker.pull(LONG)
    assert (again["seq"], again["deliveries"]) == (item["seq"], 2)
    assert await worker.code(ACK, item | {"receipt": extended.receipt}) == "not_held"
    assert await worker.code(ACK, again) is None


@pytest.mark.promise("p8", "p14")
async def test_message_is_held_for_its_time_by_a_clock_that_does_not_jump(it: GatewayApp) -> None:
    """The deadline is that of the server's monotonic clock, counted from the pull: an agent that reads its answer late has less
    left, and the time of day changes nothing."""
    queue = await a_queue(it, QueueChange(ack_wait_s=HELD_S))
    one, other = await a_worker(it, queue), await a_worker(it, queue)
    await publish(it, queue, 1, 2)
    asked_at = time.monotonic()
    first, second = await one.pull()
    it.clock.ahead = timedelta(hours=1)
    try:
        assert await one.code(ACK, first) is None
        (again,) = await other.pull(LONG)
        taken_at = time.monotonic()
        assert (again["seq"], again["deliveries"]) == (second["seq"], 2)
        assert taken_at >= asked_at + HELD_S
        assert await one.code(ACK, second) == "not_held"
        assert await other.code(ACK, again) is None
    finally:
        it.clock.ahead = timedelta()


async def test_waiting_pull_takes_a_new_message_and_only_one_agent_gets_it(it: GatewayApp) -> None:
    queue = await a_queue(it)
    workers = [await a_worker(it, queue) for _ in range(3)]
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(worker.pull(PullRequest.checked(limit=1, wait_s=25))) for worker in workers]
        await until(lambda: len(it.services.pulls.waits) == 3)
        for number in range(3):
            await publish(it, queue, number)
    found = [each.result() for each in waiting]
    assert sorted(data for items in found for data in data_of(items)) == [0, 1, 2]
    assert {item["deliveries"] for items in found for item in items} == {1}


async def test_abandoned_pull_takes_no_later_message(it: GatewayApp) -> None:
    queue = await a_queue(it, QueueChange(max_deliveries=1))
    one, other = await a_worker(it, queue), await a_worker(it, queue)
    wait = PullWait()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(one.pull(LONG, wait))
        await until(lambda: len(it.services.pulls.waits) == 1)
        wait.abandon()
        assert await waiting == []
    await publish(it, queue, 1)
    (item,) = await other.pull(LONG)
    assert item["deliveries"] == 1


@pytest.mark.promise("p16")
async def test_limit_is_shared_by_queues_and_other_channels(it: GatewayApp) -> None:
    queue = await a_queue(it)
    broadcast = await it.services.channels.create(it.owner, name="news")
    worker = await a_worker(it, queue, broadcast)
    await publish(it, queue, *range(10))
    await publish(it, broadcast, *range(100, 110))

    items = await worker.pull(PullRequest.checked(limit=6))
    assert data_of(items) == [0, 1, 100, 101, 102, 103], "a third each: of the queue, the channel, and the inbox"
    assert len(await worker.pull(PullRequest.checked(limit=200))) == 8 + 10


@pytest.mark.promise("p8", "p9")
async def test_receipt_is_valid_for_its_agent_and_message_only(it: GatewayApp) -> None:
    queue = await a_queue(it)
    one, other = await a_worker(it, queue), await a_worker(it, queue)
    await publish(it, queue, 1, 2)
    first, second = await one.pull()

    assert await other.code(ACK, first) == "invalid"
    assert await one.code(ACK, first | {"receipt": second["receipt"]}) == "invalid"
    assert await one.code(ACK, first | {"receipt": first["receipt"][:-1]}) == "invalid"
    for kind in (ACK, NAK, EXTEND):
        assert await one.code(kind, first | {"receipt": None}) == "invalid"
    assert await one.code(ACK, first) is None


@pytest.mark.promise("p15")
async def test_agent_holds_a_bounded_number_of_messages(it: GatewayApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("artcafe.delivery.pull_holds.MAX_HELD", 3)
    queue = await a_queue(it)
    worker = await a_worker(it, queue)
    await publish(it, queue, *range(5))
    held = await worker.pull()
    assert data_of(held) == [0, 1, 2]
    assert await worker.pull() == []
    assert await worker.code(ACK, held[0]) is None
    assert data_of(await worker.pull()) == [3]


async def test_queue_without_held_messages_is_left(it: GatewayApp) -> None:
    queue = await a_queue(it)
    worker = await a_worker(it, queue)
    await publish(it, queue, 1)
    (item,) = await worker.pull()
    it.services.pulls.holds.sweep()
    assert await worker.code(EXTEND, item) is None
    before = len(it.services.queue_hub)
    assert await worker.code(ACK, item) is None
    it.services.pulls.holds.sweep()
    assert len(it.services.queue_hub) < before


# --- several servers -----------------------------------------------------------------------------------------------------


@pytest.mark.promise("p12")
async def test_any_server_settles_what_another_has_pulled(it: GatewayApp) -> None:
    queue = await a_queue(it)
    worker = await a_worker(it, queue)
    await publish(it, queue, 1, 2)
    async with another_server(it) as there:
        elsewhere = replace(worker, services=there)
        first, second = await worker.pull()
        extended = await elsewhere.settle(EXTEND, first)
        assert extended.error is None
        assert await elsewhere.code(ACK, first | {"receipt": extended.receipt}) is None
        assert await worker.code(ACK, first) == "not_held"
        assert await elsewhere.code(NAK, second) is None
        (again,) = await elsewhere.pull(LONG)
        assert (again["seq"], again["deliveries"]) == (second["seq"], 2)
        for each in (worker, elsewhere):
            assert await each.code(ACK, second) == "not_held"
        assert await worker.code(ACK, again) is None


@pytest.mark.promise("p14")
async def test_receipt_outlives_its_server_until_the_deadline(it: GatewayApp) -> None:
    queue = await a_queue(it)
    worker = await a_worker(it, queue)
    await publish(it, queue, 1, 2, 3)
    async with another_server(it) as there:
        first, second, third = await replace(worker, services=there).pull()

    assert await worker.pull() == [], "the server that ended gave nothing back"
    extended = await worker.settle(EXTEND, first)
    assert extended.receipt is not None
    assert await worker.code(ACK, first | {"receipt": extended.receipt}) is None
    assert await worker.code(NAK, second) is None
    (again,) = await worker.pull(LONG)
    assert (again["data"], again["deliveries"]) == (2, 2)
    it.clock.ahead = timedelta(seconds=31)
    try:
        for kind in (ACK, NAK, REJECT, EXTEND):
            assert await worker.code(kind, third) == "not_held"
    finally:
        it.clock.ahead = timedelta()


@pytest.mark.promise("p14")
async def test_rejection_needs_the_server_of_the_pull_until_the_deadline(it: GatewayApp) -> None:
    queue = await a_queue(it)
    worker = await a_worker(it, queue)
    await publish(it, queue, 1)
    async with another_server(it) as there:
        (item,) = await replace(worker, services=there).pull()
    assert await worker.code(REJECT, item) == "unavailable"


@pytest.mark.promise("p23", "r4")
async def test_receipt_of_a_replaced_log_is_not_held(it: GatewayApp) -> None:
    """The message at its sequence may be another one, whose delivery NATS would take the ack for."""
    queue = await a_queue(it)
    worker = await a_worker(it, queue)
    await publish(it, queue, 1)
    async with another_server(it) as there:
        (item,) = await replace(worker, services=there).pull()
    await it.services.fabric.tenant(it.owner.tenant_id).log.begin_epoch()
    for kind in (ACK, NAK, REJECT, EXTEND):
        assert await worker.code(kind, item) == "not_held"
