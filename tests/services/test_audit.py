from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from artcafe.errors import Conflict, Forbidden, OutcomeUnknown, RateLimited, Unavailable
from artcafe.model import Entry, Outcome, Role, TenantId, UserPrincipal
from artcafe.rules import audit_chain, subjects
from artcafe.rules.audit_filters import AuditFilter
from artcafe.rules.pages import PageRequest
from artcafe.services.audit import CHANGES_AT_ONCE, CHANGES_PER_S, Audit
from artcafe.services.audit_counters import MOST_CLAIMED, OUTSIDER
from artcafe.services.event_counts import MOST_UNKNOWN, MOST_VARIANTS, OTHERS
from artcafe.tables.catalog import Environment
from artcafe.tables.sqlite.engine import Sqlite
from artcafe.tables.store import Store
from tests.services.service_env import Server, with_role

GONE = Unavailable("the message log (NATS)")


def told(server: Server, tenant_id: TenantId | None) -> list[Entry]:
    """Return the whole chain, and check that it is valid."""
    where = subjects.AUDIT_OF_PLATFORM if tenant_id is None else subjects.audit(tenant_id)
    entries = [audit_chain.read(kept.text) for kept in server.logs.chains.get(where, [])]
    assert audit_chain.first_break(entries) is None
    return entries


def shown(entries: list[Entry]) -> list[tuple[str, str, str, str | None]]:
    return [(entry.action, entry.actor, entry.outcome.value, entry.facts.get("count")) for entry in entries]


async def change(server: Server, owner: UserPrincipal, problem: BaseException | None = None) -> None:
    async with server.audit.change(owner.tenant_id, owner.sender, "agent.create", name="Planner") as deed:
        deed.target = "agt_1"
        if problem is not None:
            raise problem


async def test_intent_is_written_before_a_change_and_outcome_after_it(server: Server) -> None:
    owner = await server.tenant()
    before = len(told(server, owner.tenant_id))
    async with server.audit.change(owner.tenant_id, owner.sender, "agent.create", name="Planner") as deed:
        (intent,) = told(server, owner.tenant_id)[before:]
        assert (intent.outcome, intent.target, intent.facts) == (Outcome.INTENDED, None, {"name": "Planner"})
        deed.target = "agt_1"
        deed.facts["key"] = "SHA256:x"
    done = told(server, owner.tenant_id)[-1]
    assert (done.outcome, done.target, done.intent) == (Outcome.DONE, "agt_1", intent.number)
    assert done.facts == {"name": "Planner", "key": "SHA256:x"}


@pytest.mark.parametrize(
    ("problem", "outcome", "code"),
    [
        (Conflict("no"), Outcome.REFUSED, "conflict"),
        (GONE, Outcome.UNKNOWN, "unavailable"),
        (OutcomeUnknown(), Outcome.UNKNOWN, "outcome_unknown"),
        (RuntimeError("a fault of ours"), Outcome.UNKNOWN, None),
        (asyncio.CancelledError(), Outcome.UNKNOWN, None),
    ],
)
async def test_every_outcome_of_a_change_is_written(
    server: Server, problem: BaseException, outcome: Outcome, code: str | None
) -> None:
    owner = await server.tenant()
    with pytest.raises(type(problem)):
        await change(server, owner, problem)
    last = told(server, owner.tenant_id)[-1]
    assert (last.outcome, last.facts.get("code")) == (outcome, code)


async def test_change_fails_if_its_intent_cannot_be_written(server: Server) -> None:
    owner = await server.tenant()
    server.logs.audit_failure = GONE
    reached = False
    with pytest.raises(Unavailable):
        async with server.audit.change(owner.tenant_id, owner.sender, "agent.create"):
            reached = True
    assert not reached


async def test_change_succeeds_if_its_outcome_cannot_be_written(server: Server) -> None:
    owner = await server.tenant()
    async with server.audit.change(owner.tenant_id, owner.sender, "agent.create"):
        server.logs.audit_failure = GONE
    assert told(server, owner.tenant_id)[-1].outcome is Outcome.INTENDED


async def test_frequent_events_are_counted(server: Server) -> None:
    owner = await server.tenant()
    before = len(told(server, owner.tenant_id))
    for _ in range(1000):
        server.audit.counters.count(owner.tenant_id, "agt_1", "agent.login", Outcome.REFUSED)
    server.clock.pass_s(10)
    server.audit.counters.count(owner.tenant_id, "agt_1", "agent.login", Outcome.REFUSED)
    server.audit.counters.count(owner.tenant_id, "agt_2", "agent.login", key="SHA256:x")
    await server.audit.counters.flush()
    entries = told(server, owner.tenant_id)[before:]
    assert shown(entries) == [("agent.login", "agt_1", "refused", "1001"), ("agent.login", "agt_2", "done", None)]
    assert entries[0].facts["last"] > entries[0].facts["first"]


async def test_first_event_of_a_kind_is_written_at_once_and_the_rest_after_a_minute(server: Server) -> None:
    owner = await server.tenant()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(server.audit.counters.run())
        before = len(told(server, owner.tenant_id))
        server.audit.counters.count(owner.tenant_id, "agt_1", "agent.login", Outcome.REFUSED)
        async with asyncio.timeout(20):
            while len(told(server, owner.tenant_id)) == before:  # noqa: ASYNC110 (a chain has no event to wait on)
                await asyncio.sleep(0.01)
        server.audit.counters.count(owner.tenant_id, "agt_1", "agent.login", Outcome.REFUSED)
        running.cancel()
    assert len(told(server, owner.tenant_id)) == before + 1
    await server.audit.counters.flush()
    assert len(told(server, owner.tenant_id)) == before + 2


async def test_invented_agents_and_tenants_do_not_fill_an_audit(server: Server) -> None:
    owner = await server.tenant()
    before = len(told(server, owner.tenant_id))
    for number in range(3 * MOST_UNKNOWN):
        server.audit.counters.count_claim(owner.tenant_id, f"agt_{number}", "agent.login")
        server.audit.counters.count_claim(TenantId(f"ten_{number}"), "agt_1", "agent.login")
    platform = len(told(server, None))
    await server.audit.counters.flush()
    entries = told(server, owner.tenant_id)[before:]
    assert len(entries) == MOST_UNKNOWN + 1
    assert shown(entries)[-1] == ("agent.login", OTHERS, "refused", str(2 * MOST_UNKNOWN))
    (strangers,) = told(server, None)[platform:]
    assert (strangers.facts["count"], strangers.facts["problem"]) == (str(3 * MOST_UNKNOWN), "there is no such tenant")


async def test_failures_in_one_tenant_or_by_one_actor_do_not_hide_other_events(server: Server) -> None:
    """Reproduce an attack that hid all events for a minute: 12,000 failures, by one agent and by clients without a login."""
    ours, theirs = await server.tenant(), await server.tenant("mallory", "Mallory's")
    before = len(told(server, ours.tenant_id))
    counters = server.audit.counters
    for number in range(12_000):
        counters.count_cross_tenant(theirs.tenant_id, "agt_mallory", f"ten_{number}")
        counters.count_claim(TenantId(f"ten_{number}"), f"agt_{number}", "agent.login")
        counters.count_claim(theirs.tenant_id, f"agt_{number}", "agent.login")
        counters.count_claim(ours.tenant_id, f"agt_{number}", "agent.login")
    counters.count(ours.tenant_id, "agt_1", "agent.login", key="SHA256:stolen")
    counters.count(ours.tenant_id, "agt_known", "agent.login", Outcome.REFUSED)
    counters.count_cross_tenant(None, "usr:bob", ours.tenant_id)
    await counters.flush()
    assert {
        ("agent.login", "agt_1", "done", None),
        ("agent.login", "agt_known", "refused", None),
        ("tenant.trespass", OUTSIDER, "refused", None),
    } <= set(shown(told(server, ours.tenant_id)[before:]))
    assert ("tenant.trespass", "usr:bob", "refused", None) in shown(told(server, None))
    assert ("tenant.trespass", "agt_mallory", "refused", "12000") in shown(told(server, theirs.tenant_id))


async def test_successes_are_never_merged(server: Server) -> None:
    owner = await server.tenant()
    before = len(told(server, owner.tenant_id))
    for number in range(2_000):
        server.audit.counters.count(owner.tenant_id, f"agt_{number}", "agent.login", key="SHA256:own")
    for number in range(3 * MOST_VARIANTS):
        server.audit.counters.count(owner.tenant_id, "agt_0", "agent.login", key=f"SHA256:{number}")
    await server.audit.counters.flush()
    entries = told(server, owner.tenant_id)[before:]
    assert {entry.actor for entry in entries} == {f"agt_{number}" for number in range(2_000)}
    assert sum(int(entry.facts.get("count", "1")) for entry in entries) == 2_000 + 3 * MOST_VARIANTS
    assert [entry.facts.get("count") for entry in entries if entry.actor == "agt_0"][-1] == str(2 * MOST_VARIANTS + 1)


async def test_unverified_tenants_are_limited_by_claimant(server: Server) -> None:
    owner = await server.tenant()
    before = len(told(server, owner.tenant_id))
    for number in range(MOST_CLAIMED):
        server.audit.counters.count_cross_tenant(None, "usr:mallory", f"ten_{number}")
    for actor in ("usr:mallory", "usr:bob"):
        server.audit.counters.count_cross_tenant(None, actor, owner.tenant_id)
    await server.audit.counters.flush()
    assert shown(told(server, owner.tenant_id)[before:]) == [("tenant.trespass", OUTSIDER, "refused", None)]
    (unplaced,) = [entry for entry in told(server, None) if entry.actor == OTHERS]
    assert unplaced.facts["count"] == str(MOST_CLAIMED + 1)


async def test_claims_are_written_after_a_failed_look_up(server: Server, tmp_path: Path) -> None:
    owner = await server.tenant()
    before = len(told(server, owner.tenant_id))
    server.audit.counters.count_cross_tenant(None, "usr:bob", owner.tenant_id)
    real, away = server.store, await Sqlite.open(tmp_path / "away.db", Environment.PROD)
    await away.close()
    server.audit.counters._store = Store(away)
    await server.audit.counters.flush()
    server.audit.counters._store = real
    await server.audit.counters.flush()
    assert shown(told(server, owner.tenant_id)[before:]) == [("tenant.trespass", OUTSIDER, "refused", None)]


async def test_actor_of_a_cross_tenant_attempt_is_named_only_in_their_own_audit(server: Server) -> None:
    ours, theirs = await server.tenant(), await server.tenant("bob", "Bob's")
    before = len(told(server, ours.tenant_id)), len(told(server, theirs.tenant_id))
    server.audit.counters.count_cross_tenant(theirs.tenant_id, "agt_theirs", ours.tenant_id)
    server.audit.counters.count_cross_tenant(None, "usr:bob", ours.tenant_id)
    await server.audit.counters.flush()
    assert shown(told(server, ours.tenant_id)[before[0] :]) == [("tenant.trespass", OUTSIDER, "refused", "2")]
    assert shown(told(server, theirs.tenant_id)[before[1] :]) == [("tenant.trespass", "agt_theirs", "refused", None)]
    assert told(server, None)[-1].actor == "usr:bob"


async def test_events_that_cannot_be_written_are_written_later(server: Server) -> None:
    owner = await server.tenant()
    before = len(told(server, owner.tenant_id))
    server.logs.audit_failure = GONE
    for _ in range(3):
        server.audit.counters.count(owner.tenant_id, "agt_1", "agent.login", Outcome.REFUSED)
        await server.audit.counters.flush()
    server.logs.audit_failure = None
    await server.audit.counters.flush()
    assert shown(told(server, owner.tenant_id)[before:]) == [("agent.login", "agt_1", "refused", "3")]


async def test_admins_read_the_audit_in_pages_from_either_end(server: Server) -> None:
    owner = await server.tenant()
    for _ in range(3):
        await change(server, owner)
    entries = told(server, owner.tenant_id)
    for oldest_first, expected in ((True, entries), (False, entries[::-1])):
        found, after = [], None
        while True:
            page = await server.audit.list(owner, PageRequest(limit=2, after=after), oldest_first=oldest_first)
            found += [line.entry for line in page.items]
            after = page.next
            if after is None:
                break
        assert found == expected
    for role in (Role.MEMBER, Role.VIEWER):
        with pytest.raises(Forbidden):
            await server.audit.list(with_role(owner, role))


async def test_admin_reads_only_the_audit_of_their_tenant(server: Server) -> None:
    owner, other = await server.tenant(), await server.tenant("bob", "Bob's")
    await change(server, owner)
    before = (await server.audit.list(other)).items
    await change(server, owner)
    assert (await server.audit.list(other)).items == before


async def test_event_with_an_unexpected_error_is_dropped_and_the_others_are_written(server: Server) -> None:
    owner = await server.tenant()
    before = len(told(server, owner.tenant_id))
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        running = group.create_task(server.audit.counters.run())
        server.audit.counters.count(TenantId("x" * 2049), "agt_1", "agent.login", Outcome.REFUSED)
        server.logs.audit_failure = ValueError("no such chain")
        server.audit.counters.count(owner.tenant_id, "agt_1", "agent.login", Outcome.REFUSED)
        while not server.audit.counters.supervisor.failures:  # noqa: ASYNC110 (a counter has no event to wait on)
            await asyncio.sleep(0)
        server.logs.audit_failure = None
        server.audit.counters.count(owner.tenant_id, "agt_2", "agent.login", Outcome.REFUSED)
        while len(told(server, owner.tenant_id)) == before:  # noqa: ASYNC110 (a chain has no event to wait on)
            await asyncio.sleep(0)
        running.cancel()
    assert shown(told(server, owner.tenant_id)[before:]) == [("agent.login", "agt_2", "refused", None)]


@pytest.mark.parametrize("claimed", ["", "x" * 2049, "ten_\u202e"])
async def test_malformed_tenant_id_is_counted_only_in_the_actors_own_audit(server: Server, claimed: str) -> None:
    owner = await server.tenant()
    before = len(told(server, owner.tenant_id)), len(told(server, None))
    server.audit.counters.count_cross_tenant(owner.tenant_id, "agt_1", claimed)
    server.audit.counters.count_cross_tenant(None, "usr:bob", claimed)
    await server.audit.counters.flush()
    assert shown(told(server, owner.tenant_id)[before[0] :]) == [("tenant.trespass", "agt_1", "refused", None)]
    assert shown(told(server, None)[before[1] :]) == [("tenant.trespass", "usr:bob", "refused", None)]


async def test_audit_that_does_not_begin_with_the_tenants_creation_is_logged(server: Server) -> None:
    with capture_logs() as logs:
        owner = await server.tenant()
        await change(server, owner)
    assert [each for each in logs if each["event"] == "audit.begun_late"] == []
    server.logs.chains.clear()  # as if the stream had been deleted, which only the holder of the secret can do
    with capture_logs() as logs:
        await change(server, owner)
        await change(server, owner)
    late = [(each["tenant"], each["action"]) for each in logs if each["event"] == "audit.begun_late"]
    assert late == [(owner.tenant_id, "agent.create")]


async def test_audit_is_filtered_by_agent_action_and_time_from_either_end(server: Server) -> None:
    owner = await server.tenant()
    start = server.clock.now
    for number in range(6):
        server.clock.pass_s(600)
        async with server.audit.change(owner.tenant_id, owner.sender, "agent.create", f"agt_{number % 2}"):
            pass
        server.audit.counters.count(owner.tenant_id, f"agt_{number % 2}", "agent.login")
        await server.audit.counters.flush()
    entries = [entry for entry in told(server, owner.tenant_id) if entry.time > start]
    at = start + timedelta(seconds=1800)
    for wanted, expected in (
        (AuditFilter(), told(server, owner.tenant_id)),
        (AuditFilter(agent="agt_1"), [entry for entry in entries if "agt_1" in (entry.actor, entry.target)]),
        (AuditFilter(action="agent.login"), [entry for entry in entries if entry.action == "agent.login"]),
        (AuditFilter(action="agent"), entries),
        (AuditFilter(action="agent.log"), []),
        (AuditFilter(since=at), [entry for entry in entries if entry.time >= at]),
        (AuditFilter(until=at), [entry for entry in told(server, owner.tenant_id) if entry.time < at]),
        (
            AuditFilter("agt_0", "agent.login", at, at + timedelta(seconds=601)),
            [entry for entry in entries if entry.actor == "agt_0" and at <= entry.time < at + timedelta(seconds=601)],
        ),
    ):
        for oldest_first in (True, False):
            found, after = [], None
            while True:
                page = await server.audit.list(owner, PageRequest(limit=2, after=after), wanted, oldest_first=oldest_first)
                found += [line.entry for line in page.items]
                after = page.next
                if after is None:
                    break
            assert found == (expected if oldest_first else expected[::-1]), wanted


async def test_changes_are_rate_limited_for_each_actor(server: Server) -> None:
    owner = await server.tenant()
    since = 0.0
    audit = Audit(server.logs, server.store, server.clock, lambda: since)
    for _ in range(CHANGES_AT_ONCE):
        assert audit._changes.take((owner.tenant_id, "usr:mallory"), since) == 0
    before = len(told(server, owner.tenant_id))
    with pytest.raises(RateLimited, match="too many changes by you in this tenant; wait 1 s"):
        async with audit.change(owner.tenant_id, "usr:mallory", "tenant.rename"):
            pass
    assert len(told(server, owner.tenant_id)) == before
    async with audit.change(owner.tenant_id, owner.sender, "member.remove", "mallory"):
        pass
    since = 1 / CHANGES_PER_S
    async with audit.change(owner.tenant_id, "usr:mallory", "tenant.rename"):
        pass
    assert len(told(server, owner.tenant_id)) == before + 4
