from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import msgspec
import pytest

from artcafe.errors import LogRefused, Unavailable
from artcafe.fabric.audit_log import STREAM, AuditLog
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.nats.jetstream import check_answer
from artcafe.model import TenantId
from artcafe.observe.clock import now
from artcafe.rules import subjects
from artcafe.rules.subjects import Subject
from tests.fabric.nats_clients import BOUND_S
from tests.fabric.nats_env import Nats, a_tenant


@asynccontextmanager
async def platform(nats: Nats, url: str | None = None) -> AsyncIterator[NatsConnection]:
    """Connect to the platform's own account."""
    connection = NatsConnection("test platform", [url or nats.url], nats.accounts.platform_user)
    async with asyncio.TaskGroup() as group:
        group.create_task(connection.run())
        try:
            await connection.wait_up(BOUND_S)
            yield connection
        finally:
            connection.close()


def counted(last: bytes | None) -> bytes:
    """Return the next number."""
    return b"1" if last is None else b"%d" % (int(last) + 1)


async def test_entries_of_one_chain_are_read_in_both_directions(nats: Nats) -> None:
    mine, other = subjects.audit(a_tenant()), subjects.audit(a_tenant())
    async with platform(nats) as connection:
        log = AuditLog(connection)
        assert (await log.after(mine, 0, 10), await log.before(mine, None, 10)) == ([], [])
        for _ in range(5):
            await log.append(mine, counted)
            await log.append(other, counted)
        found = await log.after(mine, 0, 10)
        assert [each.text for each in found] == [b"1", b"2", b"3", b"4", b"5"]
        assert await log.after(mine, found[1].seq, 2) == found[2:4]
        assert await log.before(mine, None, 2) == [found[4], found[3]]
        assert await log.before(mine, found[3].seq, 10) == [found[2], found[1], found[0]]


async def test_concurrent_appends_each_directly_follow_the_text_they_were_composed_from(nats: Nats) -> None:
    chain = subjects.audit(a_tenant())

    def composed_by(name: str) -> Callable[[bytes | None], bytes]:
        return lambda last: b"%d %b" % (1 if last is None else int(last.split()[0]) + 1, name.encode())

    async with platform(nats) as one, platform(nats) as two, asyncio.TaskGroup() as group:
        for server, log in (("one", AuditLog(one)), ("two", AuditLog(two))):
            for number in range(6):
                group.create_task(log.append(chain, composed_by(f"{server}-{number}")))
    async with platform(nats) as connection:
        found = [each.text.split() for each in await AuditLog(connection).after(chain, 0, 100)]
    assert [int(number) for number, _ in found] == list(range(1, 13))
    assert len({name for _, name in found}) == 12


async def test_nats_refuses_to_remove_audit_entries(nats: Nats) -> None:
    chain = subjects.audit(a_tenant())
    async with platform(nats) as connection:
        log = AuditLog(connection)
        await log.append(chain, counted)
        (kept,) = await log.after(chain, 0, 10)
        for verb, body in (
            ("STREAM.PURGE", {"filter": chain}),
            ("STREAM.MSG.DELETE", {"seq": kept.seq}),
            ("STREAM.UPDATE", {"name": STREAM, "subjects": [subjects.AUDIT], "deny_purge": False, "deny_delete": False}),
        ):
            answer = await connection.request(Subject(f"$JS.API.{verb}.{STREAM}"), msgspec.json.encode(body))
            with pytest.raises(LogRefused):
                check_answer(msgspec.json.decode(answer.data))
        assert await log.after(chain, 0, 10) == [kept]


async def test_append_with_a_lost_answer_is_not_repeated(nats: Nats) -> None:
    chain = subjects.audit(a_tenant())
    async with nats.proxy() as proxy, platform(nats, proxy.url) as connection:
        log = AuditLog(connection)
        await log.append(chain, counted)
        composed: list[bytes] = []

        def cut_behind(last: bytes | None) -> bytes:
            composed.append(counted(last))
            if len(composed) == 1:
                proxy.is_mute = True
                asyncio.get_running_loop().call_later(0.2, reopen)
            return composed[-1]

        def reopen() -> None:
            proxy.is_mute = False
            proxy.cut()

        assert await log.append(chain, cut_behind) == b"2"
        assert [each.text for each in await log.after(chain, 0, 10)] == [b"1", b"2"]


async def test_append_without_nats_raises_unavailable(nats: Nats) -> None:
    async with nats.proxy() as proxy, platform(nats, proxy.url) as connection:
        log = AuditLog(connection)
        proxy.is_open = False
        proxy.cut()
        with pytest.raises(Unavailable):
            await log.append(subjects.audit(TenantId("ten_nowhere")), counted)


async def test_chain_is_read_from_a_point_in_time(nats: Nats) -> None:
    mine, other = subjects.audit(a_tenant()), subjects.audit(a_tenant())
    async with platform(nats) as connection:
        log = AuditLog(connection)
        begun = now()
        for chain in (other, mine, other, mine):
            await log.append(chain, counted)
        first, _ = await log.after(mine, 0, 10)
        assert await log.since(mine, begun - timedelta(hours=1)) == first.seq
        assert await log.since(mine, now() + timedelta(hours=1)) is None
