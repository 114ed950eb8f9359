"""Tenant isolation of NATS: every subject × clients in every other account. A subject missing in the table fails."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from enum import StrEnum
from typing import Final

import pytest
from nats.aio.client import Client

from artcafe.model import ChannelId, TenantId
from artcafe.rules import subjects
from tests.fabric.conftest import nats as nats  # noqa: PLC0414 (pytest finds a fixture by its name here)
from tests.fabric.nats_clients import BOUND_S, connected, push
from tests.fabric.nats_env import Nats

CHANNEL: Final = ChannelId("chn_a")
OURS, THEIRS = TenantId("ten_ours"), TenantId("ten_theirs")


class Account(StrEnum):
    """The account of a NATS client. A server has a connection in each account; agents have none."""

    OURS = "our tenant"
    THEIRS = "another tenant"
    PLATFORM = "the platform"


TABLE: Final[Mapping[str, tuple[Account, str] | None]] = {
    "STORED": (Account.OURS, "ch.chn_a"),
    "LIVE": (Account.OURS, "live.ch.chn_a"),
    "INBOXES": (Account.OURS, "ch.@.agt_a"),
    "LIVE_INBOXES": (Account.OURS, "live.ch.@.agt_a"),
    "PRESENCE": (Account.OURS, "presence"),
    "PRESENCE_ASK": (Account.OURS, "presence.ask"),
    "POSITIONS_ASK": (Account.OURS, "positions.ask"),
    "stored": (Account.OURS, subjects.stored(CHANNEL)),
    "live": (Account.OURS, subjects.live(CHANNEL)),
    "marks": (Account.OURS, "ch.chn_a.dead.1"),
    "dead_mark": (Account.OURS, subjects.dead_mark(CHANNEL, 1)),
    "DEAD_MARKS": (Account.OURS, "ch.chn_b.dead.1"),
    "end_marks": (Account.OURS, subjects.end_marks(CHANNEL)),
    "live_marks": (Account.OURS, "live.ch.chn_a.dead.1"),
    "redriven_mark": (Account.OURS, subjects.redriven_mark(CHANNEL, 1)),
    "redriven_marks": (Account.OURS, "ch.chn_a.redriven.1"),
    "queue_pull": (Account.OURS, subjects.queue_pull("log", subjects.queue_consumer(CHANNEL))),
    "requests": (Account.OURS, subjects.requests("srv_a")),
    "outcomes": (Account.OURS, subjects.outcomes("srv_a")),
    "SCHEDULED": (Account.OURS, "later.chn_a.msg_a"),
    "EVERYTHING": (Account.OURS, "anything"),
    "scheduled": (Account.OURS, subjects.scheduled(CHANNEL, "msg_a")),
    "scheduled_of": (Account.OURS, "later.chn_a.msg_b"),
    "delivered": (Account.OURS, subjects.delivered(subjects.scheduled(CHANNEL, "msg_a"))),
    "CHANGES": (Account.PLATFORM, "changes"),
    "AUDIT": (Account.PLATFORM, "audit.tenant.ten_ours"),
    "AUDIT_OF_PLATFORM": (Account.PLATFORM, subjects.AUDIT_OF_PLATFORM),
    "HEALTH": (Account.PLATFORM, "health"),
    "audit": (Account.PLATFORM, subjects.audit(OURS)),
    "SCHEDULED_MINUTES": (Account.PLATFORM, "wake.ten_ours.1"),
    "scheduled_minute": (Account.PLATFORM, subjects.scheduled_minute(OURS, 1)),
    "CENSUS": (Account.PLATFORM, "census"),
    "SERVERS_ASK": (Account.PLATFORM, "servers.ask"),
    "RECENT_COUNTERS": (Account.PLATFORM, "count.recent.ten_ours.messages_a_minute.1"),
    "DAILY_COUNTERS": (Account.PLATFORM, "count.daily.ten_ours.chain.msg_a"),
    "holds": (Account.PLATFORM, subjects.holds("srv_a")),
    "census_answers": (Account.PLATFORM, subjects.census_answers("srv_a")),
    "rate_counter": (Account.PLATFORM, subjects.rate_counter(OURS, "messages_a_minute", 1)),
    "chain_counter": (Account.PLATFORM, subjects.chain_counter(OURS, "msg_a")),
    "chain_release_counter": (Account.PLATFORM, subjects.chain_release_counter(OURS, "msg_a")),
    "chain_stop_counter": (Account.PLATFORM, subjects.chain_stop_counter(OURS, "msg_a", 0)),
    "token": None,
    "channel_token": None,
    "scheduled_id": None,
    "is_stored": None,
    "marked_seq": None,
    "parse_mark": None,
    "consumer_of_mark": None,
    "is_queue_consumer": None,
    "dedupe_id": None,
    "queue_consumer": None,
}
"""Every name in `rules.subjects`: its account and an example subject. None: part of a subject, or not a subject."""

CELLS: Final = [(name, line) for name, line in TABLE.items() if line is not None]


def builders() -> Iterator[str]:
    for name, value in vars(subjects).items():
        is_constant = name.isupper() and isinstance(value, str) and not name.startswith("_")
        is_builder = (
            inspect.isfunction(inspect.unwrap(value)) and value.__module__ == subjects.__name__ and not name.startswith("_")
        )
        if is_constant or is_builder:
            yield name


def test_every_subject_is_in_the_table() -> None:
    assert set(builders()) == set(TABLE)


class AccountListener:
    """A subscriber to everything in one account."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._received: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    async def listen(self, *patterns: str) -> None:
        async def note(msg: object) -> None:
            self._received.put_nowait((getattr(msg, "subject", ""), getattr(msg, "data", b"")))

        for pattern in patterns:
            await self.client.subscribe(pattern, cb=note)
        await self.client.flush(timeout=BOUND_S)

    async def received(self) -> list[tuple[str, bytes]]:
        """Return the messages received so far: a marker published now arrives after every earlier message."""
        await self.client.publish("marker", b"")
        found: list[tuple[str, bytes]] = []
        async with asyncio.timeout(BOUND_S):
            while (each := await self._received.get())[0] != "marker":
                found.append(each)
        return found


@pytest.mark.parametrize(("name", "line"), CELLS)
@pytest.mark.promise("12a")
async def test_messages_of_one_account_never_reach_another(nats: Nats, name: str, line: tuple[Account, str]) -> None:
    home, subject = line
    users = {
        Account.OURS: nats.accounts.user(OURS),
        Account.THEIRS: nats.accounts.user(THEIRS),
        Account.PLATFORM: nats.accounts.platform_user(),
    }
    async with AsyncExitStack() as stack:
        system = await stack.enter_async_context(connected(nats.url, nats.accounts.system_user()))
        for tenant in (OURS, THEIRS):
            await push(system, nats.accounts.account_jwt(tenant))
        listeners = {
            account: AccountListener(await stack.enter_async_context(connected(nats.url, user)))
            for account, user in users.items()
        }
        for listener in listeners.values():
            await listener.listen(">")
        for account, listener in listeners.items():
            await listener.client.publish(subject, f"sent in {account}".encode())
            await listener.client.flush(timeout=BOUND_S)
        for account, listener in listeners.items():
            assert await listener.received() == [(subject, f"sent in {account}".encode())], f"{name} is for {home}"
