"""What a publisher learns of a message of a queue: who holds it, who has acknowledged it, and why it is a dead letter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from artcafe.assembly import Services
from artcafe.delivery import recent_acks
from artcafe.delivery.pull import PullRequest
from artcafe.delivery.pull_holds import ACK
from artcafe.delivery.pull_settling import SettleEntry
from artcafe.errors import Forbidden
from artcafe.model import AgentPrincipal, Channel, Epoch
from artcafe.services.message_receipts import MessageReceipt
from artcafe.services.redrives import RedriveRange
from artcafe.wire.frames import Publish
from tests.gateway.gateway_app import until
from tests.gateway.raw_client import RawClient, open_client
from tests.gateway.test_dead_letters import eventually
from tests.gateway.test_queues import make_queue, next_of, worker
from tests.gateway.test_receipts import ReceiptEnv, receipt_env, second_server


class QueueReceiptEnv:
    """A publisher, a queue, and the receipts of its messages."""

    def __init__(self, env: ReceiptEnv, queue: Channel) -> None:
        self.env, self.it, self.queue = env, env.it, queue

    async def publish(self, receipt: str | None = "acked", receipt_s: float = 30.0, data: object = 1, **more: object) -> int:
        """Publish a message, and return its sequence."""
        wanted = {} if receipt is None else {"receipt": receipt, "receipt_s": receipt_s}
        reply = await self.env.publisher.ask("publish", channel=self.queue.id, data=data, **wanted, **more)
        seq: int = reply["seq"]
        return seq

    async def next_state(self) -> tuple[object, ...]:
        """Return the next push as its agent, state and reason, and why it is the final one."""
        push = await self.env.receipt()
        assert push["queue"], push
        (one,) = push["recipients"]
        return one["agent"], one["state"], one.get("reason"), push["reason"]

    async def state(self, *expected: object) -> None:
        """Wait for the push of a state. Those before it are of earlier states, and none of them is final."""
        while (found := await self.next_state()) != expected:
            assert found[3] is None, found

    async def shown(self, seq: int) -> MessageReceipt:
        """Return what is shown over REST."""
        (one,) = (await self.it.services.message_receipts.list(self.it.owner, self.queue.id, seq)).items
        return one

    async def has(self, seq: int, *expected: object) -> None:
        """Wait until REST shows this agent, state and reason."""

        async def found() -> bool:
            one = await self.shown(seq)
            return (one.agent_id, one.state, one.reason) == expected

        await eventually(found)

    @asynccontextmanager
    async def worker_at(self, url: str) -> AsyncIterator[RawClient]:
        """Connect the agent to a server, and subscribe to the queue there."""
        async with open_client(url) as raw:
            await raw.ask("connect", access_token=self.it.token())
            await raw.ask("subscribe", channel=self.queue.id)
            yield raw


@asynccontextmanager
async def queue_env(folder: Path, **settings: Any) -> AsyncIterator[QueueReceiptEnv]:
    async with receipt_env(folder) as env:
        yield QueueReceiptEnv(env, await make_queue(env.it, **settings))


@asynccontextmanager
async def two_servers(folder: Path, **settings: Any) -> AsyncIterator[tuple[QueueReceiptEnv, str, Services]]:
    """Run a second server too, which both know of."""
    async with (
        queue_env(folder, **settings) as env,
        asyncio.TaskGroup() as group,
        second_server(env.it, group) as (url, there),
    ):
        await until(lambda: len(env.it.services.fabric.announcements.peers()) == 1)
        yield env, url, there


@pytest.mark.promise("c14", "c16")
async def test_receipt_follows_a_message_from_pending_to_its_holders_and_to_the_ack(tmp_path: Path) -> None:
    async with queue_env(tmp_path) as env:
        agent = env.it.agent.id
        seq = await env.publish()
        assert await env.next_state() == (None, "pending", None, None)
        async with worker(env.it, env.queue) as one:
            assert (await next_of(one, env.queue))["seq"] == seq
            assert await env.next_state() == (agent, "delivered", None, None)
            await one.ask("nak", channel=env.queue.id, seq=seq, delay_s=1)
            await env.state(None, "pending", None, None)
            assert (await next_of(one, env.queue))["seq"] == seq
            await env.state(agent, "delivered", None, None)
            assert (await env.shown(seq))[:2] == (agent, "delivered")
            await one.ack(env.queue.id, seq)
            assert await env.next_state() == (agent, "acked", None, "reached")
        assert await env.shown(seq) == MessageReceipt(agent, (await env.shown(seq)).state)
        assert (await env.shown(seq)).state == "acked", "the agent is known after the last holder has left"


@pytest.mark.promise("c7", "c16")
async def test_delivered_ends_with_the_first_holder_and_stored_is_one_push(tmp_path: Path) -> None:
    async with queue_env(tmp_path) as env:
        await env.publish("stored")
        assert await env.next_state() == (None, "pending", None, "reached")
        async with worker(env.it, env.queue) as one:
            held = await next_of(one, env.queue)
            await one.ack(env.queue.id, held["seq"])
            await env.publish("delivered")
            await env.state(env.it.agent.id, "delivered", None, "reached")
            await next_of(one, env.queue)


@pytest.mark.promise("c8")
async def test_receipt_ends_when_the_queue_is_deleted(tmp_path: Path) -> None:
    async with queue_env(tmp_path) as env:
        await env.publish()
        assert await env.next_state() == (None, "pending", None, None)
        await env.it.services.channels.delete(env.it.owner, env.queue.id)
        push = await env.env.receipt()
        assert (push["recipients"], push["final"], push["reason"]) == ([], True, "unavailable")


@pytest.mark.promise("c8", "c9", "c15")
async def test_final_push_of_a_message_that_is_held_claims_no_ack(tmp_path: Path) -> None:
    async with queue_env(tmp_path) as env, worker(env.it, env.queue) as one:
        seq = await env.publish(receipt_s=1)
        assert (await next_of(one, env.queue))["seq"] == seq
        await env.state(env.it.agent.id, "delivered", None, "deadline")


@pytest.mark.promise("c14", "c15", "c17")
async def test_dead_letters_have_their_reasons_and_a_redriven_message_is_a_new_one(tmp_path: Path) -> None:
    async with queue_env(tmp_path, max_deliveries=1) as env:
        it, queue = env.it, env.queue
        async with worker(it, queue) as one:
            failed = await env.publish()
            assert (await next_of(one, queue))["seq"] == failed
            await one.ask("nak", channel=queue.id, seq=failed, delay_s=0)
            await env.state(None, "dead_lettered", "max_deliveries", "reached")
            rejected = await env.publish()
            assert (await next_of(one, queue))["seq"] == rejected
            await one.ask("nak", channel=queue.id, seq=rejected, dead=True)
            await env.state(None, "dead_lettered", "rejected", "reached")
            done = await it.services.redrives.redrive_all(it.owner, queue.id, RedriveRange())
            again = done.items[0].redriven_seq
            assert again is not None
            assert (await next_of(one, queue))["seq"] == again
            await env.has(again, it.agent.id, "delivered", None)
            await one.ack(queue.id, again)
            await env.has(again, it.agent.id, "acked", None)
        await env.has(failed, None, "dead_lettered", "max_deliveries")
        assert queue.dead_letter is not None
        await it.services.fabric.tenant(it.owner.tenant_id).log.purge(queue.dead_letter)
        await env.has(failed, None, "dead_lettered", None)


@pytest.mark.promise("c14", "c15")
async def test_message_expires_before_its_first_delivery_and_as_a_dead_letter_after_it(tmp_path: Path) -> None:
    async with queue_env(tmp_path) as env:
        it, queue = env.it, env.queue
        late = (it.clock() + timedelta(seconds=60)).isoformat()
        held = await it.services.messaging.publish(it.owner, queue.id, Publish(queue.id, msgspec.Raw(b"1"), expires_at=late))
        never = await env.publish(expires_at=late)
        assert held.seq is not None
        async with worker(it, queue) as one:
            assert (await next_of(one, queue))["seq"] == held.seq
            await env.state(None, "pending", None, None)
            it.clock.ahead = timedelta(seconds=90)
            await env.state(None, "expired", None, "reached")
            await env.has(held.seq, it.agent.id, "delivered", None)
            await one.ask("nak", channel=queue.id, seq=held.seq, delay_s=0)
            await env.has(held.seq, None, "expired", "expired")
            await env.has(never, None, "expired", "expired")


@pytest.mark.promise("c14", "c15")
async def test_ack_that_no_server_remembers_is_shown_once_nothing_before_it_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with queue_env(tmp_path) as env, worker(env.it, env.queue, max_unacked=3) as one:
        queue = env.queue
        seqs = [await env.publish(None) for _ in range(3)]
        for _ in seqs:
            await next_of(one, queue)
        monkeypatch.setattr(recent_acks.RecentAcks, "note", lambda *_: None)
        await one.ack(queue.id, seqs[1])
        await env.has(seqs[1], None, "pending", None)
        await one.ack(queue.id, seqs[0])
        await env.has(seqs[1], None, "acked", None)
        await env.has(seqs[2], env.it.agent.id, "delivered", None)
        # What retention removes is neither acknowledged nor known.
        log = env.it.services.fabric.tenant(env.it.owner.tenant_id).log
        outcomes = env.it.services.message_receipts._queue_outcomes
        state = await log.state()
        assert state is not None
        await log.purge(queue.id, up_to=seqs[1])
        found = await outcomes.look(env.it.owner.tenant_id, state.epoch, {queue.id: {seqs[0]: None}})
        assert found[queue.id, seqs[0]].state == "unknown"


@pytest.mark.promise("c15b")
async def test_ack_of_a_message_with_a_key_is_shown_though_no_server_remembers_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with queue_env(tmp_path, key_ordered=True) as env, worker(env.it, env.queue, max_unacked=3) as one:
        queue = env.queue
        first, second, third = [await env.publish(None, headers={"partition": key}) for key in ("a", "b", "b")]
        for expected in (first, second):
            assert (await next_of(one, queue))["seq"] == expected
        monkeypatch.setattr(recent_acks.RecentAcks, "note", lambda *_: None)
        await one.ack(queue.id, second)
        assert (await next_of(one, queue))["seq"] == third
        await env.has(second, None, "acked", None)
        await env.has(first, env.it.agent.id, "delivered", None)
        # Dead letters have marks of another kind.
        await one.ask("nak", channel=queue.id, seq=third, dead=True)
        await env.has(third, None, "dead_lettered", "rejected")
        await env.has(second, None, "acked", None)


@pytest.mark.promise("c14")
async def test_other_server_tells_who_holds_a_message_and_who_acknowledged_it(tmp_path: Path) -> None:
    async with two_servers(tmp_path) as (env, url, _), AsyncExitStack() as stack:
        agent = env.it.agent.id
        raw = await stack.enter_async_context(env.worker_at(url))
        first, second = await env.publish(None), await env.publish()
        assert (await next_of(raw, env.queue))["seq"] == first
        await env.has(first, agent, "delivered", None)
        assert await env.next_state() == (None, "pending", None, None)
        await raw.ack(env.queue.id, first)
        assert (await next_of(raw, env.queue))["seq"] == second
        await env.state(agent, "delivered", None, None)
        await raw.ack(env.queue.id, second)
        await env.state(agent, "acked", None, "reached")
        await env.has(first, agent, "acked", None)


@pytest.mark.promise("c14", "c15")
async def test_server_that_does_not_answer_leaves_its_messages_unknown_and_a_dead_one_open(tmp_path: Path) -> None:
    async with two_servers(tmp_path) as (env, url, there), env.worker_at(url) as raw:
        exchange = there.fabric.tenant(env.it.owner.tenant_id).outcomes
        seq = await env.publish()
        assert (await next_of(raw, env.queue))["seq"] == seq
        await env.state(env.it.agent.id, "delivered", None, None)
        await raw.ask("extend", channel=env.queue.id, seq=seq)

        def stop(_: object) -> tuple[()]:
            raise AssertionError("stopped")

        exchange.read = stop
        await env.state(None, "unknown", None, None)
        # As after a kill: its connections end without a word, with the only memory of who holds the message.
        there.fabric.tenant(env.it.owner.tenant_id).connection.close()
        await env.state(None, "pending", None, None)


@pytest.mark.promise("c14")
async def test_pulled_message_is_held_by_its_agent_until_an_ack_at_any_server(tmp_path: Path) -> None:
    async with queue_env(tmp_path) as env, asyncio.TaskGroup() as group:
        it, agent = env.it, env.it.agent.id
        await it.services.subscriptions.put(it.owner, env.queue.id, agent)
        async with second_server(it, group) as (_, there):
            await until(lambda: len(it.services.fabric.announcements.peers()) == 1)
            seq = await env.publish()
            pulled = await there.pulls.pull(it.principal, agent, PullRequest.checked(channel=env.queue.id), None)
            (item,) = map(msgspec.json.decode, pulled.items)
            await env.state(agent, "delivered", None, None)
            await there.queue_hub.close()
        # The server that pulled it has ended, and any other takes its ack.
        entry = SettleEntry(ACK, env.queue.id, seq, item["receipt"])
        (outcome,) = await it.services.pulls.settle(it.principal, agent, [entry], None)
        assert outcome.error is None
        await env.state(agent, "acked", None, "reached")


async def test_receipts_of_a_queue_are_for_members_and_the_sender(tmp_path: Path) -> None:
    async with queue_env(tmp_path) as env:
        it, receipts = env.it, env.it.services.message_receipts
        seq = await env.publish(None)
        sender = AgentPrincipal(agent_id=env.env.publisher_id, tenant_id=it.owner.tenant_id, epoch=0)
        assert [each.state for each in (await receipts.list(sender, env.queue.id, seq)).items] == ["pending"]
        with pytest.raises(Forbidden):
            await receipts.list(it.principal, env.queue.id, seq)


async def test_acks_are_remembered_for_as_long_as_somebody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    acks, e0, e1, e2 = recent_acks.RecentAcks(), Epoch("e0"), Epoch("e1"), Epoch("e2")
    assert acks.find([1, 2], e1) == {}
    acks.note(1, "agt_a", e1)
    for seq in range(100, 100 + recent_acks.MOST):
        acks.note(seq, "agt_b", e1)
    acks.note(2, "agt_c", e0)
    assert acks.find([1, 2, 100, 101], e1) == {1: "agt_a", 101: "agt_b"}
    assert acks.find([1, 2], e2) == {}, "another log has other messages"
    monkeypatch.setattr(recent_acks, "KEEP_S", -1.0)
    acks.note(2, "agt_d", e2)
    for seq in range(300, 300 + recent_acks.MOST):
        acks.note(seq, "agt_b", e2)
    assert acks.find([2], e2) == {}
