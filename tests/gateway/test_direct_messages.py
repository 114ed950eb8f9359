"""Direct messages: every agent has an inbox, stored and readable by that agent alone, with no row to make for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec import Raw

from artcafe.errors import Conflict, SubscriptionNotFound
from artcafe.model import Access, Agent, AgentPrincipal, AgentStatus, Permission, Role, SubscriptionStatus, UserId, UserPrincipal
from artcafe.observe.clock import now
from artcafe.rules.inboxes import inbox_of
from artcafe.services.retention import Retention
from artcafe.tables.catalog import AGENTS, CHANNEL_SUBSCRIPTIONS
from artcafe.tables.engine.writes import ItemKey, Remove, Update
from artcafe.tables.store import Store
from artcafe.wire.frames import Publish
from tests import ssh_keygen
from tests.gateway.gateway_app import GatewayApp, gateway_app, until
from tests.gateway.raw_client import RawClient, open_client
from tests.gateway.test_gaps import cut_off


async def another(it: GatewayApp, name: str, owner: UserPrincipal | None = None) -> Agent:
    key = ssh_keygen.make_key(it.folder / name)
    return await it.services.agents.create(owner or it.owner, name=name, public_key=ssh_keygen.public_line(key))


async def stranger(it: GatewayApp) -> UserPrincipal:
    tenant = await it.services.tenants.create(UserId("mallory"), "Mallory's")
    return await it.services.tenants.enter(UserId("mallory"), tenant.id)


@asynccontextmanager
async def connected(it: GatewayApp, agent: Agent, **more: object) -> AsyncIterator[RawClient]:
    principal = AgentPrincipal(agent_id=agent.id, tenant_id=agent.tenant_id, epoch=0)
    async with open_client(it.url, it.trust) as raw:
        token = it.services.tokens.mint(principal, it.clock())
        assert "session_id" in await raw.ask("connect", access_token=token, **more)
        yield raw


def waiting(it: GatewayApp) -> int:
    """Return the number of agents whose inbox has been compared with the log, and needs no delivery."""
    router = it.services.fabric.tenant(it.owner.tenant_id).readers.inboxes
    return 0 if router.is_comparing else len(router)


async def test_agent_receives_direct_messages_without_a_subscription(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        worker = await another(it, "worker")
        async with it.connected() as planner, connected(it, worker) as raw:
            await until(lambda: waiting(it) == 2)
            for number, address in enumerate((f"@{worker.id}", worker.id, f"@{worker.id}")):
                stored = await planner.ask("publish", channel=address, data=number)
                assert stored["duplicate"] is False
                message = await raw.message()
                assert (message["channel"], message["from"]) == (f"@{worker.id}", it.agent.id)
                assert (message["data"], message["seq"]) == (number, stored["seq"])
            assert await planner.is_quiet()

            answer = await raw.ask(
                "publish", channel=f"@{it.agent.id}", data="done", caused_by={"channel": f"@{worker.id}", "seq": message["seq"]}
            )
            received = await planner.message()
            assert (received["seq"], received["caused_by"], received["hops"]) == (answer["seq"], message["message_id"], 1)
        assert await it.tables.get(CHANNEL_SUBSCRIPTIONS, [ItemKey(worker.tenant_id, f"@{worker.id}#{worker.id}")]) == [None]


async def test_direct_messages_wait_for_an_agent_that_is_away_and_are_acknowledged(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        worker = await another(it, "worker")
        inbox = inbox_of(worker.id)
        async with it.connected() as planner:
            seqs = [(await planner.ask("publish", channel=inbox, data=number))["seq"] for number in range(4)]
            async with connected(it, worker, max_unacked=2) as raw:
                assert await raw.messages(2) == [0, 1]
                assert await raw.is_quiet()
                await raw.ack(inbox, seqs[1])
                assert await raw.messages(2) == [2, 3]
            async with connected(it, worker) as raw:
                assert await raw.messages(2) == [2, 3]
                await raw.ack(inbox, seqs[3])
                await raw.ack(inbox, seqs[3] + 1)
                assert (await raw.next())["error"]["code"] == "ack_beyond_sent"
            async with connected(it, worker) as raw:
                await until(lambda: waiting(it) == 2)
                await raw.ack(inbox, seqs[3])
                await raw.ack(inbox, seqs[3] + 1)
                assert (await raw.next())["error"]["code"] == "ack_beyond_sent"
                await planner.ask("publish", channel=inbox, data="next")
                assert await raw.messages(1) == ["next"]
            row = await it.services.store.tenant(worker.tenant_id).agent(worker.id)
            assert row is not None
            assert row.inbox is not None
            assert row.inbox.seq == seqs[3]


async def test_agent_of_an_older_system_has_an_inbox_without_a_repair(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        await it.publish(b"0")
        older = await another(it, "older")
        for name in ("inbox_epoch", "inbox_acked_seq"):
            await it.tables.update(Update(AGENTS, ItemKey(older.tenant_id, older.id), [Remove(name)]))
        await it.services.messaging.publish(it.owner, f"@{older.id}", _publish(1))
        async with connected(it, older) as raw:
            message = await raw.message()
            assert message["data"] == 1
            await raw.ack(message["channel"], message["seq"])
        async with connected(it, older) as raw:
            await until(lambda: waiting(it) == 1)
            assert await raw.is_quiet()


async def test_inbox_is_readable_by_its_agent_alone(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        worker = await another(it, "worker")
        inbox = inbox_of(worker.id)
        async with it.connected() as planner, connected(it, worker) as raw, it.connected_person(Role.OWNER) as person:
            seq = (await planner.ask("publish", channel=inbox, data=1))["seq"]
            await raw.messages(1)
            for name in (inbox, worker.id):
                assert (await planner.ask("history", channel=name))["code"] == "forbidden"
                assert (await person.ask("watch", channel=name))["code"] == "forbidden"
                assert (await planner.ask("subscribe", channel=name))["code"] == "channel_not_found"
            assert [each["data"] for each in (await raw.ask("history", channel=inbox))["messages"]] == [1]
            third = await another(it, "third")
            async with connected(it, third) as other:
                cause = {"channel": inbox, "seq": seq}
                refused = await other.ask("publish", channel=it.channel.id, data=1, caused_by=cause)
                assert refused["code"] == "cause_not_found"
            foreign = await another(it, "foreign", await stranger(it))
            for theirs, nobodys in ((f"@{foreign.id}", "@agt_none"), (str(foreign.id), "agt_none")):
                answers = [await planner.ask("publish", channel=each, data=1) for each in (theirs, nobodys)]
                assert str(answers[0]).replace(foreign.id, "agt_none") == str(answers[1])
            unknown = await planner.ask("publish", channel="@agt_none", data=1)
            assert unknown["code"] == "agent_not_found"
            assert (await planner.ask("publish", channel="agt_none", data=1))["code"] == "channel_not_found"


async def test_name_of_a_hidden_channel_means_the_agent_of_that_name(tmp_path: Path) -> None:
    """Without a subscription, a managed channel is like none, also for its audience; with one, the name is the channel's."""
    async with gateway_app(tmp_path) as it:
        worker = await another(it, "ops")
        channel = await it.services.channels.create(it.owner, name="ops", handle="ops", access=Access.MANAGED)
        for agent in (worker, await another(it, "second")):
            await it.services.subscriptions.put(it.owner, channel.id, agent.id)
        async with connected(it, worker) as raw, it.connected() as planner:
            for number in range(2):
                reply = await planner.ask("publish", channel="ops", data=number)
                assert reply.get("subscribers") in (1, None)
                assert (await raw.message())["channel"] == inbox_of(worker.id)
            await until(lambda: it.services.messaging.audiences.peek(it.owner.tenant_id, inbox_of(worker.id)).subscribers == 1)
            assert (await planner.ask("publish", channel="ops", data=2, receipt="delivered"))["subscribers"] == 1
            while "receipt" not in (push := planner.pushes.pop(0) if planner.pushes else await planner.next()):
                pass
            assert [each["agent"] for each in push["receipt"]["recipients"]] == [worker.id]
            assert (await raw.message())["data"] == 2
            await it.services.subscriptions.put(it.owner, channel.id, it.agent.id, frozenset({Permission.PUBLISH}))
            await planner.ask("publish", channel="ops", data=3)
            assert (await raw.message())["channel"] == channel.id
            assert (await it.services.messaging.publish(it.owner, "ops", _publish(4))).subscribers in (2, None)


async def test_subscription_of_an_agent_to_its_inbox_is_readable_and_cannot_be_changed(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        inbox, subscriptions = inbox_of(it.agent.id), it.services.subscriptions
        found = await subscriptions.get(it.owner, inbox, it.agent.id)
        assert (found.channel_id, found.status) == (inbox, SubscriptionStatus.ACTIVE)
        with pytest.raises(Conflict):
            await subscriptions.delete(it.owner, inbox, it.agent.id)
        with pytest.raises(Conflict):
            await subscriptions.set_status(it.owner, inbox, it.agent.id, SubscriptionStatus.PAUSED)
        listed = await subscriptions.list_of_agent(it.owner, it.agent.id)
        assert inbox not in {each.channel_id for each in listed.items}
        for agent_id in ("agt_none", (await another(it, "worker")).id):
            with pytest.raises(SubscriptionNotFound):
                await subscriptions.get(it.owner, inbox, agent_id)


async def test_subscribe_to_the_own_inbox_repeats_what_is_stored(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        inbox = inbox_of(it.agent.id)
        await until(lambda: waiting(it) == 1)
        assert await raw.ask("unsubscribe", channel=inbox) == {"channel": inbox}
        first = (await raw.ask("publish", channel=inbox, data=1))["seq"]
        assert await raw.is_quiet()
        assert (await raw.ask("subscribe", channel=inbox))["last"] == first
        assert await raw.messages(1) == [1]
        await raw.ack(inbox, first)
        await raw.ask("subscribe", channel=inbox, **{"from": "first"})
        assert await raw.messages(1) == [1]


async def test_reply_to_names_an_agent_by_the_id_of_its_inbox(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        worker = await another(it, "worker")
        for address in (f"@{worker.id}", worker.id):
            await raw.ask("publish", channel=it.channel.id, data=1, reply_to=address)
            assert (await raw.message())["reply_to"] == f"@{worker.id}"
        await raw.ask("publish", channel=it.channel.id, data=1, reply_to="any text")
        assert (await raw.message())["reply_to"] == "any text"
        refused = await raw.ask("publish", channel=it.channel.id, data=1, reply_to="@agt_none")
        assert (refused["code"], "reply_to" in refused["message"]) == ("invalid", True)


async def test_messages_to_a_disabled_agent_wait_and_those_of_a_deleted_one_are_removed(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as planner:
        worker = await another(it, "worker")
        inbox = inbox_of(worker.id)
        await it.services.agents.update(it.owner, worker.id, status=AgentStatus.DISABLED)
        seq = (await planner.ask("publish", channel=inbox, data=1))["seq"]
        log = await it.services.fabric.tenant(worker.tenant_id).connected_log()
        assert await log.last_seq_of(inbox) == seq
        await it.services.agents.delete(it.owner, worker.id)
        assert await log.last_seq_of(inbox) == 0
        assert (await planner.ask("publish", channel=inbox, data=1))["code"] == "agent_not_found"


async def test_message_removed_by_retention_leaves_a_gap_at_the_next_connect(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        worker = await another(it, "worker")
        seq = (await it.services.messaging.publish(it.owner, f"@{worker.id}", _publish(1))).seq
        tenant_fabric = it.services.fabric.tenant(worker.tenant_id)
        retention = Retention(Store(it.tables), it.services.fabric, lambda: now() + timedelta(days=9999), it.services.plans)
        await retention.sweep(tenant_fabric)
        async with connected(it, worker) as raw:
            gap = (await raw.next())["gap"]
            assert (gap["channel"], gap["from"], gap["to"], gap["reason"]) == (f"@{worker.id}", 1, seq, "retention")


async def test_waiting_connection_is_woken_for_a_message_stored_while_the_server_had_no_nats(tmp_path: Path) -> None:
    async with gateway_app(tmp_path, has_proxy=True) as it, it.connected() as raw:
        other = await another(it, "other")
        async with connected(it, other) as quiet:
            await until(lambda: waiting(it) == 2)
            async with cut_off(it) as away:
                await away.publish(b"7", channel=inbox_of(it.agent.id))
            assert await raw.messages(1) == [7]
            assert await quiet.is_quiet()


def _publish(data: int) -> Publish:
    return Publish("", Raw(b"%d" % data))
