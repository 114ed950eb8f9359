"""Pulls without HTTP: gaps, other logs, bounded waits, changes of access, and usage. tests/rest/test_inbox.py has the routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from copy import copy
from dataclasses import dataclass
from datetime import timedelta

import pytest
import pytest_asyncio
from msgspec import Raw as Json

from artcafe.delivery import pull_page
from artcafe.delivery.pull import PulledPage, PullRequest, Pulls
from artcafe.delivery.pull_holds import ACK
from artcafe.delivery.pull_page import ChannelGap
from artcafe.delivery.pull_settling import SettleEntry
from artcafe.delivery.pull_waits import MAX_WAITS_PER_AGENT, PullWait
from artcafe.errors import ArtcafeError, Forbidden, Overloaded, RateLimited, Revoked, TenantSuspended
from artcafe.fabric.channel_kinds import KINDS
from artcafe.model import AgentPrincipal, AgentStatus, Channel, SubscriptionStatus, TenantStatus
from artcafe.rules import times
from artcafe.rules.inboxes import inbox_of
from artcafe.rules.usage import Attribution, Metric
from artcafe.services.cursors import Cursors
from artcafe.wire.frames import Publish
from tests.gateway.gateway_app import GatewayApp, gateway_app, until
from tests.gateway.test_gaps import a_moment, remove
from tests.gateway.test_usage import parts, total
from tests.services.service_env import new_key, proven

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIFE = timedelta(seconds=60)
LONG = PullRequest.checked(wait_s=25)
NOW = PullRequest.checked()


@dataclass
class Reader:
    """An agent that pulls."""

    it: GatewayApp
    principal: AgentPrincipal
    channel: Channel

    async def publish(self, *data: int, channel: Channel | None = None) -> list[int]:
        """Store messages, and return their sequences."""
        return [await self.it.publish(b"%d" % one, channel or self.channel) for one in data]

    async def subscribe(self, channel: Channel) -> None:
        await self.it.services.subscriptions.put(self.it.owner, channel.id, self.principal.agent_id)

    async def pull(self, request: PullRequest = NOW, wait: PullWait | None = None) -> PulledPage:
        return await self.it.services.pulls.pull(self.principal, self.principal.agent_id, request, wait)

    async def ack(self, seq: int, epoch: str | None = None, moves: Mapping[str, int] | None = None) -> ArtcafeError | None:
        """Acknowledge, and return the error."""
        acks = [SettleEntry(ACK, self.channel.id, seq, None)]
        (outcome,) = await self.it.services.pulls.settle(self.principal, self.principal.agent_id, acks, epoch, moves)
        return outcome.error

    async def publish_expired(self, data: int) -> int:
        """Store a message that has expired, by the server's clock, and return its sequence."""
        ends = times.to_text(self.it.clock() + LIFE)
        body = Publish(self.channel.id, Json(b"%d" % data), expires_at=ends)
        stored = await self.it.services.messaging.publish(self.it.owner, self.channel.id, body)
        self.it.clock.ahead += LIFE
        assert stored.seq is not None
        return stored.seq

    async def make_gap(self, reason: str) -> None:
        """Lose something of the channel, which has no messages afterwards."""
        if reason == "retention":
            await self.publish(1, 2)
            await remove(self.it)
        elif reason == "epoch":
            await self.it.services.fabric.tenant(self.principal.tenant_id).log.begin_epoch()
        else:
            await self.publish_expired(1)

    def gaps(self, pulled: PulledPage) -> list[ChannelGap]:
        """Return the gaps of the channel; other tests have given the inbox one."""
        return [gap for gap in pulled.gaps if gap.channel_id == self.channel.id]

    async def waits(self, count: int = 1) -> None:
        """Wait until this number of pulls wait, and their feeds are open."""
        hub = self.it.services.hub
        await until(lambda: len(self.it.services.pulls.waits) == count)
        feed = hub.feed(self.principal.tenant_id, self.channel.id, KINDS[self.channel.type])
        try:
            await until(lambda: len(feed.wakers) == count and feed.opened.is_set())
        finally:
            hub.release(feed)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def it(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayApp]:
    """Yield the server shared by the tests of this module."""
    async with gateway_app(tmp_path_factory.mktemp("server")) as made:
        yield made


async def a_reader(it: GatewayApp) -> Reader:
    agent = await it.services.agents.create(it.owner, name="reader", public_key=new_key())
    channel = await it.services.channels.create(it.owner, name="channel")
    reader = Reader(it, proven(agent), channel)
    await reader.subscribe(channel)
    return reader


def numbers(pulled: PulledPage) -> list[int]:
    return [int(item.rsplit(b":", 1)[1].rstrip(b"}")) for item in pulled.items]


# --- gaps ----------------------------------------------------------------------------------------------------------------


@pytest.mark.promise("p6", "p21")
async def test_removed_messages_yield_a_gap_until_it_is_acknowledged(it: GatewayApp) -> None:
    reader = await a_reader(it)
    first = await reader.publish(1, 2, 3)
    assert await reader.ack(first[0]) is None
    at = await a_moment(it)
    later = await reader.publish(4)
    await remove(it, at)

    for _ in range(2):
        pulled = await reader.pull()
        (gap,) = pulled.gaps
        assert (gap.channel_id, gap.gap.from_, gap.gap.to, gap.gap.reason) == (
            reader.channel.id,
            first[0] + 1,
            first[2],
            "retention",
        )
        assert gap.after == first[2]
        assert numbers(pulled) == [4]
        assert b'"prev":null' in pulled.items[0]
    assert await reader.ack(first[2]) is None
    pulled = await reader.pull()
    assert (list(pulled.gaps), numbers(pulled)) == ([], [4])
    assert await reader.ack(later[0]) is None


@pytest.mark.promise("p4", "p4a", "p6", "p21")
@pytest.mark.parametrize("reason", ["retention", "epoch", "expired"])
async def test_gap_alone_ends_no_wait_and_is_in_each_answer_until_it_is_acknowledged(it: GatewayApp, reason: str) -> None:
    reader = await a_reader(it)
    await reader.make_gap(reason)
    first = await reader.pull()
    (gap,) = reader.gaps(first)
    assert (gap.gap.reason, first.items, first.has_more) == (reason, [], False)

    ended = await reader.pull(PullRequest.checked(wait_s=0.1))
    assert (reader.gaps(ended), ended.items) == ([gap], []), "the answer at the end of a wait has it"
    drained = PullWait()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(reader.pull(LONG, drained))
        await reader.waits()
        drained.end()
    assert (reader.gaps(waiting.result()), waiting.result().items) == ([gap], [])

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(reader.pull(LONG))
        await reader.waits()
        await reader.publish(7)
    assert (reader.gaps(waiting.result()), numbers(waiting.result())) == ([gap], [7])
    assert await reader.ack(gap.after, first.epoch) is None
    again = await reader.pull(LONG)
    assert (reader.gaps(again), numbers(again)) == ([], [7])


@pytest.mark.promise("p4a")
async def test_gap_that_arises_during_a_wait_does_not_end_it(it: GatewayApp) -> None:
    reader = await a_reader(it)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(reader.pull(LONG))
        await reader.waits()
        await it.services.fabric.tenant(it.owner.tenant_id).log.begin_epoch()
        await reader.publish(1)
    assert numbers(waiting.result()) == [1]


@pytest.mark.promise("p2", "p6")
async def test_expired_messages_take_no_place_in_the_limit(it: GatewayApp) -> None:
    reader = await a_reader(it)
    expired = [await reader.publish_expired(number) for number in range(3)]
    await reader.publish(1, 2)
    later = await reader.publish_expired(3)
    await reader.publish(3)

    for _ in range(2):
        pulled = await reader.pull(PullRequest.checked(limit=1))
        assert numbers(pulled) == [1], "an agent that acknowledges messages only gets on"
        assert [(gap.gap.from_, gap.gap.to) for gap in reader.gaps(pulled)] == [
            (expired[0], expired[0]),
            (expired[1], expired[2]),
        ]
        assert pulled.has_more
    seqs = [numbers(await reader.pull(PullRequest.checked(limit=limit))) for limit in (2, 3)]
    assert seqs == [[1, 2], [1, 2, 3]]
    pulled = await reader.pull(PullRequest.checked(limit=3))
    assert [(gap.gap.to, gap.after) for gap in reader.gaps(pulled)][-1] == (later, later)


@pytest.mark.promise("p6")
async def test_many_expired_messages_end_a_wait_with_their_gaps(it: GatewayApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull_page, "MAX_EXPIRED_PAGES", 1)
    monkeypatch.setattr(pull_page, "EXPIRED_PAGE", 2)
    reader = await a_reader(it)
    expired = [await reader.publish_expired(number) for number in range(6)]
    await reader.publish(1)
    one = PullRequest.checked(limit=1, wait_s=25)
    for after in (expired[2], expired[5]):
        pulled = await reader.pull(one)
        assert (pulled.items, pulled.has_more, reader.gaps(pulled)[-1].after) == ([], True, after)
        assert await reader.ack(after) is None
    assert numbers(await reader.pull(one)) == [1]


async def test_nothing_removed_above_the_cursor_yields_no_gap(it: GatewayApp) -> None:
    reader = await a_reader(it)
    stored = await reader.publish(1, 2)
    assert await reader.ack(stored[-1]) is None
    await remove(it)
    assert (await reader.pull()).gaps == []
    await reader.publish(3)
    pulled = await reader.pull()
    assert (list(pulled.gaps), numbers(pulled)) == ([], [3])


@pytest.mark.promise("p23", "p24")
async def test_another_log_yields_a_gap_and_its_acks_need_the_epoch(it: GatewayApp) -> None:
    await (await a_reader(it)).publish(0)  # a subscription made before the log has no epoch, and so no gap
    reader = await a_reader(it)
    stored = await reader.publish(1, 2)
    before = await reader.pull()
    log = it.services.fabric.tenant(it.owner.tenant_id).log
    await log.begin_epoch()

    pulled = await reader.pull()
    gap, inbox_gap = sorted(pulled.gaps, key=lambda each: each.channel_id != reader.channel.id)
    assert (inbox_gap.channel_id, inbox_gap.gap.reason) == (inbox_of(reader.principal.agent_id), "epoch")
    assert (gap.gap.to, gap.gap.reason, gap.after) == (None, "epoch", 0)
    assert numbers(pulled) == [1, 2], "all of another log"
    for epoch in (None, before.epoch):
        outcome = await reader.ack(stored[0], epoch)
        assert outcome is not None
        assert outcome.code == "log_renewed"
    assert await reader.ack(gap.after, pulled.epoch) is None
    again = await reader.pull()
    assert (list(again.gaps), numbers(again)) == ([inbox_gap], [1, 2])
    assert await reader.ack(stored[-1]) is None
    assert (await reader.pull()).items == []


# --- waits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.promise("p5")
async def test_thousand_waiting_pulls_of_one_agent_are_refused_without_harm_to_others(it: GatewayApp) -> None:
    reader, other = await a_reader(it), await a_reader(it)
    async with asyncio.TaskGroup() as group:
        others = group.create_task(other.pull(LONG))
        await other.waits()
        flood = [group.create_task(_outcome(reader)) for _ in range(1_000)]
        await until(lambda: sum(each.done() for each in flood) == 1_000 - MAX_WAITS_PER_AGENT)
        refused = [each.result() for each in flood if each.done()]
        assert all(isinstance(each, RateLimited) for each in refused)

        await other.publish(7)
        assert numbers(await others) == [7]
        await reader.publish(8)
    answered = [result for each in flood if isinstance(result := each.result(), PulledPage)]
    assert [numbers(each) for each in answered] == [[8]] * MAX_WAITS_PER_AGENT
    assert len(it.services.pulls.waits) == 0


async def _outcome(reader: Reader) -> PulledPage | ArtcafeError:
    try:
        return await reader.pull(LONG)
    except ArtcafeError as exc:
        return exc


@pytest.mark.promise("p5")
async def test_waits_of_a_tenant_and_of_the_server_are_limited(it: GatewayApp, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = await a_reader(it), await a_reader(it)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(first.pull(LONG))
        await first.waits()
        limits = it.services.pulls.waits.limits
        monkeypatch.setattr(limits, "most_per_tenant", 1)
        with pytest.raises(RateLimited, match="in this tenant"):
            await second.pull(LONG)
        monkeypatch.setattr(limits, "most_per_tenant", 9)
        monkeypatch.setattr(limits, "most", 1)
        with pytest.raises(Overloaded):
            await second.pull(LONG)
        await first.publish(1)
        assert numbers(await waiting) == [1]


@pytest.mark.promise("p4")
async def test_drained_server_answers_waiting_and_later_pulls_with_an_empty_list(it: GatewayApp) -> None:
    reader = await a_reader(it)
    pulls, who = Pulls(it.services, bytes(32)), reader.principal
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(pulls.pull(who, who.agent_id, LONG))
        await until(lambda: len(pulls.waits) == 1)
        pulls.waits.drain()
        assert (await waiting).items == []
    assert (await pulls.pull(who, who.agent_id, LONG)).items == []


async def test_caller_can_end_a_wait(it: GatewayApp) -> None:
    reader, wait = await a_reader(it), PullWait()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(reader.pull(LONG, wait))
        await reader.waits()
        wait.end()
        assert (await waiting).items == []
    assert len(it.services.hub) == 0


async def test_message_stored_before_the_feed_opens_is_not_missed(it: GatewayApp) -> None:
    for number in range(20):
        reader = await a_reader(it)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(reader.pull(LONG))
            for _ in range(number % 7):
                await asyncio.sleep(0)
            await reader.publish(number)
            assert numbers(await waiting) == [number]


# --- access --------------------------------------------------------------------------------------------------------------


async def test_subscription_made_during_a_wait_is_received_and_a_paused_one_is_not(it: GatewayApp) -> None:
    reader = await a_reader(it)
    other = await it.services.channels.create(it.owner, name="other")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(reader.pull(LONG))
        await reader.waits()
        agent_id = reader.principal.agent_id
        await it.services.subscriptions.set_status(it.owner, reader.channel.id, agent_id, SubscriptionStatus.PAUSED)
        await reader.subscribe(other)
        await until(lambda: not _follows(it, reader.channel) and _follows(it, other))
        await reader.publish(1)
        await reader.publish(2, channel=other)
        assert numbers(await waiting) == [2]


def _follows(it: GatewayApp, channel: Channel) -> bool:
    feed = it.services.hub.feed(it.owner.tenant_id, channel.id, KINDS[channel.type])
    it.services.hub.release(feed)
    return bool(feed.wakers)


async def test_agent_disabled_or_suspended_during_a_wait_gets_its_error(it: GatewayApp) -> None:
    reader = await a_reader(it)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(_outcome(reader))
        await reader.waits()
        await it.services.agents.update(it.owner, reader.principal.agent_id, status=AgentStatus.DISABLED)
        assert isinstance(await waiting, Revoked)

    reader = await a_reader(it)
    try:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(_outcome(reader))
            await reader.waits()
            await it.suspend()
            assert isinstance(await waiting, TenantSuspended)
    finally:
        await it.suspend(TenantStatus.ACTIVE)


async def test_nobody_else_pulls_or_acknowledges(it: GatewayApp) -> None:
    reader, other = await a_reader(it), await a_reader(it)
    for principal in (other.principal, it.owner):
        with pytest.raises(Forbidden):
            await it.services.pulls.pull(principal, reader.principal.agent_id, NOW)
        with pytest.raises(Forbidden):
            await it.services.pulls.settle(principal, reader.principal.agent_id, [])


# --- other servers, and counts -------------------------------------------------------------------------------------------


@pytest.mark.promise("p22")
async def test_ack_by_one_server_is_read_by_another(it: GatewayApp) -> None:
    reader = await a_reader(it)
    stored = await reader.publish(1, 2)
    assert await reader.ack(stored[0]) is None

    services = copy(it.services)
    services.cursors = Cursors(it.services.store, 3600)
    there = Pulls(services, bytes(32))
    assert numbers(await there.pull(reader.principal, reader.principal.agent_id, NOW)) == [2]


async def test_pulled_messages_are_counted_as_deliveries_of_the_agent(it: GatewayApp) -> None:
    reader = await a_reader(it)
    await reader.publish(1, 2, 3)
    before = await total(it, Metric.DELIVERIES) or 0
    for _ in range(2):
        await reader.pull()
    assert await total(it, Metric.DELIVERIES) == before + 6
    counted = await parts(it, Metric.DELIVERIES, Attribution.AGENT)
    assert counted[reader.principal.agent_id] == 6


# --- moved cursors -------------------------------------------------------------------------------------------------------


@pytest.mark.promise("p25")
async def test_ack_of_a_message_pulled_before_the_cursor_was_moved_changes_nothing(it: GatewayApp) -> None:
    reader = await a_reader(it)
    *_, last = await reader.publish(1, 2, 3)
    for moves in (0, 1):
        pulled = await reader.pull()
        assert numbers(pulled) == [1, 2, 3]
        assert pulled.moves == ({reader.channel.id: moves} if moves else {})
        await it.services.cursor_moves.move(it.owner, reader.channel.id, reader.principal.agent_id, "first")
        assert await reader.ack(last, pulled.epoch, pulled.moves) is None
        assert numbers(await reader.pull()) == [1, 2, 3]
    pulled = await reader.pull()
    assert await reader.ack(last, pulled.epoch, pulled.moves) is None
    assert numbers(await reader.pull()) == []


async def test_move_during_a_wait_is_followed(it: GatewayApp) -> None:
    reader = await a_reader(it)
    *_, last = await reader.publish(1, 2)
    assert await reader.ack(last) is None
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(reader.pull(LONG))
        await until(lambda: len(it.services.pulls.waits) == 1)
        await it.services.cursor_moves.move(it.owner, reader.channel.id, reader.principal.agent_id, "first")
    assert numbers(waiting.result()) == [1, 2]
    assert waiting.result().moves == {reader.channel.id: 1}
