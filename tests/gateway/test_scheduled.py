"""Scheduled messages through the services of one server, and of two: accepted, listed, cancelled and delivered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec import Raw as Json

from artcafe.errors import AlreadyDelivered, ChannelNotFound, Invalid, KeyReused, QuotaFull, ScheduledLimit, ScheduledNotFound
from artcafe.fabric.fabric import Fabric
from artcafe.model import AgentPrincipal, Channel, ChannelType, Principal
from artcafe.rules import times
from artcafe.rules.pages import PageRequest
from artcafe.services import scheduler
from artcafe.services.scheduler import Scheduler
from artcafe.wire.frames import Publish
from artcafe.wire.replies import PublishReply
from tests import ssh_keygen
from tests.gateway.gateway_app import GatewayApp, gateway_app

MINUTE = timedelta(minutes=1)


def due(it: GatewayApp, data: bytes, after: timedelta = MINUTE, key: str | None = None) -> Publish:
    return Publish(it.channel.id, Json(data), key, deliver_at=times.to_text(it.clock() + after))


async def publish(it: GatewayApp, message: Publish, principal: Principal | None = None) -> PublishReply:
    return await it.services.messaging.publish(principal or it.owner, message.channel, message)


async def listed(it: GatewayApp, principal: Principal | None = None, limit: int = 50) -> list[str]:
    """Return the ids of the channel's scheduled messages, over all pages."""
    found: list[str] = []
    request = PageRequest(limit)
    while True:
        _, page = await it.services.scheduled.list(principal or it.owner, it.channel.id, request)
        found += [each.message_id for each in page.items]
        if page.next is None:
            return found
        request = PageRequest(limit, page.next)


async def cancel(it: GatewayApp, message_id: str | None, principal: Principal | None = None) -> None:
    assert message_id is not None
    await it.services.scheduled.cancel(principal or it.owner, it.channel.id, message_id)


@asynccontextmanager
async def delivering(*schedulers: Scheduler) -> AsyncIterator[None]:
    """Run the loops of these servers."""
    async with asyncio.TaskGroup() as group:
        loops = [group.create_task(each.run()) for each in schedulers]
        try:
            yield
        finally:
            for loop in loops:
                loop.cancel()


@pytest.mark.promise("s2", "s3")
async def test_scheduled_message_has_no_seq_until_its_time_and_is_then_delivered_once(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw, delivering(it.services.scheduler):
        await it.caught_up()
        late, soon = [await publish(it, due(it, data, MINUTE * at)) for data, at in ((b'"late"', 2), (b'"soon"', 1))]
        assert (late.seq, late.duplicate, soon.seq) == (None, False, None)
        assert await listed(it) == await listed(it, limit=1) == [soon.message_id, late.message_id]
        await it.publish(b'"now"')
        assert (await raw.message())["data"] == "now"
        assert await raw.is_quiet()

        accepted = it.clock()
        it.clock.ahead = MINUTE + timedelta(seconds=1)
        message = await raw.message()
        assert (message["data"], message["message_id"]) == ("soon", soon.message_id)
        assert message["time"] <= times.to_text(accepted) < message["deliver_at"], "the time is that of the publish"
        assert await listed(it) == [late.message_id]
        with pytest.raises(AlreadyDelivered) as refused:
            await cancel(it, soon.message_id)
        assert refused.value.seq == message["seq"]

        it.clock.ahead = MINUTE * 2 + timedelta(seconds=1)
        message = await raw.message()
        assert (message["data"], message["message_id"]) == ("late", late.message_id)
        assert [await listed(it), await raw.is_quiet()] == [[], True]


@pytest.mark.promise("s5", "s6")
async def test_cancelled_message_is_never_delivered_and_a_repeated_key_names_it(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        message = due(it, b"1", key="remind-me")
        first, again = await publish(it, message), await publish(it, message)
        assert (again.seq, again.message_id, again.duplicate) == (None, first.message_id, True)
        for other in (due(it, b"1", MINUTE * 2, "remind-me"), Publish(it.channel.id, Json(b"1"), "remind-me")):
            with pytest.raises(KeyReused):
                await publish(it, other)
        kept = await publish(it, due(it, b"2"))
        for _ in range(2):
            await cancel(it, first.message_id)
        assert (await publish(it, message)).message_id == first.message_id

        async with delivering(it.services.scheduler):
            it.clock.ahead = MINUTE + timedelta(seconds=1)
            assert (await raw.message())["message_id"] == kept.message_id
            assert await raw.is_quiet()
        assert (await publish(it, message)).message_id == first.message_id, "also after its time"


@pytest.mark.promise("s1", "s7", "s8")
async def test_scheduled_message_is_checked_when_it_is_published(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        live = await it.services.channels.create(it.owner, name="live", type=ChannelType.LIVE)
        for after, problem in ((-MINUTE, "which has passed"), (timedelta(days=31), "30 days"), (timedelta(days=9999), "30 days")):
            with pytest.raises(Invalid, match=problem):
                await publish(it, due(it, b"1", after))
        with pytest.raises(Invalid, match="stores nothing"):
            await publish(it, Publish(live.id, Json(b"1"), deliver_at="2036-11-22T16:50:57Z"))
        at = times.to_text(it.clock() + MINUTE)
        with pytest.raises(Invalid, match="before the message is delivered"):
            await publish(it, Publish(it.channel.id, Json(b"1"), deliver_at=at, expires_at=at))
        assert (await publish(it, due(it, b"1", timedelta(seconds=-1)))).seq is None, "a little late: it is delivered at once"

        small = Scheduler(it.services.record_cache, it.services.fabric, None, it.clock, most=1)
        with pytest.raises(ScheduledLimit):
            await small.prepare(it.owner.tenant_id, it.clock() + MINUTE)


@pytest.mark.promise("s5")
async def test_agent_sees_and_cancels_its_own_scheduled_messages_only(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        key = ssh_keygen.make_key(tmp_path / "other")
        agent = await it.services.agents.create(it.owner, name="other", public_key=ssh_keygen.public_line(key))
        other = AgentPrincipal(agent_id=agent.id, tenant_id=agent.tenant_id, epoch=0)
        mine, theirs = [await publish(it, due(it, b"1"), each) for each in (it.principal, other)]
        assert set(await listed(it)) == {mine.message_id, theirs.message_id}
        assert await listed(it, it.principal) == [mine.message_id]
        for message_id in (theirs.message_id, "msg_none", "late"):
            with pytest.raises(ScheduledNotFound):
                await cancel(it, message_id, it.principal)
        await cancel(it, mine.message_id, it.principal)
        with pytest.raises(ScheduledNotFound):
            await cancel(it, mine.message_id, other)
        await cancel(it, theirs.message_id)
        assert await listed(it) == []


@pytest.mark.promise("s10")
async def test_full_quota_delays_a_message_and_refuses_its_cancel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "QUOTA_RETRY_S", 0.05)
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        tenant_fabric = it.services.fabric.tenant(it.owner.tenant_id)
        message = await publish(it, due(it, b"1"))
        await it.set_limits(storage_bytes=100)
        await it.services.retention.sweep(tenant_fabric)
        with pytest.raises(QuotaFull):
            await cancel(it, message.message_id)
        async with delivering(it.services.scheduler):
            it.clock.ahead = MINUTE + timedelta(seconds=1)
            assert await raw.is_quiet()
            await it.set_limits(storage_bytes=100_000)
            await it.services.retention.sweep(tenant_fabric)
            assert (await raw.message())["message_id"] == message.message_id


@pytest.mark.promise("s12")
async def test_message_of_a_deleted_agent_is_delivered_unless_a_member_cancels_it(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        key = ssh_keygen.make_key(tmp_path / "other")
        agent = await it.services.agents.create(it.owner, name="other", public_key=ssh_keygen.public_line(key))
        other = AgentPrincipal(agent_id=agent.id, tenant_id=agent.tenant_id, epoch=0)
        cancelled, kept = [await publish(it, due(it, b"1"), other) for _ in range(2)]
        await it.services.agents.delete(it.owner, agent.id)
        await cancel(it, cancelled.message_id)
        async with delivering(it.services.scheduler):
            it.clock.ahead = MINUTE + timedelta(seconds=1)
            assert (await raw.message())["message_id"] == kept.message_id
            assert await raw.is_quiet()


@pytest.mark.promise("s9")
async def test_meter_that_had_counted_everything_counts_a_delivered_message(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        meter, log = it.services.meter, await it.services.fabric.tenant(it.owner.tenant_id).connected_log()
        assert meter is not None
        await publish(it, due(it, b"1"))
        await meter.look()
        async with delivering(it.services.scheduler), asyncio.timeout(20):
            it.clock.ahead = MINUTE * 2
            while not await log.last_seq_of(it.channel.id):  # noqa: ASYNC110 (the store of another process has no event)
                await asyncio.sleep(0.01)
            while (tenant_meter := meter.of(it.owner.tenant_id)) is None or not tenant_meter.has_work:  # noqa: ASYNC110 (as above)
                await asyncio.sleep(0.01)
        await meter.look()
        state, end = await it.services.store.usage(it.owner.tenant_id).meter(), await log.state()
        assert state is not None
        assert end is not None
        assert state.cursor.seq == end.last_seq
        found = await it.services.usage_recounts.recount(it.owner, f"{it.clock():%Y-%m}")
        assert [(each.verdict, each.counted_messages) for each in found.compared if each.counted_messages] == [("equal", 1)]


@pytest.mark.promise("s11")
async def test_deleted_channel_delivers_nothing_more(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        await publish(it, due(it, b"1"))
        await it.publish(b"2")
        await it.services.channels.delete(it.owner, it.channel.id)
        log = await it.services.fabric.tenant(it.owner.tenant_id).connected_log()
        state = await log.state()
        assert state is not None
        assert state.messages == 0


@pytest.mark.promise("s11")
@pytest.mark.parametrize("is_scheduled", [False, True])
async def test_publishes_during_the_deletion_of_their_channel_leave_nothing(tmp_path: Path, is_scheduled: bool) -> None:
    async with gateway_app(tmp_path) as it:
        log = await it.services.fabric.tenant(it.owner.tenant_id).connected_log()

        async def keep_publishing(channel: Channel) -> None:
            at = times.to_text(it.clock() + MINUTE) if is_scheduled else None
            with suppress(ChannelNotFound):
                while True:
                    await publish(it, Publish(channel.id, Json(b"1"), deliver_at=at))

        for number in range(5):
            channel = await it.services.channels.create(it.owner, name=f"deleted {number}")
            async with asyncio.TaskGroup() as group:
                for _ in range(20):
                    group.create_task(keep_publishing(channel))
                await asyncio.sleep(0.1)
                await it.services.channels.delete(it.owner, channel.id)
        state = await log.state()
        assert state is not None
        assert state.messages == 0


async def test_scheduled_messages_of_a_deleted_channel_do_not_count_in_the_limit(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        gone = await it.services.channels.create(it.owner, name="gone")
        await publish(it, Publish(gone.id, Json(b"1"), deliver_at=times.to_text(it.clock() + MINUTE)))
        assert len((await it.services.scheduled.list(it.owner, gone.id, PageRequest(50)))[1].items) == 1
        small = Scheduler(it.services.record_cache, it.services.fabric, None, it.clock, most=1)
        await it.services.channels.delete(it.owner, gone.id)
        await small.prepare(it.owner.tenant_id, it.clock() + MINUTE)
        await publish(it, due(it, b"2"))
        assert len(await listed(it)) == 1
        with pytest.raises(ScheduledLimit):
            await small.prepare(it.owner.tenant_id, it.clock() + MINUTE)


@pytest.mark.promise("s4")
async def test_other_server_delivers_what_a_server_that_ended_has_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "POLL_S", 0.05)
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        await it.caught_up()
        replies = [await publish(it, due(it, b"%d" % number, MINUTE * (1 + number % 2))) for number in range(6)]
        fabric = Fabric([it.nats.url], it.nats.accounts)  # This one never opened the tenant, and never accepted a message.
        async with asyncio.TaskGroup() as group:
            running = group.create_task(fabric.run())
            await fabric.wait_up(5)
            two = [Scheduler(it.services.record_cache, fabric, None, it.clock) for _ in range(2)]
            async with delivering(*two, it.services.scheduler):
                it.clock.ahead = MINUTE * 2 + timedelta(seconds=1)
                messages = [await raw.message() for _ in range(6)]
                assert {each["message_id"] for each in messages} == {each.message_id for each in replies}
                it.clock.ahead = MINUTE * 10
                async with asyncio.timeout(20):
                    minutes = it.services.fabric.scheduled_minutes
                    while minutes.by_tenant():  # noqa: ASYNC110 (a loop of the server, without an event)
                        await asyncio.sleep(0.01)
                assert await raw.is_quiet()
            fabric.close()
            await running
