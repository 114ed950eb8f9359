"""What a publisher learns of its message: who receives the channel, and what became of the message for each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from artcafe.assembly import ServiceKeys, Services, ServiceSettings
from artcafe.delivery.pull import PullRequest
from artcafe.delivery.pull_holds import ACK
from artcafe.delivery.pull_settling import SettleEntry
from artcafe.errors import Forbidden, MessageNotFound
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.fabric import Fabric
from artcafe.gateway.listener import Gateway
from artcafe.gateway.upgrade_request import PATH
from artcafe.model import Agent, AgentId, AgentPrincipal, ChannelType, SubscriptionStatus, TenantId
from artcafe.services import audiences as audiences_module
from artcafe.services.audiences import UNKNOWN, Audience, Audiences
from artcafe.tables.store import Store
from tests import ssh_keygen
from tests.gateway.gateway_app import LONG_S, GatewayApp, gateway_app, until
from tests.gateway.raw_client import BOUND_S, RawClient, open_client


class ReceiptEnv:
    """A gateway with a publisher that receives nothing, and optionally a second server on the same tables and NATS."""

    def __init__(self, it: GatewayApp, publisher: RawClient, publisher_id: AgentId) -> None:
        self.it, self.publisher, self.publisher_id = it, publisher, publisher_id

    async def publish(self, receipt: str | None = None, receipt_s: float = 30.0, **more: object) -> dict[str, Any]:
        """Publish a message, and return the reply."""
        wanted = {} if receipt is None else {"receipt": receipt, "receipt_s": receipt_s}
        return await self.publisher.ask("publish", channel=self.it.channel.id, data=1, **wanted, **more)

    async def receipt(self) -> dict[str, Any]:
        """Return the next receipt push."""
        frame = self.publisher.pushes.pop(0) if self.publisher.pushes else await self.publisher.next()
        assert "receipt" in frame, frame
        receipt: dict[str, Any] = frame["receipt"]
        return receipt

    async def states(self, *expected: tuple[str, str]) -> dict[str, Any]:
        """Wait for a push that reports these states, and return it."""
        seen: set[tuple[str, str]] = set()
        while True:
            push = await self.receipt()
            seen |= {(each["agent"], each["state"]) for each in push["recipients"]}
            if seen >= set(expected):
                return push
            assert not push["final"], (push, seen)

    async def final(self) -> dict[str, Any]:
        while not (push := await self.receipt())["final"]:
            pass
        return push


@asynccontextmanager
async def receipt_env(folder: Path) -> AsyncIterator[ReceiptEnv]:
    async with gateway_app(folder) as it:
        agent, key = await new_agent(it, "publisher")
        async with open_client(it.url) as raw:
            await raw.login(agent.tenant_id, agent.id, key)
            yield ReceiptEnv(it, raw, agent.id)


async def new_agent(it: GatewayApp, name: str) -> tuple[Agent, Path]:
    key = ssh_keygen.make_key(it.folder / name)
    return await it.services.agents.create(it.owner, name=name, public_key=ssh_keygen.public_line(key)), key


@asynccontextmanager
async def second_server(it: GatewayApp, group: asyncio.TaskGroup) -> AsyncIterator[tuple[str, Services]]:
    """Run another server on the same tables and NATS, and yield its gateway's address."""
    fabric = Fabric([it.nats.url], Accounts(b"s" * 32, "dev"))
    running = group.create_task(fabric.run())
    await fabric.wait_up(BOUND_S)
    keys = ServiceKeys(agent_tokens=b"t" * 32, invitations=b"v" * 32)
    settings = ServiceSettings(service_name="test", cursor_s=LONG_S)
    services = Services(Store(it.tables), fabric, it.identity, keys, it.clock, settings, group)
    gateway = Gateway(services, group, apply_interval_s=0.01)
    port = await gateway.listen("127.0.0.1", 0)
    loops = [group.create_task(loop) for loop in (gateway.run(), gateway.access_updates.run(), services.audiences.run())]
    try:
        yield f"ws://127.0.0.1:{port}{PATH}", services
    finally:
        await gateway.drain()
        for loop in loops:
            loop.cancel()
        fabric.close()
        await running


# --- the answer to a publish -------------------------------------------------------------------------------------------


@pytest.mark.promise("c1", "c2")
async def test_answer_to_a_publish_counts_subscribers_and_those_connected_to_any_server(tmp_path: Path) -> None:
    async with receipt_env(tmp_path) as env, asyncio.TaskGroup() as group, second_server(env.it, group) as (url, there):
        it = env.it
        other, key = await new_agent(it, "other")
        await until_counted(env, (1, 0))
        await there.subscriptions.put(it.owner, it.channel.id, other.id)  # The other server announces it.
        await until_counted(env, (2, 0))
        async with it.connected(), open_client(url) as raw:
            await raw.login(other.tenant_id, other.id, key)
            await until_counted(env, (2, 2))
            await it.services.subscriptions.set_status(it.owner, it.channel.id, it.agent.id, SubscriptionStatus.PAUSED)
            await until_counted(env, (1, 1))
        await until_counted(env, (1, 0))
        await there.agents.delete(it.owner, other.id)
        await until_counted(env, (0, 0))


async def until_counted(env: ReceiptEnv, expected: tuple[int, int]) -> None:
    """Publish until the answer has these counts. An unknown count is null and never another number."""
    async with asyncio.timeout(BOUND_S):
        while True:
            reply = await env.publish()
            if (reply["subscribers"], reply["connected"]) == expected:
                return


@pytest.mark.promise("c2", "c3")
async def test_counts_are_unknown_while_a_change_is_read_and_never_stale_on_the_server_that_made_it(tmp_path: Path) -> None:
    async with receipt_env(tmp_path) as env:
        it = env.it
        await until_counted(env, (1, 0))
        for number in range(5):
            agent, _ = await new_agent(it, f"a{number}")
            await it.services.subscriptions.put(it.owner, it.channel.id, agent.id)
            assert (await env.publish())["subscribers"] in (None, 2 + number)


async def test_publishes_read_no_table_once_the_audience_is_known(tmp_path: Path) -> None:
    async with receipt_env(tmp_path) as env:
        await until_counted(env, (1, 0))
        audiences = env.it.services.audiences
        assert audiences.peek(env.it.owner.tenant_id, env.it.channel.id) == Audience(1, 0)
        audiences.drop_idle()
        audiences.drop_idle()  # Nothing was published since the last call.
        assert audiences.peek(env.it.owner.tenant_id, env.it.channel.id) == Audience(None, None)
        await until_counted(env, (1, 0))


async def test_audience_that_was_too_large_is_read_again_when_there_may_be_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receipt_env(tmp_path) as env:
        channel, audiences = (env.it.owner.tenant_id, env.it.channel.id), env.it.services.audiences
        await until_counted(env, (1, 0))
        with monkeypatch.context() as full:
            full.setattr(audiences_module, "MAX_MEMBERS", 0)
            audiences.drop_idle()
            audiences.drop_idle()  # It is read anew.
            await until(lambda: audiences.peek(*channel) == UNKNOWN and _is_too_large(audiences, channel))
            assert await audiences.wait(*channel) == UNKNOWN
            audiences.drop_idle()
            assert _is_too_large(audiences, channel), "without room it is not read again"
        audiences.drop_idle()  # Though it is in use.
        await until_counted(env, (1, 0))


def _is_too_large(audiences: Audiences, channel: tuple[TenantId, str]) -> bool:
    counted = audiences._by_reference.get(channel)
    return counted is not None and counted.is_too_large


# --- receipts ----------------------------------------------------------------------------------------------------------


@pytest.mark.promise("c4", "c5", "c7")
async def test_receipt_follows_a_recipient_from_away_over_delivered_to_acked(tmp_path: Path) -> None:
    async with receipt_env(tmp_path) as env:
        it, agent = env.it, env.it.agent.id
        reply = await env.publish("acked")
        push = await env.states((agent, "away"))
        assert (push["seq"], push["message_id"], push["open"]) == (reply["seq"], reply["message_id"], 1)
        async with it.connected() as raw:
            await raw.messages(1)
            await env.states((agent, "delivered"))
            await raw.ack(it.channel.id, reply["seq"])
            push = await env.states((agent, "acked"))
            assert (push["open"], push["final"], push["reason"]) == (0, True, "reached")


@pytest.mark.promise("c8", "c9")
async def test_final_push_at_the_deadline_says_what_is_open_and_claims_no_ack(tmp_path: Path) -> None:
    async with receipt_env(tmp_path) as env:
        it = env.it
        async with it.connected() as raw:
            reply = await env.publish("acked", receipt_s=2)
            await env.states((it.agent.id, "delivered"))
            push = await env.final()
            assert (push["reason"], push["open"]) == ("deadline", 1)
            assert push["recipients"] == [{"agent": it.agent.id, "state": "delivered"}]
            assert (await raw.message())["seq"] == reply["seq"]


@pytest.mark.promise("c5", "c7")
async def test_stored_receipt_is_one_push_with_the_last_connection_of_those_away(tmp_path: Path) -> None:
    async with receipt_env(tmp_path) as env:
        async with env.it.connected():
            pass
        await until(lambda: not env.it.services.fabric.tenant(env.it.owner.tenant_id).presence.own(env.it.agent.id))
        await env.publish("stored")
        push = await env.receipt()
        assert (push["final"], push["reason"], push["open"]) == (True, "reached", 0)
        (recipient,) = push["recipients"]
        assert (recipient["agent"], recipient["state"]) == (env.it.agent.id, "away")
        assert "last_seen" in recipient


@pytest.mark.promise("c12")
async def test_socket_that_began_after_the_message_was_not_sent_it(tmp_path: Path) -> None:
    async with receipt_env(tmp_path) as env, env.it.connected() as raw:
        it = env.it
        await raw.ask("unsubscribe", channel=it.channel.id)
        reply = await env.publish("delivered", receipt_s=0.5)
        await raw.ask("subscribe", channel=it.channel.id, **{"from": "new"})
        push = await env.final()
        assert push["recipients"] == [{"agent": it.agent.id, "state": "pending"}]
        assert reply["seq"] == push["seq"]


@pytest.mark.promise("c5")
async def test_moved_cursor_is_shown_as_skipped_and_not_as_acked(tmp_path: Path) -> None:
    async with receipt_env(tmp_path) as env:
        it = env.it
        await env.publish("acked")
        await env.states((it.agent.id, "away"))
        await it.services.cursor_moves.move(it.owner, it.channel.id, it.agent.id, "last")
        push = await env.states((it.agent.id, "skipped"))
        assert (push["final"], push["reason"]) == (True, "reached")


@pytest.mark.promise("c5")
async def test_expired_message_is_shown_as_expired_and_not_as_delivered(tmp_path: Path) -> None:
    async with receipt_env(tmp_path) as env:
        soon = (env.it.clock() + timedelta(seconds=0.5)).isoformat()
        await env.publish("acked", expires_at=soon)
        await env.states((env.it.agent.id, "away"))
        push = await env.states((env.it.agent.id, "expired"))
        assert (push["open"], push["final"], push["reason"]) == (0, True, "reached")


async def test_receipt_of_a_channel_without_recipients_and_of_a_live_one(tmp_path: Path) -> None:
    async with receipt_env(tmp_path) as env:
        it = env.it
        live = await it.services.channels.create(it.owner, name="live", type=ChannelType.LIVE)
        refused = await env.publisher.ask("publish", channel=live.id, data=1, receipt="acked")
        assert (refused["code"], "stores its messages" in refused["message"]) == ("invalid", True)
        await it.services.subscriptions.delete(it.owner, it.channel.id, it.agent.id)
        await env.publish("acked")
        push = await env.receipt()
        assert (push["recipients"], push["open"], push["final"], push["reason"]) == ([], 0, True, "reached")


@pytest.mark.parametrize(
    "wanted", [{"receipt": "read"}, {"receipt": "acked", "receipt_s": 0}, {"receipt": "acked", "receipt_s": 1e9}]
)
async def test_invalid_receipt_is_refused(tmp_path: Path, wanted: dict[str, object]) -> None:
    async with receipt_env(tmp_path) as env:
        assert (await env.publisher.ask("publish", channel=env.it.channel.id, data=1, **wanted))["code"] == "bad_command"


async def test_recipients_on_another_server_are_asked_there(tmp_path: Path) -> None:
    async with receipt_env(tmp_path) as env, asyncio.TaskGroup() as group, AsyncExitStack() as stack:
        it, agent = env.it, env.it.agent.id
        url, _ = await stack.enter_async_context(second_server(it, group))
        raw = await stack.enter_async_context(open_client(url))
        await raw.login(it.agent.tenant_id, it.agent.id, it.key)
        presence = it.services.fabric.tenant(it.agent.tenant_id).presence
        await until(lambda: presence.servers_of(it.agent.id) != [])

        reply = await env.publish("acked")
        await raw.messages(1)
        await env.states((agent, "delivered"))
        await raw.ack(it.channel.id, reply["seq"])  # In the memory of the other server: it is written much later.
        push = await env.states((agent, "acked"))
        assert push["reason"] == "reached"


@pytest.mark.promise("c5", "c9")
async def test_server_that_does_not_answer_makes_its_agents_unknown_and_nothing_acked(tmp_path: Path) -> None:
    async with receipt_env(tmp_path) as env, asyncio.TaskGroup() as group, second_server(env.it, group) as (url, there):
        it, agent = env.it, env.it.agent.id
        async with open_client(url) as raw:
            await raw.login(it.agent.tenant_id, it.agent.id, it.key)
            presence = it.services.fabric.tenant(it.agent.tenant_id).presence
            await until(lambda: presence.servers_of(it.agent.id) != [])
            # As after a kill: its connections to NATS end without a word, and its agents stay in the lease of its last update.
            there.fabric.tenant(it.agent.tenant_id).connection.close()
            await env.publish("acked", receipt_s=1.5)
            push = await env.final()
            assert (push["reason"], push["open"]) == ("deadline", 1)
            assert push["recipients"] == [{"agent": agent, "state": "unknown"}]


@pytest.mark.promise("c6", "c11")
async def test_page_of_receipts_is_for_members_and_the_sender(tmp_path: Path) -> None:
    async with receipt_env(tmp_path) as env, env.it.connected() as raw:
        it, receipts = env.it, env.it.services.message_receipts
        seqs = [(await env.publish())["seq"] for _ in range(2)]
        await raw.messages(2)
        await raw.ack(it.channel.id, seqs[0])
        late, _ = await new_agent(it, "late")
        await it.services.subscriptions.put(it.owner, it.channel.id, late.id)
        sender = AgentPrincipal(agent_id=env.publisher_id, tenant_id=it.owner.tenant_id, epoch=0)
        await until(lambda: it.services.cursors.has_unwritten(it.owner.tenant_id, it.agent.id))

        first, second = [(await receipts.list(it.owner, it.channel.id, seq)).items for seq in seqs]
        assert [(each.agent_id, each.state, each.cursor) for each in first] == [(it.agent.id, "acked", seqs[0])]
        assert [(each.state, each.cursor_age_s) for each in second] == [("delivered", 0)]
        assert (await receipts.list(sender, it.channel.id, seqs[1])).items[0].state == "delivered"
        with pytest.raises(Forbidden):
            await receipts.list(it.principal, it.channel.id, seqs[0])
        with pytest.raises(MessageNotFound):
            await receipts.list(it.owner, it.channel.id, 10**6)


@pytest.mark.promise("c8")
async def test_receipt_of_more_recipients_or_receipts_than_a_server_follows_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receipt_env(tmp_path) as env:
        for bound in ("recipients.MAX_RECIPIENTS", "receipts.MAX_OPEN"):
            with monkeypatch.context() as lowered:
                lowered.setattr(f"artcafe.services.{bound}", 0)
                await env.publish("acked")
                push = await env.final()
            assert (push["reason"], push["recipients"]) == ("too_many", []), bound


@pytest.mark.promise("c13")
async def test_agent_that_pulls_is_away_until_it_acknowledges(tmp_path: Path) -> None:
    async with receipt_env(tmp_path) as env:
        it, agent = env.it, env.it.agent.id
        seq = (await env.publish("acked"))["seq"]
        await env.states((agent, "away"))
        pulled = await it.services.pulls.pull(it.principal, agent, PullRequest.checked(), None)
        assert len(pulled.items) == 1
        (shown,) = (await it.services.message_receipts.list(it.owner, it.channel.id, seq)).items
        assert shown.state == "away"
        (outcome,) = await it.services.pulls.settle(it.principal, agent, [SettleEntry(ACK, it.channel.id, seq, None)], None)
        assert outcome.error is None
        push = await env.states((agent, "acked"))
        assert (push["final"], push["reason"]) == (True, "reached")
