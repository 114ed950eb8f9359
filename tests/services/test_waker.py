"""Webhooks on real tables, a real nats-server and a real receiver, with a clock that the test moves."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec import Raw

from artcafe.assembly import ServiceKeys, Services, ServiceSettings
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.fabric import Fabric
from artcafe.model import ChannelType, Entry, Outcome, SubscriptionStatus, TenantStatus
from artcafe.observe import metrics
from artcafe.rules.queues import QueueChange
from artcafe.rules.wake import MAX_FAILURES, WakePolicy, WakeState
from artcafe.services import waker as waker_module
from artcafe.services.waiting_messages import WaitingMessages
from artcafe.services.wake_policies import WakePolicies
from artcafe.services.waker import LEASE, Waker
from artcafe.services.webhook_sender import WebhookSender
from artcafe.wire.frames import Publish
from tests.gateway.gateway_app import GatewayApp, gateway_app, until
from tests.gateway.raw_client import BOUND_S
from tests.services.service_env import new_key
from tests.webhook_receiver import WebhookReceiver, receiving

LOOPBACK = ipaddress.ip_network("127.0.0.0/8")
KEYS = ServiceKeys(agent_tokens=b"t" * 32, invitations=b"v" * 32)


LOOK_S = 0.1


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with receiving() as made:
        yield made


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waker_module, "LOOK_S", LOOK_S)


@asynccontextmanager
async def another_server(it: GatewayApp) -> AsyncIterator[Services]:
    """Run another server on the same tables and NATS, which may send webhooks to loopback."""
    fabric = Fabric([it.nats.url], Accounts(b"s" * 32, "dev"))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(fabric.run())
        await fabric.wait_up(BOUND_S)
        settings = ServiceSettings(service_name="test", webhook_networks=(LOOPBACK,))
        services = Services(it.services.store, fabric, it.identity, KEYS, it.clock, settings, group)
        fabric.tenant(it.owner.tenant_id)
        loops = [group.create_task(services.waker.run())]
        try:
            yield services
        finally:
            for loop in loops:
                loop.cancel()
            fabric.close()
            await running


@dataclass
class WakingServer:
    """The parts of a server that send webhooks."""

    waker: Waker
    policies: WakePolicies


@asynccontextmanager
async def waking(folder: Path) -> AsyncIterator[tuple[GatewayApp, WakingServer]]:
    """Run a server that may send webhooks to loopback."""
    async with gateway_app(folder) as it, asyncio.TaskGroup() as group:
        services, key = it.services, it.services.wake_key
        waiting = WaitingMessages(services.store, services.record_cache, services.audiences, it.clock)
        sender = WebhookSender((LOOPBACK,))
        waker = Waker(services.store, services.fabric, waiting, services.changes, services.audit, it.clock, key, sender)
        services.invalidation.subscribe(waker.on_change)
        policies = WakePolicies(services.store, services.changes, services.audit, it.clock, key, (LOOPBACK,))
        running = group.create_task(waker.run())
        try:
            yield it, WakingServer(waker, policies)
        finally:
            running.cancel()


async def wake(it: GatewayApp, policies: WakePolicies, url: str, agent_id: str = "", **more: object) -> str | None:
    """Set the policy of the agent, and return its secret if one was made."""
    options = {"interval_s": 60, "quiet_hours": None, "enabled": True, "new_secret": False} | more
    return (await policies.put(it.owner, agent_id or it.agent.id, url=url, **options)).secret  # type: ignore[arg-type]  # by name


async def made_secret(it: GatewayApp, policies: WakePolicies, url: str) -> str:
    secret = await wake(it, policies, url)
    assert secret is not None
    return secret


async def disabled(it: GatewayApp, policies: WakePolicies) -> WakePolicy:
    """Wait until the server has disabled the agent's policy, and return it."""
    async with asyncio.timeout(60):
        while True:
            policy = (await policies.get(it.owner, it.agent.id)).policy
            assert policy is not None
            if not policy.is_enabled:
                return policy
            await asyncio.sleep(0.02)


async def _audited(it: GatewayApp, action: str, count: int) -> list[Entry]:
    """Wait until the audit has this number of entries of an action, and return them, newest first."""
    async with asyncio.timeout(60):
        while True:
            entries = [line.entry for line in (await it.services.audit.list(it.owner)).items if line.entry.action == action]
            if len(entries) == count:
                return entries
            await asyncio.sleep(0.02)


async def some_looks() -> None:
    """Wait for some looks of the waker, in which nothing may be sent."""
    await asyncio.sleep(10 * LOOK_S)


async def arrived(receiver: WebhookReceiver, count: int) -> None:
    async with asyncio.timeout(60):
        while len(receiver.received) < count:  # noqa: ASYNC110 (another thread receives)
            await asyncio.sleep(0.02)


async def settled(it: GatewayApp, failures: int) -> None:
    """Wait until the row shows this number of failed attempts, and no attempt under way."""
    async with asyncio.timeout(60):
        while True:
            row = await it.services.store.wakes(it.owner.tenant_id).get(it.agent.id)
            assert row is not None
            if row.state.failures == failures and (failures > 0 or row.state.webhook_id is None):
                return
            await asyncio.sleep(0.02)


async def test_agent_that_is_away_is_told_once_of_a_thousand_messages_and_again_after_the_interval(
    tmp_path: Path, receiver: WebhookReceiver
) -> None:
    async with waking(tmp_path) as (it, server):
        secret = await made_secret(it, server.policies, f"{receiver.url}/scout?from=artcafe")
        await it.publish(b"0")
        await arrived(receiver, 1)
        await settled(it, 0)
        async with asyncio.TaskGroup() as group:
            for number in range(1, 1000):
                group.create_task(it.publish(str(number).encode()))
        last = await it.services.fabric.tenant(it.owner.tenant_id).log.last_seq_of(it.channel.id)
        await some_looks()
        assert len(receiver.received) == 1
        it.clock.ahead += timedelta(seconds=61)
        await arrived(receiver, 2)
        first, second = (each.verified(secret) for each in receiver.received)
        assert receiver.received[0].path == "/scout?from=artcafe"
        assert receiver.received[0].id != receiver.received[1].id
        assert first["type"] == "agent.messages_waiting"
        assert first["data"] == {
            "tenant_id": it.owner.tenant_id,
            "agent": it.agent.id,
            "agent_handle": it.agent.handle,
            "count": 1,
            "channels": [{"channel": it.channel.id, "channel_handle": it.channel.handle, "seq": 1, "count": 1}],
        }
        assert (second["data"]["count"], second["data"]["channels"][0]["seq"]) == (999, last)


async def test_connected_agent_is_not_woken_and_one_that_left_is_woken_for_what_it_did_not_acknowledge(
    tmp_path: Path, receiver: WebhookReceiver
) -> None:
    async with waking(tmp_path) as (it, server):
        secret = await made_secret(it, server.policies, receiver.url)
        async with it.connected() as raw:
            await until(lambda: it.services.fabric.tenant(it.owner.tenant_id).presence.find(it.agent.id) is not None)
            acked, unacked = await it.publish(b"1"), await it.publish(b"2")
            await raw.messages(2)
            await raw.ack(it.channel.id, acked)
            await some_looks()
            assert receiver.received == []
        await until(lambda: it.services.fabric.tenant(it.owner.tenant_id).presence.find(it.agent.id) is None)
        await _written(it, acked)
        it.clock.ahead += timedelta(seconds=6)
        await arrived(receiver, 1)
        (channel,) = receiver.received[0].verified(secret)["data"]["channels"]
        assert (channel["seq"], channel["count"]) == (unacked, 1)


async def _written(it: GatewayApp, seq: int) -> None:
    """Wait until the agent's ack is in its row."""
    async with asyncio.timeout(60):
        while (await it.services.subscriptions.get(it.owner, it.channel.id, it.agent.id)).cursor.seq != seq:  # noqa: ASYNC110 (a row has no event)
            await asyncio.sleep(0.02)


async def test_inbox_wakes_and_live_channels_and_paused_subscriptions_do_not(tmp_path: Path, receiver: WebhookReceiver) -> None:
    async with waking(tmp_path) as (it, server):
        live = await it.services.channels.create(it.owner, name="ticker", type=ChannelType.LIVE)
        await it.services.subscriptions.put(it.owner, live.id, it.agent.id)
        await it.services.subscriptions.set_status(it.owner, it.channel.id, it.agent.id, SubscriptionStatus.PAUSED)
        secret = await made_secret(it, server.policies, receiver.url)
        assert await it.say(b"1", live) is None
        await it.publish(b"2")
        await it.services.messaging.publish(it.owner, f"@{it.agent.id}", Publish(f"@{it.agent.id}", Raw(b"3")))
        await arrived(receiver, 1)
        (channel,) = receiver.received[0].verified(secret)["data"]["channels"]
        assert (channel["channel"], channel["count"]) == (f"@{it.agent.id}", 1)


async def test_tasks_of_a_queue_wake_again_and_again_as_long_as_no_connected_agent_takes_them(
    tmp_path: Path, receiver: WebhookReceiver
) -> None:
    async with waking(tmp_path) as (it, server):
        queue = await it.services.channels.create(it.owner, name="work", type=ChannelType.QUEUE, queue=QueueChange(ack_wait_s=30))
        await it.services.subscriptions.put(it.owner, queue.id, it.agent.id)
        sleeper = await it.services.agents.create(it.owner, name="sleeper", public_key=new_key())
        await it.services.subscriptions.put(it.owner, queue.id, sleeper.id)
        secret = await wake(it, server.policies, receiver.url, sleeper.id)
        assert secret is not None

        def told() -> list[tuple[str, int]]:
            bodies = [each.verified(secret)["data"] for each in receiver.received]
            return [(channel["channel"], channel["count"]) for body in bodies for channel in body["channels"]]

        last = [await it.publish(b"1", queue) for _ in range(3)][-1]
        await arrived(receiver, 1)
        await some_looks()
        it.clock.ahead += timedelta(seconds=61)
        await arrived(receiver, 2)
        assert told()[1:] == [(queue.id, 3)], "no message is told of once for all: somebody must still work"

        async with it.connected(max_unacked=8) as worker:
            frames = [await worker.message() for _ in range(3)]
            await until(lambda: it.services.fabric.tenant(it.owner.tenant_id).presence.find(it.agent.id) is not None)
            await it.publish(b"2", queue)
            await worker.messages(1)
            for frame in frames[:2]:
                await worker.ack(queue.id, frame["seq"])
            it.clock.ahead += timedelta(seconds=61)
            await some_looks()
            assert len(receiver.received) == 2, "a connected agent takes the tasks"
        await until(lambda: it.services.fabric.tenant(it.owner.tenant_id).presence.find(it.agent.id) is None)
        it.clock.ahead += timedelta(seconds=61)  # Longer than the queue's `ack_wait_s`: nobody holds what was given back.
        await arrived(receiver, 3)
        assert (told()[-1], frames[-1]["seq"]) == ((queue.id, 2), last)


async def test_failed_webhook_is_repeated_with_its_id_and_body_and_disables_the_policy_in_the_end(
    tmp_path: Path, receiver: WebhookReceiver
) -> None:
    async with waking(tmp_path) as (it, server):
        receiver.statuses[:] = [302, *[500] * 20]
        await wake(it, server.policies, receiver.url)
        await it.publish(b"1")
        for attempt in range(1, MAX_FAILURES):
            await arrived(receiver, attempt)
            await settled(it, attempt)
            it.clock.ahead += timedelta(seconds=3601)
            await it.publish(b"2")
        await arrived(receiver, MAX_FAILURES)
        assert (await disabled(it, server.policies)).problem == f"{MAX_FAILURES} failed attempts, the last one: status 500"
        assert len({(each.id, each.body, each.path) for each in receiver.received}) == 1
        done, intended = await _audited(it, "agent.wake_disable", 2)
        assert (done.outcome, intended.outcome) == (Outcome.DONE, Outcome.INTENDED)
        assert (done.actor, done.target) == ("server", it.agent.id)

        receiver.statuses.clear()
        await wake(it, server.policies, receiver.url)
        await arrived(receiver, MAX_FAILURES + 1)
        assert receiver.received[-1].id != receiver.received[0].id


async def test_receiver_gets_the_time_that_it_asks_for_and_one_that_is_gone_disables_the_policy(
    tmp_path: Path, receiver: WebhookReceiver
) -> None:
    failed, ended = metrics.WEBHOOKS.of("failed"), metrics.WAKES_DISABLED.of()
    before = failed.value, ended.value
    async with waking(tmp_path) as (it, server):
        receiver.statuses[:], receiver.retry_after = [503, 410], "600"
        await wake(it, server.policies, receiver.url)
        await it.publish(b"1")
        await settled(it, 1)
        it.clock.ahead += timedelta(seconds=500)
        await some_looks()
        assert len(receiver.received) == 1
        it.clock.ahead += timedelta(seconds=101)
        await arrived(receiver, 2)
        assert (await disabled(it, server.policies)).problem == "2 failed attempts, the last one: status 410"
        assert len(receiver.received) == 2
    assert (failed.value, ended.value) == (before[0] + 2, before[1] + 1)


async def test_one_of_two_servers_sends_and_another_takes_over_after_the_claim(tmp_path: Path, receiver: WebhookReceiver) -> None:
    async with waking(tmp_path) as (it, first), another_server(it):
        await wake(it, first.policies, receiver.url, interval_s=1)
        for number in range(1, 4):
            await it.publish(b"1")
            it.clock.ahead += timedelta(seconds=30)
            await arrived(receiver, number)
            await settled(it, 0)
        assert len({each.id for each in receiver.received}) == 3

        row = await it.services.store.wakes(it.owner.tenant_id).get(it.agent.id)
        assert row is not None
        seq = await it.publish(b"2")
        log = await it.services.fabric.tenant(it.owner.tenant_id).log.state()
        assert log is not None
        # As a server leaves it that is killed between its claim and the answer.
        claim = WakeState(
            serial=row.state.serial, notified=row.state.notified, webhook_id="whk_dead", up_to=seq, epoch=log.epoch,
            due_at=it.clock() + LEASE,
        )  # fmt: skip
        await it.services.store.transact([it.services.store.wakes(it.owner.tenant_id).change_state(it.agent.id, claim)])
        it.clock.ahead += LEASE + timedelta(seconds=1)
        await arrived(receiver, 4)
        await settled(it, 0)
        assert receiver.received[3].id == "whk_dead"
        assert len(receiver.received) == 4


async def test_dead_endpoint_holds_up_no_other_tenant(tmp_path: Path, receiver: WebhookReceiver) -> None:
    with receiving() as dead:
        dead.hangs.set()
        async with waking(tmp_path) as (it, server):
            for number in range(4):
                made = await it.services.agents.create(it.owner, name=f"slow {number}", public_key=new_key())
                await it.services.subscriptions.put(it.owner, it.channel.id, made.id)
                await wake(it, server.policies, dead.url, made.id)
            await it.publish(b"1")
            await arrived(dead, 2)

            other = await it.services.tenants.create(it.owner.user_id, "another")
            owner = type(it.owner)(user_id=it.owner.user_id, tenant_id=other.id, role=it.owner.role)
            agent = await it.services.agents.create(owner, name="scout", public_key=new_key())
            channel = await it.services.channels.create(owner, name="channel")
            await it.services.subscriptions.put(owner, channel.id, agent.id)
            await server.policies.put(
                owner, agent.id, url=receiver.url, interval_s=60, quiet_hours=None, enabled=True, new_secret=False
            )
            await it.services.messaging.publish(owner, channel.id, Publish(channel.id, Raw(b"1")))
            await arrived(receiver, 1)
            assert len(dead.received) == 2  # the other two of that tenant wait
            dead.ended.set()


async def test_nothing_is_sent_in_quiet_hours_or_in_a_suspended_tenant(tmp_path: Path, receiver: WebhookReceiver) -> None:
    async with waking(tmp_path) as (it, server):
        now = it.clock()
        quiet = f"{now - timedelta(hours=1):%H:%M}-{now + timedelta(hours=1):%H:%M}"
        await wake(it, server.policies, receiver.url, quiet_hours=quiet)
        await it.publish(b"1")
        await some_looks()
        assert receiver.received == []
        await it.suspend()
        it.clock.ahead += timedelta(hours=1, minutes=1)
        await some_looks()
        assert receiver.received == []
        await it.suspend(TenantStatus.ACTIVE)
        await arrived(receiver, 1)
