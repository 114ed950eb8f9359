"""Dead letters and redrives: a message that fails moves once, and goes back once, whatever is repeated or in the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from artcafe.delivery import dead_letter_mover
from artcafe.errors import ChannelNotFound, Conflict, DeadLetterNotFound, Forbidden, Invalid
from artcafe.model import Channel, ChannelId, ChannelType, Role, UserId, UserPrincipal
from artcafe.services.dead_letters import DeadLetters, FailedMessage
from artcafe.services.delivery_states import DeliveryState
from artcafe.services.redrives import LetterStatus, RedriveRange
from artcafe.wire.envelopes import DeadLetterReason, Envelope, parse_envelope
from artcafe.wire.frames import Publish
from tests.gateway.gateway_app import GatewayApp, gateway_app
from tests.gateway.raw_client import BOUND_S, RawClient
from tests.gateway.test_queues import emptied, make_queue, next_of, pending, worker


async def letters_of(it: GatewayApp, channel: ChannelId | None) -> dict[int, Envelope]:
    """Return the messages of a channel by sequence."""
    assert channel is not None
    log = it.services.fabric.tenant(it.owner.tenant_id).log
    return {one.seq: parse_envelope(one.envelope) for one in await log.after(channel, 0)}


async def eventually(found: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Wait until a question to NATS has a true answer."""
    async with asyncio.timeout(BOUND_S):
        while not await found():  # noqa: ASYNC110 (NATS is asked)
            await asyncio.sleep(0.01)


async def has_letters(it: GatewayApp, queue: Channel, number: int) -> None:
    """Wait until the dead-letter channel has this many messages."""

    async def found() -> bool:
        return len(await letters_of(it, queue.dead_letter)) == number

    await eventually(found)


async def fail(raw: RawClient, queue: Channel, times: int) -> dict[str, Any]:
    """Take the next message this often, give it back each time, and return it."""
    for _ in range(times):
        message = await next_of(raw, queue)
        await raw.ask("nak", channel=queue.id, seq=message["seq"], delay_s=0)
    return message


async def work(raw: RawClient, queue: Channel, number: int, failing: set[int]) -> list[Any]:
    """Acknowledge this many messages, or give them back if their data is in `failing`. Return the data, sorted."""
    found = []
    for _ in range(number):
        message = await next_of(raw, queue)
        found.append(message["data"])
        if message["data"] in failing:
            await raw.ask("nak", channel=queue.id, seq=message["seq"], delay_s=0)
        else:
            await raw.ack(queue.id, message["seq"])
    return sorted(found)


@pytest.mark.promise("9b")
async def test_message_moves_after_its_last_delivery_and_is_sent_back_once(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        queue = await make_queue(it, max_deliveries=2)
        seq = await it.publish(b'{"poison": 1.50}', queue)
        async with worker(it, queue) as one:
            failed = await fail(one, queue, 2)
            assert (failed["seq"], failed["deliveries"]) == (seq, 2)
            await has_letters(it, queue, 1)
            await emptied(it, queue)
            ((at, letter),) = (await letters_of(it, queue.dead_letter)).items()
            assert letter.dead_letter is not None
            origin = letter.dead_letter
            assert (origin.channel, origin.seq, origin.message_id) == (queue.id, seq, failed["message_id"])
            assert (origin.reason, origin.deliveries) == (DeadLetterReason.MAX_DELIVERIES, 2)
            assert (letter.sender, letter.time, bytes(letter.data)) == (failed["from"], failed["time"], b'{"poison": 1.50}')
            assert letter.message_id != failed["message_id"]

            done = await it.services.redrives.redrive_one(it.owner, queue.id, at)
            assert [each.status for each in done.items] == [LetterStatus.REDRIVEN]
            back = await next_of(one, queue)
            assert (back["seq"], back["deliveries"], back["from"]) == (done.items[0].redriven_seq, 1, failed["from"])
            assert back["redriven"].items() >= {"channel": queue.dead_letter, "seq": at, "times": 1, "by": "usr:alice"}.items()
            assert "dead_letter" not in back
            for channel_id in (queue.id, queue.dead_letter):
                assert channel_id is not None
                again = await it.services.redrives.redrive_one(it.owner, channel_id, at)
                assert again.items[0].status is LetterStatus.REDRIVEN_BEFORE
                assert again.items[0].redriven_seq == back["seq"]
            await one.ask("nak", channel=queue.id, seq=back["seq"], delay_s=0)
            assert (await fail(one, queue, 1))["seq"] == back["seq"]
            await has_letters(it, queue, 2)
            second = list((await letters_of(it, queue.dead_letter)).values())[1]
            assert second.redriven is not None
            assert (second.redriven.times, second.dead_letter and second.dead_letter.seq) == (1, back["seq"])
        assert it.services.meter is not None
        await it.services.meter.catch_up(it.owner.tenant_id)
        recounted = await it.services.usage_recounts.recount(it.owner, None)
        assert (recounted.differences, recounted.is_whole) == ((), True)
        assert sum(each.counted_messages or 0 for each in recounted.compared) == 1, "the copies are not counted"
        entries = (await it.services.audit.list_any(it.owner.tenant_id)).items
        assert sum(each.entry.action == "channel.redrive" for each in entries) == 6


@pytest.mark.promise("9b")
async def test_letter_that_was_stored_before_a_crash_is_found_and_what_cannot_be_stored_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letter_mover, "RETRY_S", 0.05)
    async with gateway_app(tmp_path) as it:
        queue = await make_queue(it, max_deliveries=1)
        log = it.services.fabric.tenant(it.owner.tenant_id).log
        for number in range(3):
            await it.publish(b"%d" % number, queue)
        # A server stored the first letter, and died before it terminated the message.
        (first, *_) = await log.after(queue.id, 0)
        died = DeadLetters(it.services.store, it.services.fabric, it.clock)
        stored = FailedMessage(first.seq, first.envelope, DeadLetterReason.MAX_DELIVERIES, 1)
        assert await died.store(queue, [stored])
        async with worker(it, queue, max_unacked=3) as one:
            for _ in range(3):
                await fail(one, queue, 1)
            await has_letters(it, queue, 3)
            await emptied(it, queue)
            letters = list((await letters_of(it, queue.dead_letter)).values())
            assert [bytes(each.data) for each in letters] == [b"0", b"1", b"2"]

            # Without its dead-letter channel nothing is moved and nothing is lost.
            assert queue.dead_letter is not None
            tenant = it.services.store.tenant(it.owner.tenant_id)
            await tenant.transact([tenant.begin_channel_deletion(queue.dead_letter)])
            await it.publish(b"3", queue)
            await fail(one, queue, 1)
            for _ in range(3):
                await asyncio.sleep(0.06)
                assert await pending(it, queue) == 1
            other = await it.services.channels.create(it.owner, name="other letters")
            changed = await it.services.channels.update(it.owner, queue.id, dead_letter=other.id)
            assert changed.dead_letter == other.id
            await has_letters(it, changed, 1)
            await emptied(it, queue)


@pytest.mark.promise("9b")
async def test_two_operators_redrive_all_once_and_until_failure_stops_at_it(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        queue = await make_queue(it, max_deliveries=1)
        for number in range(240):
            await it.publish(b"%d" % number, queue)
        async with worker(it, queue, max_unacked=100) as one:
            for _ in range(240):
                await fail(one, queue, 1)
            await has_letters(it, queue, 240)
            redrives = it.services.redrives
            async with asyncio.TaskGroup() as group:
                runs = [group.create_task(redrives.redrive_all(it.owner, queue.id, RedriveRange())) for _ in range(4)]
            redriven = [each for run in runs for each in run.result().items if each.status is LetterStatus.REDRIVEN]
            assert len(redriven) == len({each.seq for each in redriven}) == 240
            assert all(not run.result().has_more for run in runs)
            assert await work(one, queue, 240, {7, 9, 11}) == list(range(240))
            await has_letters(it, queue, 243)
            await emptied(it, queue)

            wanted = RedriveRange(until_failure=True, wait_s=0)
            waiting = await redrives.redrive_all(it.owner, queue.id, wanted)
            assert [each.status for each in waiting.items] == [LetterStatus.WAITING]
            assert waiting.has_more
            message = await next_of(one, queue)
            assert message["data"] == 7
            await one.ack(queue.id, message["seq"])
            wanted = RedriveRange(until_failure=True, after=waiting.after, up_to=waiting.up_to)
            async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group:
                running = group.create_task(redrives.redrive_all(it.owner, queue.id, wanted))
                message = await next_of(one, queue)
                assert message["data"] == 9
                await one.ask("nak", channel=queue.id, seq=message["seq"], delay_s=0)
            result = running.result()
            assert [each.status for each in result.items] == [LetterStatus.DONE, LetterStatus.FAILED]
            assert not result.has_more
            rest = await redrives.redrive_all(it.owner, queue.id, RedriveRange())
            assert [each.status for each in rest.items] == [LetterStatus.REDRIVEN] * 2, "the third, and the one that failed again"


@pytest.mark.promise("9b", "e3")
async def test_rejected_and_expired_messages_move_with_their_reason_and_are_not_expired_after_a_redrive(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        queue = await make_queue(it)
        expires_at = it.clock() + timedelta(seconds=60)
        expiring = Publish(queue.id, Raw(b'"late"'), expires_at=expires_at.isoformat())
        late = await it.services.messaging.publish(it.owner, queue.id, expiring)
        async with worker(it, queue) as one:
            message = await next_of(one, queue)
            assert message["seq"] == late.seq
            await it.publish(b'"rejected"', queue)
            it.clock.ahead = timedelta(seconds=90)
            await one.ask("nak", channel=queue.id, seq=message["seq"], delay_s=0)
            message = await next_of(one, queue)
            assert message["data"] == "rejected"
            reply = await one.ask("nak", channel=queue.id, seq=message["seq"], dead=True)
            assert reply == {"channel": queue.id, "seq": message["seq"]}
            await one.ack(queue.id, message["seq"])
            assert (await one.next())["error"]["code"] == "not_held"
            await has_letters(it, queue, 2)
            await emptied(it, queue)
            letters = [each.dead_letter for each in (await letters_of(it, queue.dead_letter)).values()]
            found = {each.seq: (each.reason, each.deliveries) for each in letters if each is not None}
            assert found == {late.seq: (DeadLetterReason.EXPIRED, 1), message["seq"]: (DeadLetterReason.REJECTED, 1)}
            await it.services.redrives.redrive_all(it.owner, queue.id, RedriveRange())
            assert await work(one, queue, 2, set()) == ["late", "rejected"]


@pytest.mark.promise("9b")
async def test_rejected_message_that_cannot_be_stored_is_not_delivered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letter_mover, "RETRY_S", 0.05)
    async with gateway_app(tmp_path) as it:
        queue = await make_queue(it)
        await it.publish(b'"poison"', queue)
        async with worker(it, queue) as one:
            message = await next_of(one, queue)
            await it.set_limits(storage_bytes=100)
            await it.services.retention.sweep(it.services.fabric.tenant(it.owner.tenant_id))
            await one.ask("nak", channel=queue.id, seq=message["seq"], dead=True)
            await asyncio.sleep(0.3)
            assert await letters_of(it, queue.dead_letter) == {}
            await it.set_limits(storage_bytes=100_000)
            await it.services.retention.sweep(it.services.fabric.tenant(it.owner.tenant_id))
            await has_letters(it, queue, 1)
            await emptied(it, queue)
            await it.publish(b'"next"', queue)
            assert (await next_of(one, queue))["data"] == "next"
            (letter,) = (await letters_of(it, queue.dead_letter)).values()
            assert letter.dead_letter is not None
            assert (letter.dead_letter.reason, letter.dead_letter.deliveries) == (DeadLetterReason.REJECTED, 1)


async def test_redrive_refuses_what_has_no_dead_letters_and_who_may_not(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        channels, redrives = it.services.channels, it.services.redrives
        queue = await make_queue(it)
        assert queue.dead_letter is not None
        dead = await channels.get(it.owner, queue.dead_letter)
        with pytest.raises(Conflict):
            await redrives.redrive_all(it.owner, it.channel.id, RedriveRange())
        with pytest.raises(ChannelNotFound):
            await redrives.redrive_one(it.owner, "chn_unknown", 1)
        with pytest.raises(DeadLetterNotFound):
            await redrives.redrive_one(it.owner, queue.id, 1)
        seq = await it.publish(b"1", dead)
        with pytest.raises(DeadLetterNotFound):
            await redrives.redrive_one(it.owner, queue.id, seq)
        assert (await redrives.redrive_all(it.owner, dead.id, RedriveRange())).items == ()
        viewer = UserPrincipal(user_id=UserId("vera"), tenant_id=it.owner.tenant_id, role=Role.VIEWER)
        for refused in (viewer, it.principal):
            with pytest.raises(Forbidden):
                await redrives.redrive_all(refused, queue.id, RedriveRange())
        for wrong in (queue.id, (await channels.create(it.owner, name="now", type=ChannelType.LIVE)).id):
            with pytest.raises(Invalid):
                await channels.update(it.owner, queue.id, dead_letter=wrong)
        with pytest.raises(Invalid):
            await channels.update(it.owner, it.channel.id, dead_letter=dead.id)
        with pytest.raises(ChannelNotFound):
            await channels.update(it.owner, queue.id, dead_letter="chn_unknown")


async def test_dead_letter_channel_stays_while_a_queue_has_it_and_goes_with_its_own_queue(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        channels, queue = it.services.channels, await make_queue(it)
        assert queue.dead_letter is not None
        dead = await channels.get(it.owner, queue.dead_letter)
        assert (dead.name, dead.handle, dead.access.value) == (f"{queue.handle}.dead", f"{queue.handle}.dead", "managed")
        assert (dead.is_dead_letter, dead.dead_letter_of) == (True, queue.id)
        with pytest.raises(Conflict):
            await channels.delete(it.owner, dead.id)
        other = await channels.create(it.owner, name="other", type=ChannelType.QUEUE, dead_letter=dead.id)
        assert other.dead_letter == dead.id
        await channels.delete(it.owner, queue.id)
        assert (await channels.get(it.owner, dead.id)).id == dead.id, "another queue has it"
        await channels.delete(it.owner, other.id)
        assert (await channels.get(it.owner, dead.id)).id == dead.id, "it was not made with that queue"
        await channels.delete(it.owner, dead.id)
        third = await make_queue(it)
        assert third.dead_letter is not None
        row = await it.services.store.tenant(it.owner.tenant_id).tenant()
        assert row is not None
        await channels.delete(it.owner, third.id)
        with pytest.raises(ChannelNotFound):
            await channels.get(it.owner, third.dead_letter)
        after = await it.services.store.tenant(it.owner.tenant_id).tenant()
        assert after is not None
        assert row.channel_count - after.channel_count == 2


async def test_dead_letter_channel_goes_with_its_own_queue_though_that_names_another_since(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        channels, queue = it.services.channels, await make_queue(it)
        assert queue.dead_letter is not None
        another = await channels.create(it.owner, name="another")
        await channels.update(it.owner, queue.id, dead_letter=another.id)
        await channels.delete(it.owner, queue.id)
        with pytest.raises(ChannelNotFound):
            await channels.get(it.owner, queue.dead_letter)
        assert (await channels.get(it.owner, another.id)).id == another.id


@pytest.mark.promise("9b")
async def test_letter_of_an_expired_message_is_received_and_acknowledged_like_any_other(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        queue = await make_queue(it)
        assert queue.dead_letter is not None
        await it.services.subscriptions.put(it.owner, queue.dead_letter, it.agent.id)
        expires_at = it.clock() + timedelta(seconds=60)
        await it.services.messaging.publish(it.owner, queue.id, Publish(queue.id, Raw(b"1"), expires_at=expires_at.isoformat()))
        it.clock.ahead = timedelta(seconds=90)
        async with worker(it, queue) as one:
            letter = (await one.next())["message"]
            assert (letter["channel"], letter["dead_letter"]["reason"]) == (queue.dead_letter, "expired")
            await one.ack(queue.dead_letter, letter["seq"])

            async def is_acked() -> bool:
                (receipt,) = (await it.services.message_receipts.list(it.owner, queue.dead_letter or "", letter["seq"])).items
                return receipt.state is DeliveryState.ACKED

            await eventually(is_acked)
