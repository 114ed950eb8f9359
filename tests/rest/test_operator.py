"""The routes for operators of the platform: who may read them, and what they show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from artcafe.model import TenantId, TenantStatus, UserId
from artcafe.observe.clock import now
from artcafe.services.terms import Current
from tests import ssh_keygen
from tests.conftest import Require
from tests.rest.rest_app import Caller, RestApp

OLGA, PETE = UserId("olga@example.com"), UserId("pete@example.com")
"""Two operators, of whom Pete accepts no terms."""
STATE, SUSPENDED = "/v1/operator/state", "/v1/operator/suspended-tenants"
VERSION = "2026-11"


@pytest.fixture(scope="module")
def rest_app(tmp_path_factory: pytest.TempPathFactory, require: Require) -> Iterator[RestApp]:
    require("ssh-keygen", ssh_keygen.PRESENT)
    with RestApp(tmp_path_factory.mktemp("server"), Current(version=VERSION), (OLGA, PETE)) as rest_app:
        yield rest_app


@pytest.fixture(scope="module")
def olga(rest_app: RestApp) -> Caller:
    """Return the operator."""
    return rest_app.user(OLGA)


def refusals(rest_app: RestApp) -> list[dict[str, Any]]:
    """Return the refused attempts on the platform's state in the platform's audit: actors and facts."""
    rest_app.run(rest_app.services.counters.flush())
    page = rest_app.run(rest_app.audit.list_any(None))
    entries = [line.entry for line in page.items]
    return [{"actor": each.actor, **each.facts} for each in entries if each.action == "access.refused"]


def test_operator_reads_the_state_of_a_single_server(rest_app: RestApp, olga: Caller) -> None:
    found = olga.get(STATE).json()
    (server,) = found["servers"]
    assert (server["id"], server["state"], found["is_complete"]) == (found["server"], "up", True)
    assert server["host"]
    assert server["version"]
    assert (server["process"], server["processes"], server["sessions"]) == (1, 1, 0)
    assert server["connections"] is None, "this server has no listener with a count"
    assert server["started_at"] < found["time"]
    assert (found["nats"]["is_connected"], found["nats"]["problem"], found["nats"]["leader"]) == (True, None, None)
    (nats,) = found["nats"]["servers"]
    assert (nats["answers"], nats["jetstream"], nats["is_leader"], nats["lag"]) == (True, True, None, None)
    assert found["readiness"] == [
        {"name": "tables", "is_ready": True, "problem": None},
        {"name": "nats", "is_ready": True, "problem": None},
    ]


def test_me_says_who_is_an_operator(rest_app: RestApp, olga: Caller) -> None:
    assert olga.get("/v1/me").json()["is_operator"] is True
    assert rest_app.person().get("/v1/me").json()["is_operator"] is False


@pytest.mark.parametrize("path", [STATE, SUSPENDED])
def test_people_and_agents_are_refused_and_counted_in_the_audit_of_the_platform(rest_app: RestApp, path: str) -> None:
    tenant = rest_app.tenant()
    agent = tenant.agent()
    person = tenant.owner.get("/v1/me").json()["user_id"]
    for caller, who in ((tenant.owner, f"the user {person}"), (agent.login(), "an agent")):
        answer = caller.get(path)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert answer.json()["detail"].startswith(f"{who} may not read the platform's state")
    found = [each for each in refusals(rest_app) if each["request"] == f"GET {path}"]
    assert {(each["actor"], each.get("tenant")) for each in found} >= {(f"usr:{person}", None), (agent.id, tenant.id)}
    page = rest_app.run(rest_app.audit.list_any(TenantId(tenant.id)))
    assert [line.entry.actor for line in page.items if line.entry.action == "access.refused"] == [agent.id]


def test_nearly_equal_user_id_is_no_operator(rest_app: RestApp) -> None:
    for user in ("Olga@example.com", "olga@example.com ", "olga", "olga@example.com,x"):
        assert rest_app.user(user).get(STATE).status_code == 403


def test_operator_must_accept_the_terms_first(rest_app: RestApp) -> None:
    answer = rest_app.user(PETE, accepts=False).get(STATE)
    stranger = rest_app.user("stranger@example.com", accepts=False).get(STATE)
    assert (answer.status_code, answer.json()["code"]) == (403, "terms_required")
    assert stranger.json()["code"] == "forbidden"


def test_operator_is_a_stranger_to_every_tenant(rest_app: RestApp, olga: Caller) -> None:
    tenant = rest_app.tenant()
    answer, absent = olga.get(tenant.path), olga.get("/v1/tenants/ten_none")
    assert (answer.status_code, answer.json()["code"], absent.json()["code"]) == (404, "tenant_not_found", "tenant_not_found")
    assert olga.get("/v1/tenants").json()["items"] == []


def test_suspended_tenants_are_listed_page_by_page_without_their_names(rest_app: RestApp, olga: Caller) -> None:
    tenants = [rest_app.tenant() for _ in range(5)]
    suspended = {each.id for each in tenants[:3]}
    for id in suspended:
        rest_app.suspend(id)
    found, cursor = [], None
    while True:
        page = olga.get(SUSPENDED, params={"limit": 1, **({"cursor": cursor} if cursor else {})})
        assert page.status_code == 200, page.text
        found += page.json()["items"]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            break
    ours = [each for each in found if each["id"] in {tenant.id for tenant in tenants}]  # Other tests suspend tenants too.
    assert len(ours) == 3
    assert {each["id"] for each in ours} == suspended
    assert set(ours[0]) == {"id", "plan", "suspended_at", "created_at"}
    assert all(each["created_at"] <= each["suspended_at"] for each in ours)


def test_resumed_tenant_is_not_listed_and_one_suspended_by_hand_has_no_time(rest_app: RestApp, olga: Caller) -> None:
    resumed, by_hand = rest_app.tenant(), rest_app.tenant()
    for each in (resumed, by_hand):
        rest_app.suspend(each.id)
    rows = rest_app.store.tenant(TenantId(resumed.id))
    rest_app.run(rows.transact([rows.set_status(TenantStatus.ACTIVE, now())]))
    item = rest_app.run(rows.item())
    assert item is not None
    assert "suspended_at" not in item
    found = {each["id"]: each for each in olga.get(SUSPENDED, params={"limit": 200}).json()["items"]}
    assert resumed.id not in found
    assert found[by_hand.id]["suspended_at"] is not None


def test_page_reads_a_bounded_number_of_rows_and_may_be_empty(
    rest_app: RestApp, olga: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest_app.suspend(rest_app.tenant().id)
    monkeypatch.setattr("artcafe.tables.platform_store.SCANNED_ROWS", 1)
    pages, cursor = [], None
    while True:
        page = olga.get(SUSPENDED, params={"cursor": cursor} if cursor else {}).json()
        pages.append(len(page["items"]))
        if (cursor := page["next_cursor"]) is None:
            break
    assert max(pages) == 1
    assert 0 in pages


def test_cursor_of_one_operator_is_refused_for_another_query(olga: Caller, rest_app: RestApp) -> None:
    for _ in range(2):
        rest_app.suspend(rest_app.tenant().id)
    cursor = olga.get(SUSPENDED, params={"limit": 1}).json()["next_cursor"]
    assert cursor is not None
    assert olga.get("/v1/tenants", params={"cursor": cursor}).json()["code"] == "bad_cursor"
