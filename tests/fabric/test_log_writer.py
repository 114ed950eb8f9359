from __future__ import annotations

import asyncio

import pytest
from msgspec import Raw

from artcafe.errors import ArtcafeError, KeyReused, NotStored, OutcomeUnknown, QuotaFull
from artcafe.fabric.log_writer import BATCH_MESSAGES, RESERVED_PER_SENDER, SMALL_GROUP, LogWriter
from artcafe.fabric.tenant_log import TenantLog
from artcafe.rules import subjects
from artcafe.rules.subjects import Subject
from artcafe.wire.envelopes import envelope
from artcafe.wire.frames import Publish
from artcafe.wire.replies import PublishReply
from tests.fabric.nats_env import A, B, Nats, Writer, a_tenant, until, within, writing


async def outcome(done: asyncio.Future[PublishReply]) -> PublishReply | ArtcafeError:
    try:
        return await within(done)
    except ArtcafeError as error:
        return error


async def seqs(waiting: list[asyncio.Future[PublishReply]]) -> list[int]:
    return [(await within(one)).seq or 0 for one in waiting]


async def test_stored_message_is_answered_with_its_sequence(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer:
        first = await writer.publish(b'{"n":1}')
        second = await writer.publish(b'{"n":2}', key="k")

        assert (first.seq, first.duplicate, second.seq, second.duplicate) == (1, False, 2, False)
        assert await writer.stored() == [b'{"n":1}', b'{"n":2}']


@pytest.mark.promise("4b")
async def test_messages_that_wait_together_keep_their_order(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer:
        waiting = [writer.submit(number, channel=A if number % 3 else B) for number in range(2 * BATCH_MESSAGES + 100)]

        assert await seqs(waiting) == list(range(1, len(waiting) + 1))
        assert await writer.stored(B) == [b"%d" % number for number in range(0, len(waiting), 3)]


async def test_large_batch_is_split_into_several_in_order(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer:
        waiting = [writer.submit(b'"%b"' % (b"x" * 60_000)) for _ in range(150)]

        assert await seqs(waiting) == list(range(1, 151))


@pytest.mark.promise("3a")
async def test_equal_keys_that_wait_together_are_stored_once(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer:
        first, duplicate, other, elsewhere = (
            writer.submit(b'{"a":1,"b":2}', "k"),
            writer.submit(b'{"b":2, "a":1}', "k"),
            writer.submit(b'{"a":2}', "k"),
            writer.submit(b'{"a":2}', "k", B),
        )

        stored = await within(first)
        assert stored.duplicate is False
        assert await within(duplicate) == PublishReply(stored.seq, stored.message_id, duplicate=True)
        assert isinstance(await outcome(other), KeyReused)
        assert (await within(elsewhere)).duplicate is False
        assert await writer.stored() == [b'{"a":1,"b":2}']


async def test_key_of_a_stored_message_is_found_without_storing_anything(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer:
        assert await repeat_of(writer, b"1", "k") is None  # the log does not exist yet
        first = await writer.publish(b"1", "k")
        await writer.publish(b"2", "other")

        found = await repeat_of(writer, b"1", "k")
        assert found is not None
        assert await within(found) == PublishReply(first.seq, first.message_id, duplicate=True)
        other_content = await repeat_of(writer, b"3", "k")
        assert other_content is not None
        assert isinstance(await outcome(other_content), KeyReused)
        assert await repeat_of(writer, b"1", "unused") is None
        assert await writer.stored() == [b"1", b"2"]
        assert (await writer.publish(b"3", "unused")).duplicate is False


async def repeat_of(writer: Writer, data: bytes, key: str) -> asyncio.Future[PublishReply] | None:
    stored = envelope(Publish(A, Raw(data)), message_id="msg_new", sender="agt_1", time="now")
    return await writer.log_writer.find_repeat(subjects.stored(A), stored, "msg_new", subjects.dedupe_id(A, "agt_1", key))


@pytest.mark.promise("3a")
async def test_repeated_key_is_answered_with_the_first_message(nats: Nats) -> None:
    tenant = a_tenant()
    async with (
        nats.connection(tenant) as connection,
        nats.connection(tenant) as other,
        writing(connection) as here,
        writing(other) as there,
    ):
        first = await here.publish(b"[1]", "k", headers={"h": "1"})

        for writer in (here, there):
            again = await writer.publish(b"[ 1 ]", "k", headers={"h": "1"})
            assert again == PublishReply(first.seq, first.message_id, duplicate=True)
            with pytest.raises(KeyReused):
                await writer.publish(b"[1]", "k", headers={"h": "2"})
        assert await here.stored() == [b"[1]"]


@pytest.mark.parametrize(("first", "second"), [(b"1", b"1.0"), (b"1", b"true"), (b"1e999", b"1e998"), (b"1" * 5000, b"2" * 5000)])
async def test_other_content_under_a_used_key_is_refused_without_affecting_others(
    nats: Nats, first: bytes, second: bytes
) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer:
        await writer.publish(first, "k")

        with pytest.raises(KeyReused):
            await writer.publish(second, "k")
        together = [writer.submit(second, "k"), writer.submit(second, "j"), writer.submit(first, "j")]

        assert [type(await outcome(one)) for one in together] == [KeyReused, PublishReply, KeyReused]
        assert (await writer.publish(first, "k")).duplicate


async def test_repeat_in_a_batch_is_detected_and_the_others_are_stored_in_order(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer:
        repeated = [await writer.publish(-1, "k1"), await writer.publish(-2, "k2")]

        waiting = [writer.submit(number, f"new{number}" if number % 2 else None) for number in range(100)]
        again = [writer.submit(-1, "k1"), writer.submit(-2, "k2")]
        waiting += [writer.submit(number) for number in range(100, 130)]

        assert await seqs(waiting) == sorted(await seqs(waiting))
        assert [await within(one) for one in again] == [PublishReply(one.seq, one.message_id, duplicate=True) for one in repeated]
        assert await writer.stored() == [b"-1", b"-2", *(b"%d" % number for number in range(130))]


async def test_repeat_of_a_removed_message_is_answered_with_the_sequence_only(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer:
        first = await writer.publish(1, "k")
        await writer.log.purge(A)

        assert await writer.publish(1, "k") == PublishReply(first.seq, None, duplicate=True)
        assert await writer.stored() == []


@pytest.mark.promise("8d")
async def test_full_log_refuses_messages_and_removes_none(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection, max_bytes=20_000) as writer:
        waiting = [writer.submit(b'"%04d%b"' % (number, b"x" * 1000)) for number in range(40)]
        outcomes = [await outcome(one) for one in waiting]

        stored = [one.seq for one in outcomes if isinstance(one, PublishReply)]
        assert 10 < len(stored) < 20
        assert stored == list(range(1, len(stored) + 1))
        assert {type(one) for one in outcomes[len(stored) :]} == {QuotaFull}
        assert len(await writer.stored()) == len(stored)
        with pytest.raises(QuotaFull):
            await writer.publish(b'"%b"' % (b"x" * 1000))


@pytest.mark.promise("2b")
async def test_lost_answer_leaves_the_outcome_unknown_without_a_key(nats: Nats) -> None:
    tenant = a_tenant()
    async with nats.proxy() as proxy, nats.connection(tenant, proxy.url) as connection, writing(connection) as writer:
        await writer.publish(b'"begin"')
        proxy.is_mute = True
        waiting = [writer.submit(number, f"k{number}" if number % 2 else None) for number in range(20)]
        await until(lambda: proxy.lost_bytes > 0)
        proxy.cut()
        proxy.is_mute = False
        outcomes = [await outcome(one) for one in waiting]

        assert [type(one) for one in outcomes[::2]] == [OutcomeUnknown] * 10
        assert [one.duplicate for one in outcomes[1::2] if isinstance(one, PublishReply)] == [True] * 10
        assert [one.seq for one in outcomes[1::2] if isinstance(one, PublishReply)] == list(range(3, 22, 2))
        assert await writer.stored() == [b'"begin"', *(b"%d" % number for number in range(20))]


@pytest.mark.promise("2b", "2c")
async def test_small_group_with_lost_answers_retries_keyed_messages_only(nats: Nats) -> None:
    async with nats.proxy() as proxy, nats.connection(a_tenant(), proxy.url) as connection, writing(connection) as writer:
        await writer.publish(b'"begin"')
        proxy.is_mute = True
        waiting = [writer.submit(number, f"k{number}" if number % 2 else None) for number in range(SMALL_GROUP)]
        await until(lambda: proxy.lost_bytes > 0)
        proxy.cut()
        proxy.is_mute = False
        outcomes = [await outcome(one) for one in waiting]

        assert [type(one) for one in outcomes[::2]] == [OutcomeUnknown] * (SMALL_GROUP // 2)
        assert [one.seq for one in outcomes[1::2] if isinstance(one, PublishReply)] == list(range(3, SMALL_GROUP + 2, 2))
        assert await writer.stored() == [b'"begin"', *(b"%d" % number for number in range(SMALL_GROUP))]


async def test_oversized_message_in_a_small_group_does_not_affect_others(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection, max_bytes=5_000) as writer:
        waiting = [writer.submit(b'"%b"' % (b"x" * size)) for size in (10, 9_000, 11)]

        assert [type(await outcome(one)) for one in waiting] == [PublishReply, QuotaFull, PublishReply]
        assert [len(data) for data in await writer.stored()] == [12, 13]


@pytest.mark.promise("4b")
async def test_message_before_a_stored_one_is_not_retried(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer:
        waiting = [writer.submit(1), writer.log_writer.submit(Subject("nowhere"), b"{}", "msg_x", "key"), writer.submit(2)]

        assert [type(await outcome(one)) for one in waiting] == [PublishReply, OutcomeUnknown, PublishReply]
        assert await writer.stored() == [b"1", b"2"]


@pytest.mark.promise("2a")
async def test_message_that_was_sent_never_ends_as_not_stored(nats: Nats) -> None:
    tenant = a_tenant()
    async with (
        nats.proxy() as proxy,
        nats.connection(tenant, proxy.url) as connection,
        writing(connection, timeout_s=0.5) as writer,
    ):
        await writer.publish(b'"begin"')
        proxy.is_mute = True
        sent = [writer.submit(1, "k"), writer.submit(1, "k"), writer.submit(2, "j")]
        await until(lambda: proxy.lost_bytes > 0)
        proxy.is_open = False
        proxy.cut()
        unsent = writer.submit(3, "i")

        assert [type(await outcome(one)) for one in sent] == [OutcomeUnknown] * 3
        assert isinstance(await outcome(unsent), NotStored)
        async with nats.connection(tenant) as other, writing(other) as reading:
            assert await reading.stored() == [b'"begin"', b"1", b"2"]


async def test_messages_wait_while_nats_is_down_and_are_stored_afterwards(nats: Nats) -> None:
    async with nats.proxy() as proxy, nats.connection(a_tenant(), proxy.url) as connection, writing(connection) as writer:
        proxy.is_open = False
        proxy.cut()
        await until(lambda: not connection.is_up)
        waiting = [writer.submit(number) for number in range(10)]
        proxy.is_open = True

        assert await seqs(waiting) == list(range(1, 11))


async def test_full_queue_refuses_further_messages_at_once(nats: Nats) -> None:
    async with nats.proxy() as proxy, nats.connection(a_tenant(), proxy.url) as connection:
        proxy.is_open = False
        proxy.cut()
        await until(lambda: not connection.is_up)
        async with writing(connection, max_messages=3) as writer:
            waiting = [writer.submit(number) for number in range(3)]

            assert isinstance(await outcome(writer.submit(3)), NotStored)
            proxy.is_open = True
            assert await seqs(waiting) == [1, 2, 3]
            assert (await writer.publish(4)).seq == 4


async def test_writer_that_ends_gives_every_message_an_outcome(nats: Nats) -> None:
    async with nats.proxy() as proxy, nats.connection(a_tenant(), proxy.url) as connection:
        async with writing(connection) as writer:
            await writer.publish(b'"begin"')
            proxy.is_mute = True
            flying = writer.submit(1)
            await until(lambda: proxy.lost_bytes > 0)
            waiting = writer.submit(2)
        late = writer.submit(3)

        assert [type(await outcome(one)) for one in (flying, waiting, late)] == [OutcomeUnknown, NotStored, NotStored]


async def test_dropped_log_is_created_again_by_the_next_message(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer:
        await writer.publish(1, "k")
        first = writer.log.epoch
        await writer.log.drop()

        assert (await writer.publish(2, "k")).seq == 1
        assert writer.log.epoch not in {first, None}


async def test_senders_take_turns_in_a_group_and_keep_their_order(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection:
        log_writer = LogWriter(TenantLog(connection), max_group=lambda: 64)
        done = [log_writer.submit(subjects.stored(A), b"%d" % number, f"msg_{number}", None, "busy") for number in range(300)]
        quiet = [log_writer.submit(subjects.stored(A), b"%d" % number, f"msg_q{number}", None, "quiet") for number in range(3)]
        async with asyncio.TaskGroup() as group:
            running = group.create_task(log_writer.run())
            first, stored = await seqs(quiet), await seqs(done)
            running.cancel()
        assert max(first) <= 64
        assert (first, stored) == (sorted(first), sorted(stored))


async def test_full_queue_refuses_only_the_sender_that_filled_it(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection:
        log_writer = LogWriter(TenantLog(connection), max_messages=100)
        taken = [log_writer.submit(subjects.stored(A), b"1", "msg", None, "busy") for _ in range(200)]
        assert sum(one.done() for one in taken) == 100
        quiet = [log_writer.submit(subjects.stored(A), b"1", "msg", None, "quiet") for _ in range(2 * RESERVED_PER_SENDER)]
        assert [one.done() for one in quiet] == [False] * RESERVED_PER_SENDER + [True] * RESERVED_PER_SENDER
        log_writer.close()
        for one in (*taken, *quiet):
            assert isinstance(one.exception(), NotStored)
