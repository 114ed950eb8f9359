"""History on the socket: pages from a position, gaps, and bounded memory for slow readers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from artcafe.model import Access, Permission
from artcafe.rules import times
from tests.gateway.gateway_app import GatewayApp, gateway_app, until
from tests.gateway.raw_client import RawClient
from tests.gateway.test_gaps import a_moment, publish, remove


async def asked(raw: RawClient, it: GatewayApp, **query: object) -> tuple[list[int], Any, bool]:
    """Return the sequences of a page, its gap, and whether more follows."""
    page = await raw.ask("history", channel=it.channel.id, **query)
    return [each["seq"] for each in page["messages"]], page["gap"], page["more"]


async def test_history_pages_forward_from_a_sequence_and_back_from_the_end(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        await publish(it, 6)
        await raw.messages(6)

        assert await asked(raw, it) == ([6, 5, 4, 3, 2, 1], None, False)
        assert await asked(raw, it, limit=4) == ([6, 5, 4, 3], None, True)
        assert await asked(raw, it, before=3) == ([2, 1], None, False)
        for nothing in ({"before": 1}, {"before": 0}, {"before": 0, "after": 0}, {"before": "1970-01-01T00:00:00Z"}):
            assert await asked(raw, it, **nothing) == ([], None, False), nothing
        assert await asked(raw, it, after=0, limit=2) == ([1, 2], None, True)
        assert await asked(raw, it, after=2, before=6) == ([3, 4, 5], None, False)
        assert await asked(raw, it, after=6) == ([], None, False)


async def test_history_pages_forward_from_a_time(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        await publish(it, 2)
        at = times.to_text(await a_moment(it))
        await publish(it, 2)
        await raw.messages(4)

        assert await asked(raw, it, after=at) == ([3, 4], None, False)
        assert await asked(raw, it, before=at) == ([2, 1], None, False)
        assert await asked(raw, it, after="2020-01-01T00:00:00+01:00", before=at, limit=1) == ([1], None, True)
        assert await asked(raw, it, after="2099-01-01T00:00:00Z") == ([], None, False)


async def test_history_message_equals_the_delivered_one_and_moves_no_cursor(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        async with it.connected() as raw:
            await it.publish(b'{"b":1.0, "a":"\xe2\x98\x83"}')
            delivered = await raw.message()
            del delivered["prev"]
            page = await raw.ask("history", channel=it.channel.id)
            assert page["messages"] == [delivered]
        async with it.connected() as again:
            assert (await again.message())["seq"] == 1


async def test_history_needs_the_receive_permission_but_no_subscription(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        managed = await it.services.channels.create(it.owner, name="orders", access=Access.MANAGED)
        other = await it.services.channels.create(it.owner, name="other")
        await it.publish(b"1", other)

        assert len((await raw.ask("history", channel=other.id))["messages"]) == 1
        assert (await raw.ask("history", channel=managed.id))["code"] == "channel_not_found"
        await it.services.subscriptions.put(it.owner, managed.id, it.agent.id, frozenset({Permission.PUBLISH}))
        assert (await raw.ask("history", channel=managed.id))["code"] == "forbidden"
        assert (await raw.ask("history", channel="chn_none"))["code"] == "channel_not_found"
        assert await raw.is_quiet()


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"after": "yesterday"}, "invalid"),
        ({"before": "2026-11-22T08:00:00"}, "invalid"),
        ({"after": -1}, "bad_command"),
        ({"after": 1.5}, "bad_command"),
        ({"limit": 0}, "bad_command"),
        ({"limit": 201}, "bad_command"),
        ({"from": 1}, "bad_command"),
    ],
)
async def test_history_refuses_an_invalid_position_or_limit(tmp_path: Path, query: dict[str, object], code: str) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        assert (await raw.ask("history", channel=it.channel.id, **query))["code"] == code


async def test_history_page_has_the_gap_of_retention_and_continues_after_it(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        await publish(it, 4)
        at = await a_moment(it)
        await publish(it, 2)
        await raw.messages(6)
        await remove(it, at)

        assert await asked(raw, it, after=1, limit=1) == ([5], {"from": 2, "to": 4, "reason": "retention"}, True)
        assert await asked(raw, it, after=4) == ([5, 6], None, False)


async def test_history_from_a_time_has_a_gap_only_if_messages_since_then_were_removed(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        await publish(it, 2)
        early = times.to_text(await a_moment(it))
        await publish(it, 2)
        at = await a_moment(it)
        await publish(it, 2)
        await raw.messages(6)
        await remove(it, at)

        gone = {"from": 1, "to": 4, "reason": "retention"}
        assert await asked(raw, it, after=early) == ([5, 6], gone, False)
        assert await asked(raw, it, after=times.to_text(at)) == ([5, 6], None, False)
        assert await asked(raw, it, limit=1) == ([6], None, True)
        assert await asked(raw, it, before=6) == ([5], gone, False)


async def test_history_page_has_the_epoch_of_its_log(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        assert (await raw.ask("history", channel=it.channel.id))["epoch"] is None
        await it.publish(b"1")
        epoch = (await raw.ask("subscribe", channel=it.channel.id))["epoch"]
        assert (await raw.ask("history", channel=it.channel.id))["epoch"] == epoch


async def test_long_messages_shorten_history_pages(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected(max_unacked=1) as raw:
        for _ in range(20):
            await it.publish(b'"%b"' % (b"x" * 60_000))
        found: list[int] = []
        has_more, pages = True, 0
        while has_more:
            seqs, _, has_more = await asked(raw, it, after=found[-1] if found else 0, limit=200)
            found += seqs
            pages += 1
        assert (found, pages) == ([*range(1, 21)], 3)
        assert await asked(raw, it, limit=200) == ([*range(20, 12, -1)], None, True)


async def test_history_commands_of_a_slow_reader_are_answered_as_it_reads(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        for _ in range(9):
            await it.publish(b'"%b"' % (b"x" * 60_000))
        async with it.connected_socket(max_unacked=1) as greedy:
            greedy.reader._transport.pause_reading()  # type: ignore[attr-defined]  # StreamReader has no public way to stop reading
            for id in range(40):
                greedy.send({"id": id, "history": {"channel": it.channel.id, "after": 0}})
            await until(lambda: any(each.is_paused for each in it.gateway.connections()))
            async with it.connected(max_unacked=1) as other:
                await asked(other, it)
            assert sum(each.waiting_bytes() for each in it.gateway.connections()) < 2 * 1024 * 1024

            greedy.reader._transport.resume_reading()  # type: ignore[attr-defined]  # as above
            async with asyncio.timeout(30):
                answers = [frame["id"] for frame in [await greedy.text() for _ in range(41)] if "history" in frame]
            assert answers == [*range(40)]
