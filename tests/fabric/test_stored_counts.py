"""Counts of stored messages: from what this server stored, and from the log."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from artcafe.fabric.log_counter import count_range
from artcafe.fabric.marked_copies import MarkedCopy, store_copies
from artcafe.fabric.pending_publish import PendingPublish
from artcafe.fabric.stored_counts import (
    MAX_SEGMENTS,
    UNKNOWN_HOUR,
    Counts,
    Segment,
    StoredSegments,
    count,
    head_of,
    origin_of,
)
from artcafe.model import ChannelId
from artcafe.rules import subjects
from artcafe.rules.usage import Period
from artcafe.services.usage_counts import by_hour
from artcafe.wire.envelopes import (
    DeadLetter,
    DeadLetterReason,
    NewNames,
    Redriven,
    dead_letter_envelope,
    envelope,
    is_copy,
    mark_envelope,
    parse_envelope,
    redriven_envelope,
    renamed,
)
from artcafe.wire.frames import Publish
from tests.services.metering_env import metering

SUBJECT = subjects.stored(ChannelId("chn_a"))
ID = "msg_01M8J0S0DQ962R8347WKZ46W3Y"
TIME = "2026-11-28T10:59:59.999Z"
NEW_NAMES = NewNames(lambda _: "agt_b", str, int)
KEPT_NAMES = NewNames(str, str, int)


def stored(
    sender: str = "agt_a", time: str = TIME, message_id: str = ID, sender_handle: str | None = None, **more: object
) -> bytes:
    publish = Publish("chn_a", Raw(b"1"), **more)  # type: ignore[arg-type]  # the test's fields
    return envelope(publish, message_id=message_id, sender=sender, time=time, sender_handle=sender_handle)


async def pending(number: int, sender: str = "agt_a") -> list[PendingPublish]:
    loop = asyncio.get_running_loop()
    return [PendingPublish(SUBJECT, stored(sender), ID, None, loop.create_future(), 0.0) for _ in range(number)]


@given(st.text(), st.sampled_from([ID, "msg_short", "", '"']), st.none() | st.text())
def test_sender_and_hour_of_any_envelope_are_read(sender: str, message_id: str, handle: str | None) -> None:
    made = stored(sender, message_id=message_id, sender_handle=handle, headers={"from": '","time":"2001-01-01T00'}, reply_to="x")
    assert origin_of(head_of(made)) == (sender, Period("2026-11-28T10"))
    assert origin_of(head_of(renamed(made, NEW_NAMES))) == ("agt_b", Period("2026-11-28T10"))


@pytest.mark.parametrize("broken", [b"", b"{}", b"[]", b"\xff", stored(time="yesterday"), stored(time="2026-11-31T10:00:00Z")])
def test_message_without_a_readable_time_is_counted_in_the_unknown_hour(broken: bytes) -> None:
    assert origin_of(head_of(broken)).hour == UNKNOWN_HOUR


async def test_segments_join_until_they_are_read() -> None:
    segments = StoredSegments()
    segments.add(1, await pending(3))
    segments.add(4, await pending(1))
    segments.add(9, await pending(1))
    assert [(each.first, each.last) for each in segments.sealed()] == [(1, 4), (9, 9)]
    segments.add(10, await pending(2))
    assert [(each.first, each.last) for each in segments.sealed()] == [(1, 4), (9, 9), (10, 11)]
    segments.drop(9)
    assert [(each.first, each.last) for each in segments.sealed()] == [(10, 11)]
    segments.add(2, await pending(1))
    assert [(each.first, each.last) for each in segments.sealed()] == [(2, 2)], "the log began again"


async def test_segments_are_bounded_and_the_oldest_are_dropped() -> None:
    segments = StoredSegments()
    for number in range(MAX_SEGMENTS + 10):
        segments.add(2 * number + 1, await pending(1))
    assert len(segments) == MAX_SEGMENTS
    assert segments.sealed()[0].first == 21


ORIGIN = DeadLetter("chn_a", 7, ID, DeadLetterReason.MAX_DELIVERIES, 3, TIME)
BACK = Redriven("chn_dead", 9, ID, 1, "usr:bob", TIME)


@given(st.text(), st.dictionaries(st.text(), st.text()))
def test_copies_keep_what_was_published_and_are_not_counted(sender: str, headers: dict[str, str]) -> None:
    first = stored(sender, headers=headers, reply_to="dead_letter")
    letter = dead_letter_envelope(first, "msg_letter", ORIGIN)
    back = redriven_envelope(letter, "msg_back", BACK)
    again = dead_letter_envelope(back, "msg_again", ORIGIN)
    old = parse_envelope(first)
    for made, id, origin, redriven in (
        (letter, "msg_letter", ORIGIN, None),
        (back, "msg_back", None, BACK),
        (again, "msg_again", ORIGIN, BACK),
        (renamed(letter, KEPT_NAMES), "msg_letter", ORIGIN, None),
    ):
        new = parse_envelope(made)
        assert (new.sender, new.time, new.headers, new.reply_to) == (old.sender, old.time, old.headers, old.reply_to)
        assert bytes(new.data) == bytes(old.data)
        assert (new.message_id, new.dead_letter, new.redriven) == (id, origin, redriven)
        assert is_copy(made)
        counts: Counts = {}
        count(counts, 1, SUBJECT, made)
        assert counts == {}
    assert is_copy(mark_envelope("dead", "msg_letter", sender, TIME))
    assert not is_copy(first)


def counted(first: int, last: int) -> Segment:
    counts: Counts = {}
    for seq in range(first, last + 1):
        count(counts, seq, SUBJECT, stored())
    return Segment(first, last, counts)


async def test_range_is_counted_from_memory_and_only_gaps_are_read(tmp_path: Path) -> None:
    async with metering(tmp_path) as it:
        (server,) = it.servers
        await it.publish(server, 30)
        log = server.services.fabric.tenant(it.owner.tenant_id).log
        whole = await count_range(log, [counted(1, 30)], 0, 30)
        assert (whole.messages_read, whole.to_seq, whole.holes) == (0, 30, [])
        parts = await count_range(log, [counted(1, 4), counted(10, 20), counted(25, 40)], 2, 30)
        assert (parts.messages_read, parts.to_seq) == (2 + 5 + 10, 30), "a segment counted in part, or beyond the end, is read"
        assert sum(each.messages for each in by_hour(parts.counts).values()) == 28


async def test_copies_are_read_and_neither_counted_nor_holes(tmp_path: Path) -> None:
    async with metering(tmp_path) as it:
        (server,) = it.servers
        await it.publish(server, 3)
        log = server.services.fabric.tenant(it.owner.tenant_id).log
        some = [
            MarkedCopy(
                SUBJECT, dead_letter_envelope(stored(), ID, ORIGIN), subjects.dead_mark(ChannelId("chn_b"), seq), ID, "x", TIME
            )
            for seq in (1, 2)
        ]
        await store_copies(log, some)
        await it.publish(server, 2)
        found = await count_range(log, [], 0, 9)
        assert (found.to_seq, found.messages_read, found.holes) == (9, 9, [])
        assert sum(each.messages for each in by_hour(found.counts).values()) == 5
        await server.meter.look()
        assert await it.counted("2026-11") == [5]
        recounted = await it.recount("2026-11")
        assert (recounted.differences, recounted.is_whole, recounted.messages_read) == ((), True, 9)


async def test_sequences_without_a_message_are_holes(tmp_path: Path) -> None:
    async with metering(tmp_path) as it:
        (server,) = it.servers
        for channel in (0, 1, 0, 1, 0):
            await it.publish(server, 2, channel)
        await server.services.fabric.purge(it.owner.tenant_id, it.channels[0].id)
        log = server.services.fabric.tenant(it.owner.tenant_id).log
        found = await count_range(log, [], 0, 10)
        hour = Period("2026-11-30T23")
        assert (found.to_seq, found.messages_read) == (10, 4)
        assert found.holes == [(2, None, hour), (2, hour, hour), (2, hour, None)]
