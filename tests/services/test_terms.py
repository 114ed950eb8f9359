from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest

from artcafe.errors import Conflict, Invalid, TermsChanged, TermsRequired
from artcafe.model import UserId
from artcafe.observe.context import bind_origin
from artcafe.rules.pages import PageRequest
from artcafe.services.terms import Current
from artcafe.tables.catalog import TERMS_ACCEPTANCE
from artcafe.tables.engine.values import Value
from tests.services.service_env import START, Server

ALICE, BOB = UserId("alice"), UserId("bob")
FIRST, SECOND = Current(version="2026-01", text="Be kind."), Current(version="2026-11", text="Be kinder.")


async def test_without_terms_there_is_nothing_to_accept(server: Server) -> None:
    terms = server.with_terms(None)
    await terms.check(ALICE)
    assert await terms.outstanding(ALICE) is None
    with pytest.raises(Conflict):
        await terms.accept(ALICE)


async def test_people_are_stopped_on_every_server_until_they_accept(server: Server) -> None:
    terms = server.with_terms(FIRST)
    with pytest.raises(TermsRequired, match="2026-01"):
        await terms.check(ALICE)
    assert await terms.outstanding(ALICE) == FIRST
    await terms.accept(ALICE)
    for each in (terms, server.another().with_terms(FIRST)):
        await each.check(ALICE)
        assert await each.outstanding(ALICE) is None
        with pytest.raises(TermsRequired):
            await each.check(BOB)


async def test_acceptance_keeps_version_time_and_observed_address_and_is_never_overwritten(server: Server) -> None:
    terms = server.with_terms(FIRST)
    bind_origin("203.0.113.7")
    first = await terms.accept(ALICE, "2026-01")
    assert (first.user_id, first.version, first.accepted_at, first.ip_address) == (ALICE, "2026-01", START, "203.0.113.7")
    server.clock.pass_s(60)
    bind_origin("198.51.100.1")
    assert await terms.accept(ALICE) == await server.another().with_terms(FIRST).accept(ALICE) == first
    assert await server.item(TERMS_ACCEPTANCE, ALICE, "2026-01") == {
        "user_id": ALICE,
        "version": "2026-01",
        "accepted_at": "2026-11-22T16:50:57.123Z",
        "ip_address": "203.0.113.7",
    }


async def test_new_version_must_be_accepted_at_once_and_the_old_acceptance_stays(server: Server) -> None:
    await server.with_terms(FIRST).accept(ALICE)
    terms = server.with_terms(SECOND)
    with pytest.raises(TermsRequired, match="2026-11"):
        await terms.check(ALICE)
    with pytest.raises(TermsChanged):
        await terms.accept(ALICE, "2026-01")
    await terms.accept(ALICE, "2026-11")
    await terms.check(ALICE)
    assert [each.version for each in (await terms.list(ALICE)).items] == ["2026-01", "2026-11"]
    assert [each.version for each in (await terms.list(ALICE, PageRequest(1))).items] == ["2026-01"]
    assert (await terms.list(BOB)).items == ()


async def test_grace_period_applies_only_to_people_who_accepted_an_earlier_version(server: Server) -> None:
    await server.with_terms(FIRST).accept(ALICE)
    graced = Current(version="2026-11", grace_until=START + timedelta(seconds=60))
    terms = server.with_terms(graced)
    await terms.check(ALICE)
    assert await terms.outstanding(ALICE) == graced
    with pytest.raises(TermsRequired):
        await terms.check(BOB)
    server.clock.pass_s(60)
    with pytest.raises(TermsRequired):
        await terms.check(ALICE)


async def test_acceptance_of_an_older_system_counts(server: Server) -> None:
    await server.put(TERMS_ACCEPTANCE, user_id=ALICE, version="2026-01", acceptance_timestamp=1700000000)
    await server.with_terms(FIRST).check(ALICE)


@pytest.mark.parametrize("revoked", [1, True, Decimal(1), "yes"])
async def test_revoked_acceptance_does_not_count_and_is_kept_beside_a_new_one(server: Server, revoked: Value) -> None:
    older = {"user_id": ALICE, "version": "2026-01", "accepted_at": "2025-05-24T10:00:00", "revoked": revoked, "email": "a@b"}
    await server.put(TERMS_ACCEPTANCE, **older)
    terms = server.with_terms(msgspec.structs.replace(FIRST, grace_until=START + timedelta(days=1)))
    with pytest.raises(TermsRequired):
        await terms.check(ALICE)
    assert await terms.outstanding(ALICE) is not None
    assert (await terms.list(ALICE)).items == ()
    assert (await terms.accept(ALICE)).accepted_at == START
    assert (await server.another().with_terms(FIRST).accept(ALICE)).accepted_at == START
    await server.another().with_terms(FIRST).check(ALICE)
    assert [each.accepted_at for each in (await terms.list(ALICE)).items] == [START]
    kept = await server.item(TERMS_ACCEPTANCE, ALICE, "2026-01")
    assert kept is not None
    assert kept["revoked_before"] == older


@pytest.mark.parametrize("revoked", [0, False, None])
async def test_acceptance_that_was_not_revoked_counts(server: Server, revoked: Value) -> None:
    await server.put(TERMS_ACCEPTANCE, user_id=ALICE, version="2026-01", revoked=revoked)
    await server.with_terms(FIRST).check(ALICE)
    assert (await server.with_terms(FIRST).accept(ALICE)).accepted_at is None


@pytest.mark.parametrize("user", ["", "x" * 256, "two\nlines"])
async def test_person_with_an_invalid_id_cannot_accept(server: Server, user: str) -> None:
    terms = server.with_terms(FIRST)
    with pytest.raises(Invalid):
        await terms.accept(UserId(user))
    with pytest.raises(TermsRequired):
        await terms.check(UserId(user))


async def test_person_who_has_not_accepted_the_terms_cannot_open_a_session(server: Server) -> None:
    server = Server(server.tables, server.clock, server.logs, FIRST)
    tenant_id = (await server.tenant("alice")).tenant_id
    with pytest.raises(TermsRequired):
        await server.member_login.enter(ALICE, tenant_id)
    await server.terms.accept(ALICE)
    assert (await server.member_login.enter(ALICE, tenant_id)).user_id == ALICE
