"""Chains of answers on real tables and a real nats-server: places, counts, stops and releases."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from artcafe.assembly import ServiceKeys, Services, ServiceSettings
from artcafe.errors import CauseNotFound, ChainNotFound, Forbidden, LoopStopped, NotStored, Unavailable
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.recent_live import MOST
from artcafe.model import Access, AgentPrincipal, Channel, ChannelType, Outcome, Permission, Principal, Role
from artcafe.services.loop_guard import Chain, ChainStatus
from artcafe.tables.catalog import TENANTS
from artcafe.tables.engine.writes import ItemKey, Put
from artcafe.wire.envelopes import Envelope, parse_envelope
from artcafe.wire.frames import Cause, CausedBy, Publish
from artcafe.wire.replies import PublishReply
from tests.gateway.gateway_app import GatewayApp, gateway_app
from tests.gateway.raw_client import BOUND_S
from tests.services.service_env import new_key, with_role

KEYS = ServiceKeys(agent_tokens=b"t" * 32, invitations=b"v" * 32)


async def limit(it: GatewayApp, **limits: int) -> None:
    """Set limits in the tenant's row, as an operator does."""
    (row,) = await it.tables.get(TENANTS, [ItemKey(it.owner.tenant_id)], consistent=True)
    assert row is not None
    await it.tables.put(Put(TENANTS, {**row, "limits": limits}))
    it.services.invalidation.notify(it.owner.tenant_id)


@asynccontextmanager
async def guarded(folder: Path, *, has_proxy: bool = False, **limits: int) -> AsyncIterator[GatewayApp]:
    """A gateway whose tenant has these limits, with the loop guard's background loop."""
    async with gateway_app(folder, has_proxy=has_proxy) as it, asyncio.TaskGroup() as group:
        await limit(it, **limits)
        loop = group.create_task(it.services.loop_guard.run())
        yield it
        loop.cancel()


@asynccontextmanager
async def second_server(it: GatewayApp) -> AsyncIterator[Services]:
    """Another server on the same tables and NATS."""
    fabric = Fabric([it.nats.url], Accounts(b"s" * 32, "dev"))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(fabric.run())
        await fabric.wait_up(BOUND_S)
        settings = ServiceSettings(service_name="test")
        services = Services(it.services.store, fabric, it.identity, KEYS, it.clock, settings, group)
        loop = group.create_task(services.loop_guard.run())
        yield services
        loop.cancel()
        fabric.close()
        await running


async def agent(it: GatewayApp) -> AgentPrincipal:
    made = await it.services.agents.create(it.owner, name="another", public_key=new_key())
    return AgentPrincipal(agent_id=made.id, tenant_id=made.tenant_id, epoch=0)


async def say(
    it: GatewayApp,
    caused_by: CausedBy | None = None,
    *,
    channel: Channel | None = None,
    principal: Principal | None = None,
    services: Services | None = None,
    key: str | None = None,
) -> PublishReply:
    to = channel or it.channel
    publish = Publish(to.id, Raw(b"1"), key, caused_by=caused_by)
    return await (services or it.services).messaging.publish(principal or it.principal, to.id, publish)


def place(it: GatewayApp, reply: PublishReply, channel: Channel | None = None) -> Cause:
    assert reply.seq is not None
    return Cause((channel or it.channel).id, reply.seq)


async def stored(it: GatewayApp, reply: PublishReply) -> Envelope:
    assert reply.seq is not None
    text = await it.services.fabric.tenant(it.owner.tenant_id).log.read(reply.seq)
    assert text is not None
    return parse_envelope(text)


async def until(chain: str, it: GatewayApp, messages: int) -> Chain:
    """Return the chain when it has this number of messages: refused ones are taken back in the background."""
    async with asyncio.timeout(BOUND_S):
        while (found := await it.services.loop_guard.get(it.owner, chain)).messages != messages:  # noqa: ASYNC110 (another task subtracts)
            await asyncio.sleep(0.01)
    return found


async def stops(it: GatewayApp, *others: Services) -> list[dict[str, Any]]:
    """Return the facts of the stopped chains in the tenant's audit, from these servers."""
    for services in (it.services, *others):
        await services.counters.flush()
    page = await it.services.audit.list(it.owner)
    entries = [line.entry for line in page.items if line.entry.action == "chain.stop"]
    assert all(each.outcome is Outcome.REFUSED and each.actor == it.agent.id for each in entries)
    return [dict(each.facts) for each in entries]


async def outcome(publishing: Awaitable[PublishReply]) -> PublishReply | LoopStopped:
    try:
        return await publishing
    except LoopStopped as exc:
        return exc


# --- places ------------------------------------------------------------------------------------------------------------


async def test_answer_is_stored_with_its_cause_its_hops_and_its_chain(tmp_path: Path) -> None:
    async with guarded(tmp_path) as it:
        first = await say(it)
        second = await say(it, place(it, first))
        third = await say(it, second.message_id)
        fourth = await say(it, msgspec.structs.replace(place(it, third), message_id=third.message_id))
        beside = await say(it, place(it, first))

        assert [(found.caused_by, found.hops, found.chain) for found in [await stored(it, each) for each in (first, second)]] == [
            (None, 0, None),
            (first.message_id, 1, first.message_id),
        ]
        for answer, cause, hops in ((third, second, 2), (fourth, third, 3), (beside, first, 1)):
            found = await stored(it, answer)
            assert (found.caused_by, found.hops, found.chain) == (cause.message_id, hops, first.message_id)


async def test_cause_of_another_server_is_found_by_its_place_and_by_its_id(tmp_path: Path) -> None:
    async with guarded(tmp_path) as it, second_server(it) as there:
        first = await say(it)
        second = await say(it, place(it, first))
        by_id = await say(it, second.message_id, services=there)
        by_place = await say(it, place(it, second), services=there)

        for answer in (by_id, by_place):
            assert ((await stored(it, answer)).hops, (await stored(it, answer)).chain) == (2, first.message_id)


async def test_message_that_is_unknown_foreign_or_not_to_be_received_is_refused_alike(tmp_path: Path) -> None:
    async with guarded(tmp_path) as it:
        first, other = await say(it), await agent(it)
        managed = await it.services.channels.create(it.owner, name="managed", access=Access.MANAGED)
        hidden = await say(it, channel=managed, principal=it.owner)
        stranger = other.__class__(agent_id=other.agent_id, tenant_id=type(it.owner.tenant_id)("ten_other"), epoch=0)
        named: list[CausedBy] = [
            place(it, hidden, managed),
            hidden.message_id or "",
            Cause(it.channel.id, 99),
            Cause(managed.id, first.seq or 0),
            Cause("chn_none", first.seq or 0),
            Cause(it.channel.id, first.seq or 0, hidden.message_id),
            "msg_00000000000000000000000000",
            "msg_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2",
            "nonsense",
            "",
        ]
        refusals = set()
        for each in named:
            with pytest.raises(CauseNotFound) as refused:
                await say(it, each, principal=other)
            refusals.add(str(refused.value))
        assert len(refusals) == 1
        with pytest.raises(CauseNotFound):
            await it.services.loop_guard.causes.find(stranger, first.message_id or "")
        state = await it.services.fabric.tenant(it.owner.tenant_id).log.state()
        assert state is not None
        assert state.last_seq == hidden.seq


async def test_managed_message_is_a_cause_for_those_who_receive_it_and_for_its_publisher(tmp_path: Path) -> None:
    async with guarded(tmp_path) as it:
        managed = await it.services.channels.create(it.owner, name="managed", access=Access.MANAGED)
        reader, writer = await agent(it), await agent(it)
        await it.services.subscriptions.put(it.owner, managed.id, reader.agent_id, frozenset({Permission.RECEIVE}))
        await it.services.subscriptions.put(it.owner, managed.id, writer.agent_id, frozenset({Permission.PUBLISH}))
        own = await say(it, channel=managed, principal=writer)
        others = await say(it, channel=managed, principal=it.owner)

        for principal, cause in ((reader, own), (reader, others), (writer, own), (it.owner, own)):
            assert (await stored(it, await say(it, place(it, cause, managed), principal=principal))).hops == 1
        with pytest.raises(CauseNotFound):
            await say(it, place(it, others, managed), principal=writer)


async def test_live_message_is_a_cause_on_the_servers_that_saw_it(tmp_path: Path) -> None:
    async with guarded(tmp_path) as it, second_server(it) as there:
        live = await it.services.channels.create(it.owner, name="live", type=ChannelType.LIVE)
        first = await say(it, channel=live)
        second = await say(it, first.message_id, channel=live)
        answer = await say(it, second.message_id)

        assert ((await stored(it, answer)).hops, (await stored(it, answer)).chain) == (2, first.message_id)
        with pytest.raises(CauseNotFound):
            await say(it, second.message_id, services=there)


async def test_only_the_newest_live_messages_are_kept(tmp_path: Path) -> None:
    async with guarded(tmp_path) as it:
        live = await it.services.channels.create(it.owner, name="live", type=ChannelType.LIVE)
        first = await say(it, channel=live)
        recent = it.services.fabric.tenant(it.owner.tenant_id).readers.recent_live
        for number in range(MOST - 1):
            recent.add(live.id, b'{"message_id":"msg_%026d","from":"a","headers":{},"data":1}' % number)
        assert recent.find(first.message_id or "") is not None
        recent.add(live.id, b'{"message_id":"msg_%026d","from":"a","headers":{},"data":1}' % MOST)
        assert (len(recent), recent.find(first.message_id or "")) == (MOST, None)


# --- limits ------------------------------------------------------------------------------------------------------------


async def test_hops_up_to_the_limit_pass_and_one_more_does_not(tmp_path: Path) -> None:
    async with guarded(tmp_path, hops=3) as it:
        last = first = await say(it)
        for _ in range(3):
            last = await say(it, place(it, last))
        for _ in range(2):
            with pytest.raises(LoopStopped) as stopped:
                await say(it, place(it, last))
        error = stopped.value
        assert (error.chain, error.hops, error.limit, error.most, error.used) == (first.message_id, 4, "hops", 3, 4)
        assert (await stored(it, await say(it, place(it, first)))).hops == 1  # another branch
        assert await stops(it) == [{"chain": first.message_id, "channel": it.channel.id, "hops": "4", "limit": "hops", "at": "3"}]


async def test_of_50_answers_at_once_on_two_servers_exactly_the_rest_of_the_limit_passes(tmp_path: Path) -> None:
    async with guarded(tmp_path, chain_messages=20) as it, second_server(it) as there:
        first = await say(it)
        servers = (it.services, there)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(outcome(say(it, place(it, first), services=servers[number % 2], key=f"k{number}")))
                for number in range(50)
            ]
        outcomes = [task.result() for task in tasks]

        made = [each for each in outcomes if isinstance(each, PublishReply)]
        assert Counter(type(each) for each in outcomes) == {PublishReply: 19, LoopStopped: 31}
        assert len({each.seq for each in made}) == 19
        chain = await until(first.message_id or "", it, 20)
        assert (chain.status, chain.max_messages, chain.releases) == (ChainStatus.STOPPED, 20, 0)
        assert [facts["limit"] for facts in await stops(it, there)] == ["chain_messages"]


async def test_repeat_of_a_key_counts_once_and_is_answered_even_when_the_chain_is_stopped(tmp_path: Path) -> None:
    async with guarded(tmp_path, chain_messages=3) as it:
        first = await say(it)
        second = await say(it, place(it, first), key="k2")
        assert await say(it, place(it, first), key="k2") == msgspec.structs.replace(second, duplicate=True)
        await until(first.message_id or "", it, 2)
        third = await say(it, place(it, first), key="k3")
        for key, earlier in (("k3", third), ("k2", second), ("k3", third)):
            assert await say(it, place(it, first), key=key) == msgspec.structs.replace(earlier, duplicate=True)
        assert await stops(it) == []
        for new in ("k4", None, "k4"):
            with pytest.raises(LoopStopped):
                await say(it, place(it, first), key=new)
        assert len(await stops(it)) == 1


async def test_answer_that_is_not_stored_is_not_counted(tmp_path: Path) -> None:
    async with guarded(tmp_path, chain_messages=3) as it:
        first = await say(it)
        second = await say(it, place(it, first))
        writer = it.services.fabric.tenant(it.owner.tenant_id).writer
        writer.close()
        with pytest.raises(NotStored):
            await say(it, place(it, first))
        assert (await until(first.message_id or "", it, 2)).status is ChainStatus.ACTIVE
        assert second.seq == 2


async def test_released_chain_continues_for_another_budget(tmp_path: Path) -> None:
    async with guarded(tmp_path, chain_messages=3) as it, second_server(it) as there:
        first = await say(it)
        chain = first.message_id or ""

        async def fill(services: Services) -> int:
            made = 0
            while True:
                try:
                    await say(it, place(it, first), services=services)
                except LoopStopped:
                    return made
                made += 1

        assert await fill(it.services) == 2
        released = await it.services.loop_guard.release(with_role(it.owner, Role.MEMBER), chain)
        again = await it.services.loop_guard.release(it.owner, chain)
        assert (again.status, again.releases, again.max_messages) == (ChainStatus.ACTIVE, 1, 6)
        assert released == again
        assert await fill(there) == 3
        await until(chain, it, 6)
        assert len(await stops(it, there)) == 2
        actions = [line.entry for line in (await it.services.audit.list(it.owner)).items]
        assert [(each.outcome, each.facts["releases"]) for each in actions if each.action == "chain.release"] == [
            (Outcome.DONE, "1"),
            (Outcome.INTENDED, "1"),
        ]


async def test_release_of_hops_lets_the_answer_pass(tmp_path: Path) -> None:
    async with guarded(tmp_path, hops=1) as it:
        first = await say(it)
        second = await say(it, place(it, first))
        with pytest.raises(LoopStopped):
            await say(it, place(it, second))
        await it.services.loop_guard.release(it.owner, first.message_id or "")
        third = await say(it, place(it, second))
        with pytest.raises(LoopStopped) as stopped:
            await say(it, place(it, third))
        assert (stopped.value.hops, stopped.value.most) == (3, 2)


async def test_only_members_read_and_release_chains_of_their_tenant(tmp_path: Path) -> None:
    async with guarded(tmp_path, chain_messages=1) as it:
        first = await say(it)
        chain = first.message_id or ""
        guard = it.services.loop_guard
        with pytest.raises(ChainNotFound):
            await guard.get(it.owner, chain)
        with pytest.raises(LoopStopped):
            await say(it, place(it, first))
        viewer = with_role(it.owner, Role.VIEWER)
        assert (await guard.get(viewer, chain)).status is ChainStatus.STOPPED
        for principal in (viewer, it.principal):
            with pytest.raises(Forbidden):
                await guard.release(principal, chain)
        stranger = msgspec.structs.replace(it.owner, tenant_id="ten_other")
        for each in (guard.get, guard.release):
            with pytest.raises(ChainNotFound):
                await each(stranger, chain)


async def test_answer_is_refused_as_not_stored_while_nats_cannot_be_reached(tmp_path: Path) -> None:
    async with guarded(tmp_path, has_proxy=True) as it:
        first = await say(it)
        assert it.proxy is not None
        it.proxy.is_open = False
        it.proxy.cut()
        with pytest.raises((NotStored, Unavailable)) as refused:
            await say(it, place(it, first))
        assert refused.value.temporary
        it.proxy.is_open = True
        async with asyncio.timeout(BOUND_S):
            while not await is_accepted(it, place(it, first)):  # noqa: ASYNC110 (the connection has no event)
                await asyncio.sleep(0.05)


async def is_accepted(it: GatewayApp, cause: CausedBy) -> bool:
    try:
        return (await say(it, cause)).seq is not None
    except (NotStored, Unavailable):
        return False
