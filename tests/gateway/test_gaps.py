"""Gaps for removed messages: at a cursor, within a backlog, for live readers, and across logs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from artcafe.fabric.tenant_log import CONTINUES, TenantLog
from artcafe.model import Cursor
from artcafe.observe.clock import now
from artcafe.plan_catalogue import shipped
from artcafe.rules import times
from artcafe.rules.plans import Limit
from artcafe.services.retention import Retention
from artcafe.tables.store import Store
from tests.fabric.nats_env import Writer, within, writing
from tests.gateway.gateway_app import GatewayApp, gateway_app, until
from tests.gateway.raw_client import BOUND_S, RawClient

KEPT_S = shipped().limit_of(None, Limit.RETENTION_S)


async def remove(it: GatewayApp, stored_before: datetime | None = None) -> None:
    """Remove messages stored before this time, or all of them, as retention does."""
    at = stored_before or now() + timedelta(seconds=1)
    later = at + timedelta(seconds=KEPT_S)
    retention = Retention(Store(it.tables), it.services.fabric, lambda: later, it.services.plans)
    await retention.sweep(it.services.fabric.tenant(it.owner.tenant_id))


async def a_moment(it: GatewayApp) -> datetime:
    """Return a time between the last stored message and the next one. NATS compares milliseconds."""
    at = now() + timedelta(milliseconds=1)
    async with asyncio.timeout(BOUND_S):
        while times.to_text(now()) <= times.to_text(at):  # noqa: ASYNC110 (waits for the clock)
            await asyncio.sleep(0)
    return at


async def publish(it: GatewayApp, count: int) -> None:
    for number in range(count):
        await it.publish(b"%d" % number)


async def next_of(raw: RawClient) -> dict[str, Any]:
    return raw.pushes.pop(0) if raw.pushes else await raw.next()


def gap(it: GatewayApp, first: int, last: int | None, reason: str = "retention") -> dict[str, Any]:
    return {"gap": {"channel": it.channel.id, "from": first, "to": last, "reason": reason}}


async def places(raw: RawClient, count: int) -> list[tuple[int, int | None]]:
    """Return `seq` and `prev` of the next messages, and fail for any other frame."""
    return [(message["seq"], message["prev"]) for message in [await raw.message() for _ in range(count)]]


# --- at a cursor ---------------------------------------------------------------------------------------------------------


@pytest.mark.promise("8b")
async def test_gap_is_pushed_before_the_first_message_to_a_cursor_below_retention(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        await publish(it, 3)
        async with it.connected() as raw:
            await places(raw, 3)
            await raw.ack(it.channel.id, 2)
        await publish(it, 2)
        at = await a_moment(it)
        await publish(it, 2)
        await remove(it, at)

        for _ in range(2):  # The gap is pushed each time until something is acknowledged.
            async with it.connected() as raw:
                assert await next_of(raw) == gap(it, 3, 5)
                assert await places(raw, 2) == [(6, None), (7, 6)]
                assert await raw.is_quiet()
        async with it.connected() as raw:
            assert await next_of(raw) == gap(it, 3, 5)
            await raw.ack(it.channel.id, 5)
        async with it.connected() as raw:
            assert await places(raw, 2) == [(6, None), (7, 6)]


async def test_no_gap_is_pushed_when_every_removed_message_was_acknowledged(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        await publish(it, 3)
        async with it.connected() as raw:
            await places(raw, 3)
            await raw.ack(it.channel.id, 3)
        await remove(it)
        async with it.connected() as raw:
            assert await raw.is_quiet()
            await publish(it, 1)
            assert await places(raw, 1) == [(4, None)]
        await remove(it)
        await publish(it, 1)
        async with it.connected() as raw:
            assert await next_of(raw) == gap(it, 4, 4)
            assert await places(raw, 1) == [(5, None)]


async def test_channel_without_remaining_messages_pushes_a_gap_and_continues(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        await publish(it, 4)
        await remove(it)
        async with it.connected() as raw:
            assert await next_of(raw) == gap(it, 1, 4)
            await publish(it, 2)
            assert await places(raw, 2) == [(5, None), (6, 5)]


@pytest.mark.parametrize(
    ("start", "cursor", "first_gone", "delivered"),
    [
        ("first", 4, None, [5, 6]),
        ("new", 6, None, []),
        ("cursor", 4, 1, [5, 6]),
        (2, 4, 2, [5, 6]),
        (4, 4, 4, [5, 6]),
        (5, 4, None, [5, 6]),
        (6, 5, None, [6]),
    ],
)
async def test_subscribe_reply_has_the_gap_at_the_requested_position(
    tmp_path: Path, start: str | int, cursor: int, first_gone: int | None, delivered: list[int]
) -> None:
    async with gateway_app(tmp_path) as it:
        await publish(it, 4)
        at = await a_moment(it)
        await publish(it, 2)
        await remove(it, at)
        async with it.connected() as raw:
            assert await next_of(raw) == gap(it, 1, 4)
            await places(raw, 2)
            reply = await raw.ask("subscribe", channel=it.channel.id, **{"from": start})

            told = None if first_gone is None else {"from": first_gone, "to": 4, "reason": "retention"}
            assert (reply["cursor"], reply["last"], reply["gap"]) == (cursor, 6, told)
            if first_gone is not None:
                assert await next_of(raw) == gap(it, first_gone, 4)
            assert [seq for seq, _ in await places(raw, len(delivered))] == delivered
            assert await raw.is_quiet()


# --- within a backlog ------------------------------------------------------------------------------------------------------


async def test_reader_overtaken_by_retention_gets_a_gap_at_its_position(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected(max_unacked=2) as raw:
        await publish(it, 6)
        at = await a_moment(it)
        await publish(it, 3)
        assert await places(raw, 2) == [(1, None), (2, 1)]
        await remove(it, at)
        await raw.ack(it.channel.id, 2)

        assert await next_of(raw) == gap(it, 3, 6)
        assert await places(raw, 2) == [(7, None), (8, 7)]
        await remove(it)
        await raw.ack(it.channel.id, 8)
        assert await next_of(raw) == gap(it, 9, 9)
        await publish(it, 1)
        assert await places(raw, 1) == [(10, None)]


async def test_reader_at_the_last_removed_message_gets_no_gap(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected(max_unacked=2) as raw:
        await publish(it, 2)
        at = await a_moment(it)
        await publish(it, 2)
        assert await places(raw, 2) == [(1, None), (2, 1)]
        await remove(it, at)
        await raw.ack(it.channel.id, 2)

        assert await places(raw, 2) == [(3, None), (4, 3)]
        assert await raw.is_quiet()


async def test_live_reader_gets_a_gap_for_messages_stored_and_removed_while_nats_was_away(tmp_path: Path) -> None:
    async with gateway_app(tmp_path, has_proxy=True) as it, it.connected() as raw, it.connected(max_unacked=5) as windowed:
        await publish(it, 2)
        for each in (raw, windowed):
            await places(each, 2)
        async with cut_off(it) as away:
            await away.publish(b"3", channel=it.channel.id)
            await away.publish(b"4", channel=it.channel.id)
            await remove_by(it, away.log)
        await publish(it, 2)

        for each in (raw, windowed):
            assert await next_of(each) == gap(it, 3, 4)
            assert await places(each, 2) == [(5, None), (6, 5)]


@asynccontextmanager
async def cut_off(it: GatewayApp) -> AsyncIterator[Writer]:
    """Cut the server from NATS while another server writes."""
    assert it.proxy is not None
    tenant_fabric = it.services.fabric.tenant(it.owner.tenant_id)
    async with it.nats.connection(it.owner.tenant_id) as link, writing(link) as writer:
        it.proxy.is_open = False
        it.proxy.cut()
        await until(lambda: not tenant_fabric.connection.is_up)
        yield writer
    it.proxy.is_open = True
    await tenant_fabric.connection.wait_up()


async def remove_by(it: GatewayApp, log: TenantLog) -> None:
    """Remove the whole channel's messages on another server, as retention does."""
    state = await log.state()
    assert state is not None
    to = Cursor(epoch=state.epoch, seq=await log.last_seq_of(it.channel.id))
    assert await Store(it.tables).tenant(it.owner.tenant_id).note_removed(it.channel.id, to)
    await log.purge(it.channel.id, up_to=to.seq)


class Witness:
    """Check one connection: every sequence is delivered once and in order, or covered by a gap."""

    def __init__(self, raw: RawClient, channel: str, at: int) -> None:
        self.raw, self._channel, self.at = raw, channel, at
        self.gaps = 0

    async def until(self, last: int) -> None:
        while self.at < last:
            frame = await next_of(self.raw)
            told = frame.get("gap")
            if told is not None:
                assert (told["from"], told["reason"]) == (self.at + 1, "retention")
                assert told["to"] >= told["from"]
                self.at, self.gaps = told["to"], self.gaps + 1
                # Otherwise messages between gaps could fill a window of three without an acknowledged one.
                await self.raw.ack(self._channel, self.at)
                continue
            message = frame["message"]
            assert (message["seq"], message["prev"] or self.at) == (self.at + 1, self.at)
            self.at += 1
            if self.at % 3 == 0 or self.at == last:
                await self.raw.ack(self._channel, self.at)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.promise("8b")
async def test_every_message_is_delivered_or_covered_by_a_gap_during_retention(tmp_path: Path, seed: int) -> None:
    count, chance = 500, random.Random(seed)
    async with gateway_app(tmp_path) as it:
        gaps = 0

        async def publishing() -> None:
            for _ in range(count // 25):
                async with asyncio.TaskGroup() as burst:
                    for number in range(25):
                        burst.create_task(it.publish(b"%d" % number))
                await remove(it, now() - timedelta(milliseconds=chance.randrange(4)))

        async def reading(window: int | None) -> None:
            nonlocal gaps
            at = 0
            while at < count:
                async with it.connected(**({} if window is None else {"max_unacked": window})) as raw:
                    reply = await raw.ask("subscribe", channel=it.channel.id, max_unacked=window, **{"from": at + 1})
                    raw.pushes.clear()  # messages delivered from the cursor, before the command
                    if reply["gap"] is not None:
                        assert reply["gap"]["from"] == at + 1
                        at, gaps = reply["gap"]["to"], gaps + 1
                    witness = Witness(raw, it.channel.id, at)
                    await witness.until(min(count, at + chance.randrange(1, 100)))
                    at, gaps = witness.at, gaps + witness.gaps

        async with asyncio.TaskGroup() as group:
            group.create_task(publishing())
            for window in (None, 3, 20):
                group.create_task(reading(window))
        assert gaps > 0


# --- another log -------------------------------------------------------------------------------------------------------------


@pytest.mark.promise("8c")
async def test_log_that_lost_its_end_closes_connections_and_pushes_a_gap_to_the_next_ones(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        await publish(it, 3)
        await places(raw, 3)
        await raw.ack(it.channel.id, 3)
        assert await raw.is_quiet()
        tenant_fabric = it.services.fabric.tenant(it.owner.tenant_id)
        await tenant_fabric.log.begin_epoch()
        await tenant_fabric.readers._check()  # runs every 5 s by itself

        assert await within(raw.closed()) == 4000
        async with it.connected() as again:
            told = await next_of(again)
            assert told["gap"].pop("epoch") == tenant_fabric.log.epoch
            assert told == gap(it, 4, None, "epoch")
            assert await places(again, 3) == [(1, None), (2, 1), (3, 2)]
            await again.ack(it.channel.id, 3)
        async with it.connected() as again:
            assert await again.is_quiet()


async def test_new_log_is_delivered_from_its_first_message_even_with_lower_sequences(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw, it.connected(max_unacked=1) as waiting:
        await it.caught_up()  # before the log has an epoch: it gets one with its first message
        await publish(it, 1)
        await places(waiting, 1)
        await publish(it, 4)
        await places(raw, 5)
        await raw.ack(it.channel.id, 4)
        tenant_fabric = it.services.fabric.tenant(it.owner.tenant_id)
        await tenant_fabric.log.drop()
        await publish(it, 2)
        await tenant_fabric.readers._check()

        assert await within(raw.closed()) == 4000
        await waiting.ack(it.channel.id, 1)
        assert await within(waiting.closed()) == 4000
        await it.services.cursors.write_all()
        async with it.connected() as again:
            told = await next_of(again)
            assert (told["gap"]["from"], told["gap"]["to"], told["gap"]["reason"]) == (5, None, "epoch")
            assert await places(again, 2) == [(1, None), (2, 1)]
            reply = await again.ask("subscribe", channel=it.channel.id)
            assert reply["epoch"] == tenant_fabric.log.epoch
            assert reply["gap"] == {"from": 5, "to": None, "reason": "epoch"}


@pytest.mark.promise("8c")
async def test_reconnect_to_a_restored_log_resumes_at_the_cursor_with_a_gap(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        await publish(it, 4)
        async with it.connected() as raw:
            await places(raw, 4)
            await raw.ack(it.channel.id, 2)
        log = it.services.fabric.tenant(it.owner.tenant_id).log
        config = (await log._jetstream.request("STREAM.INFO.log", {}))["config"]
        before, config["metadata"]["artcafe-epoch"] = config["metadata"]["artcafe-epoch"], "01RESTORED"
        config["metadata"][CONTINUES] = f"{before}:4"
        await log._jetstream.request("STREAM.UPDATE.log", config)
        await publish(it, 1)

        async with it.connected() as raw:
            told = await next_of(raw)
            assert told["gap"].pop("epoch") == "01RESTORED"
            assert told == gap(it, 5, None, "epoch")
            pushed = [await next_of(raw) for _ in range(4)]
            (inbox_gap,) = (each["gap"] for each in pushed if "gap" in each)  # direct messages may be lost too
            assert (inbox_gap["channel"], inbox_gap["reason"]) == (f"@{it.agent.id}", "epoch")
            messages = (each["message"] for each in pushed if "message" in each)
            assert [(each["seq"], each["prev"]) for each in messages] == [(3, 2), (4, 3), (5, 4)]
            await raw.ack(it.channel.id, 5)
            direct = await raw.ask("publish", channel=f"@{it.agent.id}", data=1)
            await raw.messages(1)
            await raw.ack(f"@{it.agent.id}", direct["seq"])
        async with it.connected() as raw:
            assert await raw.is_quiet()
