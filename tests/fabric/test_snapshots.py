from __future__ import annotations

import asyncio
import random

import msgspec
import pytest

from artcafe.errors import LogRefused
from artcafe.fabric import snapshots
from artcafe.fabric.marked_copies import MarkedCopy, store_copies
from artcafe.fabric.marks import moved_after
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.queue_consumer import QueueConsumer
from artcafe.fabric.snapshots import AccountConnector, StreamSnapshot
from artcafe.fabric.tenant_log import CONTINUES, EPOCH, STREAM, StoredMessage, TenantLog
from artcafe.model import ChannelId, QueueSettings, Seq
from artcafe.rules import subjects
from tests.fabric.nats_env import A, B, Nats, Writer, a_tenant, within, writing
from tests.fabric.queue_consumers import put_ahead


async def saved(connection: NatsConnection) -> tuple[StreamSnapshot, list[bytes]]:
    pieces: list[bytes] = []
    return await within(snapshots.save(connection, STREAM, pieces.append)), pieces


async def every(log: TenantLog, channel: ChannelId) -> list[StoredMessage]:
    """Return the channel's messages, read a megabyte at a time."""
    found: list[StoredMessage] = []
    while more := await log.after(channel, found[-1].seq if found else 0):
        found += more
    return found


async def all_of(log: TenantLog) -> list[StoredMessage]:
    return [one for channel in (A, B) for one in await every(log, channel)]


async def fill(writer: Writer, count: int, size: int = 0) -> None:
    """Store incompressible messages in both channels."""
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            text = random.Random(number).randbytes(size).hex()
            group.create_task(publish(writer, f'"{text}"'.encode(), A if number % 2 else B))


async def publish(writer: Writer, data: bytes, channel: ChannelId) -> None:
    await writer.publish(data, channel=channel)


async def test_saved_log_is_restored_message_by_message_with_a_new_epoch(nats: Nats) -> None:
    tenant = a_tenant()
    async with nats.connection(tenant) as connection, writing(connection) as writer:
        await fill(writer, 200, 3000)
        await writer.log.purge(A, up_to=50)
        before, kept = await writer.log.state(), await all_of(writer.log)
        assert before is not None
        taken, pieces = await saved(connection)
        assert len(pieces) > 1
        assert (taken.name, taken.epoch, taken.messages, taken.last_seq) == (STREAM, before.epoch, before.messages, 200)
        await writer.log.drop()

        async with AccountConnector([nats.url], nats.accounts).connect(tenant) as there:
            await snapshots.restore(there, taken.as_continuation(), pieces)
        after = await writer.log.state()
        assert after is not None
        assert (after.messages, after.first_seq, after.last_seq) == (before.messages, before.first_seq, before.last_seq)
        assert (after.epoch != before.epoch, after.continues) == (True, {before.epoch: 200})
        assert await all_of(writer.log) == kept
        assert (await writer.publish(1)).seq == 201


async def test_snapshot_contains_the_log_at_its_beginning_during_writes_and_purges(nats: Nats) -> None:
    tenant = a_tenant()
    async with nats.connection(tenant) as connection, nats.connection(tenant) as other, writing(other) as writer:
        await fill(writer, 300, 4000)
        kept = await every(writer.log, B)
        pieces: list[bytes] = []
        meanwhile: list[asyncio.Task[None]] = []
        async with asyncio.TaskGroup() as group:

            def write(piece: bytes) -> None:
                pieces.append(piece)
                if len(pieces) == 2:
                    meanwhile.append(group.create_task(writer.log.purge(A, up_to=250)))
                    meanwhile.append(group.create_task(fill(writer, 300, 10)))

            taken = await within(snapshots.save(connection, STREAM, write))
        assert len(meanwhile) == 2
        await writer.log.drop()
        await snapshots.restore(connection, taken.as_continuation(), pieces)

        assert taken.last_seq == 300
        assert await every(writer.log, B) == kept
        found = [one.seq for one in await every(writer.log, A)]
        assert [seq for seq in found if seq > 250] == list(range(252, 301, 2))
        assert (await writer.publish(1)).seq == 301


async def test_restored_empty_log_keeps_its_last_sequence(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer:
        for number in range(5):
            await writer.publish(number)
        await writer.log.purge(A)
        taken, pieces = await saved(connection)
        await writer.log.drop()
        await snapshots.restore(connection, taken.as_continuation(), pieces)
        assert (await writer.publish(1)).seq == 6


async def test_damaged_snapshot_or_existing_stream_is_refused(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer:
        await fill(writer, 50, 3000)
        taken, pieces = await saved(connection)
        with pytest.raises(LogRefused, match="in use"):
            await snapshots.restore(connection, taken, pieces)
        await writer.log.drop()
        with pytest.raises(LogRefused):
            await snapshots.restore(connection, taken, [pieces[0][:-1000]])
        assert await writer.log.state() is None
        await snapshots.restore(connection, taken, pieces)
        assert len(await all_of(writer.log)) == 50


async def test_streams_are_listed_and_an_unknown_account_is_registered(nats: Nats) -> None:
    tenant = a_tenant()
    connector = AccountConnector([nats.url], nats.accounts)
    async with connector.connect(tenant) as connection:
        assert await snapshots.stream_names(connection) == []
        await TenantLog(connection).ensure()
        assert await snapshots.stream_names(connection) == [STREAM]
        with pytest.raises(LogRefused):
            await snapshots.save(connection, "none", lambda piece: None)
    async with connector.connect(None) as connection:
        assert STREAM not in await snapshots.stream_names(connection)


def log_of(epoch: str, last_seq: Seq, continues: str = "") -> StreamSnapshot:
    metadata = {EPOCH: epoch, CONTINUES: continues, "other": "kept"}
    return StreamSnapshot(
        {"name": STREAM, "subjects": [subjects.STORED], "metadata": metadata}, {"messages": 1, "last_seq": last_seq}
    )


def test_repeatedly_restored_log_knows_its_predecessors_up_to_the_shared_sequence() -> None:
    second = log_of("E1", 50, "E0:80 E00:20").as_continuation()
    assert second.epoch not in ("E1", None)
    assert second.config["metadata"][CONTINUES] == "E1:50 E0:50 E00:20"
    assert second.config["metadata"]["other"] == "kept"
    many = log_of("E", 9, " ".join(f"E{number}:9" for number in range(40))).as_continuation()
    assert many.config["metadata"][CONTINUES].split()[0] == "E:9"
    assert len(many.config["metadata"][CONTINUES].split()) == snapshots.MAX_CONTINUED


def test_stream_without_an_epoch_is_restored_unchanged() -> None:
    audit = StreamSnapshot({"name": "audit", "metadata": {}}, {"messages": 1, "last_seq": 9})
    assert audit.as_continuation() is audit


@pytest.mark.promise("8c")
async def test_queue_that_delivered_more_than_a_snapshot_has_is_rewound_by_its_restore(nats: Nats) -> None:
    """NATS reads the consumers after the messages, so that a backup of a queue in use may have such a consumer."""
    async with nats.connection(tenant := a_tenant()) as connection, writing(connection) as writer:
        await fill(writer, 4)
        await put_ahead(connection, 9)
        taken, pieces = await saved(connection)
        await writer.log.drop()
        async with AccountConnector([nats.url], nats.accounts).connect(tenant) as there:
            await snapshots.restore(there, taken.as_continuation(), pieces)
            info = await QueueConsumer(TenantLog(there), A).info()
            state = await TenantLog(there).state()
        assert info is not None
        assert state is not None
        assert (info["delivered"]["stream_seq"], info["ack_floor"]["stream_seq"]) == (4, 4)
        assert state.continues == {taken.epoch: 4}, "the restore begins the only new epoch"


@pytest.mark.promise("9b", "r5")
async def test_task_that_became_a_dead_letter_while_its_log_was_saved_comes_again_after_the_restore(nats: Nats) -> None:
    """NATS reads the consumers last: a snapshot may have a consumer that has ended the task, without the letter."""
    async with nats.connection(tenant := a_tenant()) as connection, writing(connection) as writer:
        for _ in range(4):
            await publish(writer, b"1", A)
        queue = QueueConsumer(writer.log, A)
        await queue.begin_after(4, QueueSettings())  # as if all four had ended
        taken, pieces = await saved(connection)
        assert taken.moved == {}
        for seq in (3, 2):  # stored after the messages of the snapshot had been read, and before the consumers were
            letter = MarkedCopy(subjects.stored(B), b"{}", subjects.dead_mark(A, seq), "msg_1", "artcafe", "")
            await store_copies(writer.log, [letter])
        assert (await saved(connection))[0].moved == {}, "such a snapshot has the letters"
        moved = await moved_after(writer.log, taken.last_seq)
        assert moved == {queue.name: 2}
        await writer.log.drop()

        async with AccountConnector([nats.url], nats.accounts).connect(tenant) as there:
            await snapshots.restore(there, msgspec.structs.replace(taken.as_continuation(), moved=moved), pieces)
            info = await QueueConsumer(TenantLog(there), A).info()
        assert info is not None
        assert (info["ack_floor"]["stream_seq"], info["num_pending"]) == (1, 3)
