"""Traces between programs: from a publisher over the server to a subscriber, each in a process of its own."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw
from opentelemetry import trace

from artcafe.sdk import encoding
from artcafe.wire.frames import MAX_FRAME_BYTES, Publish
from tests.casts import recast
from tests.platform import Cast, Platform

ROOT = Path(__file__).parents[2]
SHOW = ROOT / "examples" / "tracing" / "show_trace.py"
PAGE = (ROOT / "docs" / "tracing.md").read_text()
CURRENT = trace.SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=trace.TraceFlags(1))
TRACEPARENT = f"00-{0xABC:032x}-{0xDEF:016x}-01"


@pytest.fixture(scope="module")
def home(platform: Platform) -> Cast:
    return asyncio.run(platform.tenant_with())


class Trace:
    """The spans that the example has printed and written."""

    def __init__(self, folder: Path, *options: str) -> None:
        written = folder / "spans.json"
        command = [sys.executable, str(SHOW), "--spans", str(written), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=220)
        assert done.returncode == 0, done.stderr + done.stdout
        self.text, self.spans = done.stdout, json.loads(written.read_text())

    def named(self, service: str, name: str) -> list[dict[str, Any]]:
        return [span for span in self.spans if (span["service"], span["name"].split()[0]) == (service, name)]

    def one(self, service: str, name: str) -> dict[str, Any]:
        (found,) = self.named(service, name)
        return found


@pytest.mark.timeout(240)  # Four programs start one after another, each with the SDK.
def test_trace_from_publish_to_ack_over_three_processes_is_linked_and_printed_as_on_the_page(tmp_path: Path) -> None:
    shown = Trace(tmp_path, "--count", "1")
    sent, process, settled = (
        shown.one(*of) for of in (("publisher", "publish"), ("subscriber", "process"), ("subscriber", "ack"))
    )
    publish, store, deliver, ack = (shown.one("artcafe", name) for name in ("publish", "store", "deliver", "ack"))
    assert sent["parent"] == shown.one("publisher", "order")["id"]
    assert [span["links"] for span in (publish, deliver, ack, process, settled)] == [[sent["id"]]] * 5
    assert [span["parent"] for span in (publish, deliver, ack, process)] == [None] * 4
    assert (store["parent"], settled["parent"]) == (publish["id"], process["id"])
    assert publish["attributes"]["messaging.message.id"] == sent["attributes"]["messaging.message.id"]
    # Requests over REST have none: FastAPI's own spans would continue the trace of any client.
    assert {span["name"] for span in shown.spans if span["service"] == "artcafe"} == {"publish", "store", "deliver", "ack"}
    assert without_ids(shown.text)[:9] == without_ids(PAGE[PAGE.index("-- child of") :])[:9]


def without_ids(text: str) -> list[str]:
    return [re.sub(r"chn_\w+|\b[0-9a-f]{8}\b|  +", " ", line).strip() for line in text.splitlines()]


@pytest.mark.timeout(240)  # As above.
def test_several_server_processes_and_a_continued_trace(tmp_path: Path) -> None:
    shown = Trace(tmp_path, "--processes", "2", "--mode", "continue", "--count", "25")
    publishes = {span["id"]: span for span in shown.named("publisher", "publish")}
    received = shown.named("artcafe", "publish")
    assert len(publishes) == len(received) == len(shown.named("subscriber", "process")) == 25
    assert {span["parent"] for span in received} == set(publishes)
    assert all(span["trace"] == publishes[span["parent"]]["trace"] for span in received)
    stores = shown.named("artcafe", "store")
    causes = [cause for span in stores for cause in (span["links"] or [span["parent"]])]
    assert sorted(causes) == sorted(span["id"] for span in received)
    assert all(span["parent"] is None for span in stores if len(span["links"]) > 1)
    delivered = [link for span in shown.named("artcafe", "deliver") for link in span["links"]]
    acknowledged = [link for span in shown.named("artcafe", "ack") for link in span["links"]]
    # A subscriber that reconnects is delivered its messages again.
    assert set(delivered) == set(acknowledged) == set(publishes)


async def test_current_context_reaches_the_subscriber_from_the_gateway_and_from_rest(home: Cast) -> None:
    cast = await recast(home)
    async with cast.agent() as agent, cast.rest() as rest, asyncio.timeout(10):
        with trace.use_span(trace.NonRecordingSpan(CURRENT)):
            await agent.publish(cast.channels[0], 1, headers={"x": "y"})
            await rest.tenant(cast.tenant).messages.publish(cast.channels[0], 2)
        await agent.publish(cast.channels[0], 3)
        messages = agent.messages()
        received = [await anext(messages) for _ in range(3)]
    assert [message.headers for message in received] == [{"x": "y", "traceparent": TRACEPARENT}, {"traceparent": TRACEPARENT}, {}]
    contexts = [trace.get_current_span(message.trace_context).get_span_context() for message in received]
    assert [context.span_id for context in contexts] == [0xDEF, 0xDEF, 0]


async def test_message_that_fills_its_frame_is_published_without_a_context(home: Cast) -> None:
    cast = await recast(home)
    channel = cast.channels[0]

    def fits(size: int) -> bool:
        return encoding.fits("publish", Publish(channel, Raw(b'"%b"' % (b"x" * size)), "k"), MAX_FRAME_BYTES)

    largest = next(size for size in range(MAX_FRAME_BYTES, 0, -1) if fits(size))
    async with cast.agent() as agent, asyncio.timeout(10):
        with trace.use_span(trace.NonRecordingSpan(CURRENT)):
            await agent.publish(channel, "x" * largest, key="k")
            await agent.publish(channel, "x" * (largest - 100), key="l")
        messages = agent.messages()
        assert [(await anext(messages)).headers for _ in range(2)] == [{}, {"traceparent": TRACEPARENT}]


async def test_repeat_with_the_same_key_in_another_span_is_a_duplicate(home: Cast) -> None:
    cast = await recast(home)
    receipts = []
    async with cast.agent() as agent, asyncio.timeout(10):
        for span_id in (1, 2):
            with trace.use_span(trace.NonRecordingSpan(trace.SpanContext(0xABC, span_id, is_remote=False))):
                receipts.append(await agent.publish(cast.channels[0], 1, key="order-42"))
    assert [receipt.duplicate for receipt in receipts] == [False, True]
