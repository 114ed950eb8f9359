"""The server's spans, recorded by OpenTelemetry's SDK: their parents, links and attributes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pytest
from msgspec import Raw
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, DEFAULT_ON, ParentBased, Sampler
from opentelemetry.trace import StatusCode

from artcafe.delivery.pull import PullRequest
from artcafe.delivery.pull_settling import SettleEntry
from artcafe.errors import KeyReused
from artcafe.model import ChannelType
from artcafe.observe.tracing import MAX_LINKS, Tracing
from artcafe.wire.frames import Publish
from artcafe.wire.trace_context import TraceParent, format_traceparent
from tests.gateway.gateway_app import GatewayApp, gateway_app, until

PARENT = TraceParent(0xABC, 0xDEF, 1)
UNSAMPLED = TraceParent(0xABC, 0xDEF, 0)


class Recorder:
    """A tracer provider and the spans it has recorded."""

    def __init__(self, sampler: Sampler = DEFAULT_ON, *, is_continuing: bool = False) -> None:
        self._spans = InMemorySpanExporter()
        self._provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.tracing = Tracing(self._provider.get_tracer("test"), is_continuing=is_continuing)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._spans.get_finished_spans() if span.name == name]

    def all(self) -> list[ReadableSpan]:
        return list(self._spans.get_finished_spans())

    async def one(self, name: str) -> ReadableSpan:
        """Wait for the only span of this name."""
        await until(lambda: bool(self.named(name)))
        (found,) = self.named(name)
        return found


def traced(it: GatewayApp, data: bytes = b"1", parent: TraceParent = PARENT, **more: str) -> Publish:
    return Publish(it.channel.id, Raw(data), headers={"traceparent": format_traceparent(parent), **more})


def links(span: ReadableSpan) -> list[TraceParent]:
    return [TraceParent(each.context.trace_id, each.context.span_id, each.context.trace_flags) for each in span.links]


def parents(span: ReadableSpan) -> tuple[int, int] | None:
    return None if span.parent is None else (span.parent.trace_id, span.parent.span_id)


def ids(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


async def test_message_is_followed_from_publish_to_ack(tmp_path: Path) -> None:
    record = Recorder()
    async with gateway_app(tmp_path, tracing=record.tracing) as it, it.connected() as raw:
        await it.caught_up()
        reply = await raw.ask("publish", channel=it.channel.id, data={"secret": 1}, headers=traced(it).headers)
        await raw.message()
        await raw.ack(it.channel.id, reply["seq"])
        publish, store, deliver, ack = [await record.one(name) for name in ("publish", "store", "deliver", "ack")]

    assert (parents(publish), links(publish)) == (None, [PARENT])
    assert (parents(store), links(store)) == (ids(publish), [])
    assert (parents(deliver), links(deliver)) == (None, [PARENT])
    assert (parents(ack), links(ack)) == (None, [PARENT])
    common = {"messaging.system": "artcafe", "artcafe.tenant.id": it.owner.tenant_id}
    where = {"messaging.destination.name": it.channel.id}
    who = {"messaging.client.id": it.agent.id}
    assert [dict(span.attributes or {}) for span in (publish, store, deliver, ack)] == [
        {**common, **where, **who, **operation("publish", "send"), "messaging.message.id": reply["message_id"]},
        {**common, **operation("store", "send")},
        {**common, **where, **operation("deliver", "send"), "messaging.batch.message_count": 1},
        {**common, **where, **who, **operation("ack", "settle")},
    ]
    assert [dict(link.attributes or {}) for link in deliver.links] == [{"messaging.message.id": reply["message_id"]}]


def operation(name: str, kind: str) -> dict[str, str]:
    return {"messaging.operation.name": name, "messaging.operation.type": kind}


async def test_group_commit_and_flush_link_to_every_message_and_have_no_parent(tmp_path: Path) -> None:
    record = Recorder()
    each = [TraceParent(0xA00 + number, 0xB00 + number, 1) for number in range(20)]
    async with gateway_app(tmp_path, tracing=record.tracing) as it, it.connected() as raw:
        await it.caught_up()
        await it.publish(b"0")  # The log exists, so that the others need not wait for it in several groups.
        publishes = [traced(it, b"%d" % number, parent) for number, parent in enumerate(each)]
        waiting = [it.services.messaging.submit_nowait(it.principal, it.channel.id, publish) for publish in publishes]
        for stored in waiting:
            assert stored is not None
            await stored
        await raw.messages(21)
        await until(lambda: sum(len(span.links) for span in record.named("deliver")) == 20)
        await until(lambda: len(record.named("store")) == 2)

    store = record.named("store")[1]
    assert (parents(store), (store.attributes or {})["messaging.batch.message_count"]) == (None, 20)
    assert [link[:2] for link in links(store)] == [ids(span) for span in record.named("publish")[1:]]
    assert [link for span in record.named("deliver") for link in links(span)] == each
    assert {parents(span) for span in record.named("deliver")} == {None}


async def test_ack_links_to_the_messages_since_the_last_ack(tmp_path: Path) -> None:
    record = Recorder()
    each = [TraceParent(0xA00 + number, 0xB00 + number, 1) for number in range(3)]
    async with gateway_app(tmp_path, tracing=record.tracing) as it, it.connected() as raw:
        await it.caught_up()
        seqs = []
        for parent in each:
            stored = await it.services.messaging.publish(it.principal, it.channel.id, traced(it, parent=parent))
            seqs.append(stored.seq or 0)
        await raw.messages(3)
        await raw.ack(it.channel.id, seqs[0])
        await raw.ack(it.channel.id, seqs[2])
        await raw.ack(it.channel.id, seqs[1])
        await until(lambda: len(record.named("ack")) == 2)

    assert [links(span) for span in record.named("ack")] == [each[:1], each[1:]]


async def test_queue_message_is_followed_to_its_holder_and_its_ack(tmp_path: Path) -> None:
    record = Recorder()
    async with gateway_app(tmp_path, tracing=record.tracing) as it, it.connected() as raw:
        queue = await it.services.channels.create(it.owner, name="tasks", type=ChannelType.QUEUE)
        await raw.ask("subscribe", channel=queue.id)
        await it.services.messaging.publish(it.owner, queue.id, traced(it))
        message = await raw.message()
        await it.services.messaging.publish(it.owner, queue.id, Publish(queue.id, Raw(b"2")))
        await raw.ack(queue.id, message["seq"])
        await raw.ack(queue.id, (await raw.message())["seq"])
        deliver, ack = await record.one("deliver"), await record.one("ack")
        await until(lambda: len(record.named("publish")) == 2)

    assert (links(deliver), links(ack)) == ([PARENT], [PARENT])
    where = {"messaging.destination.name": queue.id, "messaging.system": "artcafe", "artcafe.tenant.id": it.owner.tenant_id}
    assert dict(deliver.attributes or {}) == {**where, **operation("deliver", "send"), "messaging.batch.message_count": 1}
    assert dict(ack.attributes or {}) == {**where, **operation("ack", "settle"), "messaging.client.id": it.agent.id}


async def test_pull_records_a_span_for_each_channel_with_traced_messages(tmp_path: Path) -> None:
    record = Recorder()
    async with gateway_app(tmp_path, tracing=record.tracing) as it:
        queue = await it.services.channels.create(it.owner, name="tasks", type=ChannelType.QUEUE)
        await it.services.subscriptions.put(it.owner, queue.id, it.agent.id)
        for channel in (queue, it.channel):
            await it.services.messaging.publish(it.owner, channel.id, traced(it))
        untraced = await it.services.channels.create(it.owner, name="plain")
        await it.services.subscriptions.put(it.owner, untraced.id, it.agent.id)
        await it.publish(b"1", untraced)
        pulled = await it.services.pulls.pull(it.principal, it.agent.id, PullRequest.checked())
        items = {item["channel"]: item for item in map(msgspec.json.decode, pulled.items)}
        assert set(items) == {queue.id, it.channel.id, untraced.id}
        task = items[queue.id]
        done = SettleEntry("ack", queue.id, task["seq"], task["receipt"])
        assert (await it.services.pulls.settle(it.principal, it.agent.id, [done]))[0].error is None
        ack = await record.one("ack")

    spans = {(span.attributes or {})["messaging.destination.name"]: links(span) for span in record.named("deliver")}
    assert spans == {queue.id: [PARENT], it.channel.id: [PARENT]}
    assert (links(ack), (ack.attributes or {})["messaging.client.id"]) == ([PARENT], it.agent.id)


async def test_backlog_is_delivered_within_a_linked_span(tmp_path: Path) -> None:
    record = Recorder()
    async with gateway_app(tmp_path, tracing=record.tracing) as it:
        await it.services.messaging.publish(it.principal, it.channel.id, traced(it))
        async with it.connected() as raw:
            await raw.message()
            assert links(await record.one("deliver")) == [PARENT]


async def test_message_that_waits_for_an_ack_is_delivered_within_one_span(tmp_path: Path) -> None:
    record = Recorder()
    each = [TraceParent(0xA00 + number, 0xB00 + number, 1) for number in range(2)]
    async with gateway_app(tmp_path, tracing=record.tracing) as it, it.connected() as raw:
        await raw.ask("subscribe", channel=it.channel.id, max_unacked=1)
        await it.caught_up()
        for parent in each:
            await it.services.messaging.publish(it.principal, it.channel.id, traced(it, parent=parent))
        first = await raw.message()
        # A flush with only messages that wait, before the ack that makes room for them.
        await until(
            lambda: all(one.feed.flushed > first["seq"] for each in it.gateway.connections() for one in each.deliveries.values())
        )
        await raw.ack(it.channel.id, first["seq"])
        await raw.message()
        await until(lambda: len(record.named("deliver")) >= 2)

    assert [link for span in record.named("deliver") for link in links(span)] == each


async def test_live_message_is_published_and_delivered_without_a_store(tmp_path: Path) -> None:
    record = Recorder()
    async with gateway_app(tmp_path, tracing=record.tracing) as it, it.connected() as raw:
        live = await it.services.channels.create(it.owner, name="live", type=ChannelType.LIVE)
        await raw.ask("subscribe", channel=live.id)
        await it.services.messaging.publish(it.principal, live.id, traced(it))
        await raw.message()
        assert links(await record.one("publish")) == links(await record.one("deliver")) == [PARENT]
        assert record.named("store") == []


@pytest.mark.parametrize(
    "text",
    ["", "x", "00-" + "a" * 1000, "ff-" + "a" * 32 + "-" + "b" * 16 + "-01", "00-" + "0" * 32 + "-" + "b" * 16 + "-01"],
)
async def test_invalid_trace_context_is_delivered_unchanged_and_neither_linked_nor_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], text: str
) -> None:
    record = Recorder()
    headers = {"traceparent": text, "tracestate": "not a state\n" * 50}
    with caplog.at_level(logging.DEBUG):
        async with gateway_app(tmp_path, tracing=record.tracing) as it, it.connected() as raw:
            await it.caught_up()
            reply = await raw.ask("publish", channel=it.channel.id, data=1, headers=headers)
            message = await raw.message()
            await raw.ack(it.channel.id, reply["seq"])
            publish = await record.one("publish")
    assert message["headers"] == headers
    assert (parents(publish), links(publish)) == (None, [])
    assert record.named("deliver") == record.named("ack") == []
    logged = [entry.getMessage() for entry in caplog.records if not entry.name.startswith("websockets")]  # The client's.
    shown = "".join([*logged, *capfd.readouterr()])
    assert "agent.connected" in shown
    assert "not a state" not in shown
    assert "aaaaaaaa" not in shown


async def test_oversized_trace_context_is_refused_like_any_header(tmp_path: Path) -> None:
    async with gateway_app(tmp_path, tracing=Recorder().tracing) as it, it.connected() as raw:
        refused = await raw.ask("publish", channel=it.channel.id, data=1, headers={"traceparent": "x" * 10_000})
    assert (refused["code"], "xxxx" in refused["message"]) == ("invalid", False)


@pytest.mark.parametrize("flags", [0, 1])
async def test_linked_publisher_does_not_change_the_samplers_decision(tmp_path: Path, flags: int) -> None:
    counts = []
    for number, record in enumerate([Recorder(ParentBased(ALWAYS_OFF)), Recorder()]):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with gateway_app(folder, tracing=record.tracing) as it, it.connected() as raw:
            await it.caught_up()
            await it.services.messaging.publish(it.principal, it.channel.id, traced(it, parent=TraceParent(1, 2, flags)))
            await raw.message()
        counts.append([len(record.named(name)) for name in ("publish", "store", "deliver")])
    assert counts == [[0, 0, 0], [1, 1, flags]]


@pytest.mark.parametrize(("parent", "count"), [(PARENT, 1), (UNSAMPLED, 0)])
async def test_continued_trace_has_its_publishers_parent_and_sampling_decision(
    tmp_path: Path, parent: TraceParent, count: int
) -> None:
    record = Recorder(is_continuing=True)
    async with gateway_app(tmp_path, tracing=record.tracing) as it:
        await it.services.messaging.publish(it.principal, it.channel.id, traced(it, parent=parent))
        await until(lambda: len(record.named("store")) == count)
    assert [parents(span) for span in record.named("publish")] == [parent[:2]] * count
    assert [span.context.trace_id for span in record.named("store") if span.context] == [parent.trace_id] * count


async def test_span_of_a_persons_publish_does_not_name_the_person(tmp_path: Path) -> None:
    record = Recorder()
    async with gateway_app(tmp_path, tracing=record.tracing) as it:
        await it.publish(b"1")
        publish = await record.one("publish")
    assert "messaging.client.id" not in (publish.attributes or {})
    assert "alice" not in publish.to_json()


async def test_failed_publish_records_its_error_code_and_nothing_of_the_message(tmp_path: Path) -> None:
    record = Recorder()
    async with gateway_app(tmp_path, tracing=record.tracing) as it:
        await publish_with_key(it, b'"first secret"')
        with pytest.raises(KeyReused):
            await publish_with_key(it, b'"second secret"')
        await until(lambda: len(record.named("store")) == 2)
    failed = record.named("publish")[1]
    assert (failed.status.status_code, (failed.attributes or {})["error.type"]) == (StatusCode.ERROR, "key_reused")
    assert record.named("store")[1].status.status_code is StatusCode.ERROR
    assert not [span.to_json() for span in record.all() if "secret" in span.to_json() or "order-42" in span.to_json()]


async def publish_with_key(it: GatewayApp, data: bytes) -> None:
    publish = Publish(it.channel.id, Raw(data), key="order-42", headers={"x": "secret"})
    await it.services.messaging.publish(it.principal, it.channel.id, publish)


async def test_repeat_of_a_publish_in_another_trace_is_a_duplicate(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        answers = [
            await it.services.messaging.publish(it.principal, it.channel.id, Publish(it.channel.id, Raw(b"1"), "k", headers))
            for headers in repeats()
        ]
    assert [(each.seq, each.duplicate) for each in answers] == [(1, False), (1, True), (1, True)]


def repeats() -> Iterator[Mapping[str, str] | None]:
    yield {"traceparent": format_traceparent(PARENT), "tracestate": "a=1"}
    yield {"traceparent": format_traceparent(PARENT._replace(span_id=1))}
    yield None


async def test_span_has_a_bounded_number_of_links(tmp_path: Path) -> None:
    record = Recorder()
    async with gateway_app(tmp_path, tracing=record.tracing) as it:
        for start in range(0, 400, 100):
            publishes = [traced(it, parent=TraceParent(1 + start + number, 1, 1)) for number in range(100)]
            async with asyncio.TaskGroup() as group:
                for publish in publishes:
                    group.create_task(it.services.messaging.publish(it.principal, it.channel.id, publish))
        async with it.connected() as raw:
            await raw.messages(400)
    counts = [len(span.links) for span in record.named("deliver") + record.named("store")]
    assert max(counts) <= MAX_LINKS
