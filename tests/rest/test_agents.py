from __future__ import annotations

from pathlib import Path

import pytest

from artcafe.model import AgentId, AgentPrincipal, Role, TenantId
from tests import ssh_keygen
from tests.conftest import Require
from tests.rest.rest_app import Caller, RestApp, Tenant

ATTRIBUTES = {
    "id", "tenant_id", "handle", "name", "description", "capabilities", "public_key", "fingerprint", "status", "created_at",
    "updated_at", "presence",
}  # fmt: skip
CARD = {"id", "tenant_id", "handle", "name", "description", "capabilities", "presence"}
AWAY = {"connected": False, "status": None, "since": None}


@pytest.fixture
def line(rest_app: RestApp) -> str:
    return ssh_keygen.public_line(rest_app.key())


def test_registered_agent_is_returned_with_key_and_fingerprint(
    rest_app: RestApp, tenant: Tenant, owner: Caller, line: str
) -> None:
    body = {"name": "Planner", "public_key": line, "description": "Plans.\nWell.", "capabilities": ["plan", "sum"]}
    answer = owner.post(f"{tenant.path}/agents", json=body)
    assert answer.status_code == 201
    made = answer.json()
    assert set(made) == ATTRIBUTES
    assert made["id"].startswith("agt_")
    assert (made["tenant_id"], made["status"], made["presence"]) == (tenant.id, "active", AWAY)
    assert made["public_key"] == " ".join(line.split()[:2])
    assert made["fingerprint"] == ssh_keygen.fingerprint(line)
    assert made | body == made | {"public_key": line}
    assert answer.headers["location"] == f"{tenant.path}/agents/{made['id']}"
    assert owner.get(answer.headers["location"]).json() == made


def test_other_agents_get_a_card_without_key(tenant: Tenant) -> None:
    agent, other = tenant.agent(), tenant.agent(capabilities=["plan"])
    caller = agent.login()
    card = caller.get(other.path)
    assert card.status_code == 200
    assert set(card.json()) == CARD
    listed = caller.get(f"{tenant.path}/agents").json()["items"]
    assert {other.id, agent.id} <= {each["id"] for each in listed}
    assert all(set(each) == CARD for each in listed)


def test_list_filters_by_status_and_capability(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    plans, sums = tenant.agent(capabilities=["plan", "sum"]), tenant.agent(capabilities=["sum"])
    tenant.owner.patch(sums.path, json={"status": "disabled"})

    def ids(**filters: str) -> list[str]:
        return [each["id"] for each in tenant.owner.get(f"{tenant.path}/agents", params=filters).json()["items"]]

    assert ids() == sorted([plans.id, sums.id])
    assert ids(status="active") == [plans.id]
    assert ids(status="disabled", capability="sum") == [sums.id]
    assert ids(capability="plan") == [plans.id]
    assert ids(capability="pla") == []


@pytest.mark.parametrize("query", ["status=online", "connected=perhaps", "capabilities=plan", "limit=0", "limit=201", "limit=x"])
def test_invalid_filter_is_refused_instead_of_ignored(tenant: Tenant, query: str) -> None:
    answer = tenant.owner.get(f"{tenant.path}/agents?{query}")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, query.partition("=")[0])


def test_presence_is_returned_to_members_and_agents_and_filters_lists(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    present, away = tenant.agent(), tenant.agent()
    principal = AgentPrincipal(agent_id=AgentId(present.id), tenant_id=TenantId(tenant.id), epoch=0)

    async def come(status: str) -> None:
        rest_app.services.presence.add_socket(principal)
        rest_app.services.presence.set_status(principal, status)

    rest_app.run(come("busy"))
    for caller in (tenant.owner, tenant.member(Role.VIEWER), away.login()):
        here = caller.get(present.path).json()["presence"]
        assert (here["connected"], here["status"]) == (True, "busy")
        assert here["since"].endswith("Z")
        assert caller.get(away.path).json()["presence"] == AWAY
        listed = caller.get(f"{tenant.path}/agents").json()["items"]
        assert {each["id"]: each["presence"] for each in listed} == {present.id: here, away.id: AWAY}
        for connected, expected in (("true", present), ("false", away)):
            found = caller.get(f"{tenant.path}/agents", params={"connected": connected}).json()
            assert ([each["id"] for each in found["items"]], found["next_cursor"]) == ([expected.id], None)
    assert tenant.owner.patch(present.path, json={"name": "Other"}).json()["presence"] == here


def test_cursors_of_a_connected_list_are_bound_to_its_filter(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    agents = sorted(tenant.agent().id for _ in range(3))
    path = f"{tenant.path}/agents"
    first = tenant.owner.get(path, params={"connected": "false", "limit": 2}).json()
    assert [each["id"] for each in first["items"]] == agents[:2]
    again = {"cursor": first["next_cursor"], "limit": 2}
    assert tenant.owner.get(path, params={**again, "connected": "true"}).json()["code"] == "bad_cursor"
    rest = tenant.owner.get(path, params={**again, "connected": "false"}).json()
    assert [each["id"] for each in rest["items"]] == agents[2:]


def test_empty_list_opens_no_connection_to_nats(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    assert tenant.owner.get(f"{tenant.path}/agents").json()["items"] == []
    assert tenant.id not in {tenant_fabric.tenant_id for tenant_fabric in rest_app.fabric.open_tenants()}
    agent = tenant.agent()
    assert tenant.owner.get(agent.path).json()["presence"] == AWAY
    assert tenant.id in {tenant_fabric.tenant_id for tenant_fabric in rest_app.fabric.open_tenants()}


def test_unknown_presence_is_null_and_its_filter_answers_503(tmp_path: Path, require: Require) -> None:
    require("ssh-keygen", ssh_keygen.PRESENT)
    with RestApp(tmp_path) as rest_app:
        tenant = rest_app.tenant()
        agent = tenant.agent()
        assert tenant.owner.get(agent.path).json()["presence"] == AWAY
        rest_app.run(rest_app.nats.stop())

        shown = tenant.owner.get(agent.path)
        assert (shown.status_code, shown.json()["presence"]) == (200, None)
        listed = tenant.owner.get(f"{tenant.path}/agents").json()["items"]
        assert [each["presence"] for each in listed] == [None]
        refused = tenant.owner.get(f"{tenant.path}/agents", params={"connected": "false"})
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")


def test_patch_changes_only_the_given_fields(tenant: Tenant, owner: Caller) -> None:
    agent = tenant.agent(description="Before", capabilities=["plan"])
    before = owner.get(agent.path).json()
    after = owner.patch(agent.path, json={"description": "", "capabilities": []})
    assert after.status_code == 200
    assert after.json() | {"updated_at": ""} == before | {"description": "", "capabilities": [], "updated_at": ""}
    assert owner.get(agent.path).json() == after.json()


def test_empty_patch_changes_nothing(tenant: Tenant, owner: Caller) -> None:
    agent = tenant.agent()
    answer = owner.patch(agent.path, json={})
    assert answer.status_code == 200
    assert answer.json()["public_key"] == " ".join(ssh_keygen.public_line(agent.key).split()[:2])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": None}, "name"),
        ({"status": "online"}, "status"),
        ({"capabilities": "plan"}, "capabilities"),
        ({"capabilities": ["plan", 1]}, "capabilities[1]"),
        ({"epoch": 7}, "epoch"),
        ({"id": "agt_x"}, "id"),
    ],
)
def test_invalid_patch_names_the_field(tenant: Tenant, owner: Caller, body: dict[str, object], field: str) -> None:
    answer = owner.patch(tenant.agent().path, json=body)
    assert (answer.status_code, [each["field"] for each in answer.json()["errors"]]) == (422, [field])


def test_invalid_public_key_is_refused_with_the_accepted_types(tenant: Tenant, owner: Caller) -> None:
    answer = owner.post(f"{tenant.path}/agents", json={"name": "x", "public_key": "ssh-rsa AAAA"})
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_key")
    assert "ssh-keygen" in answer.json()["detail"]


def test_public_key_belongs_to_one_agent_per_tenant(rest_app: RestApp, tenant: Tenant, owner: Caller, line: str) -> None:
    body = {"name": "x", "public_key": line}
    assert owner.post(f"{tenant.path}/agents", json=body).status_code == 201
    again = owner.post(f"{tenant.path}/agents", json=body)
    assert (again.status_code, again.json()["code"]) == (409, "key_taken")
    other = rest_app.tenant()
    assert other.owner.post(f"{other.path}/agents", json=body).status_code == 201


def test_repeated_request_with_idempotency_key_registers_one_agent(tenant: Tenant, owner: Caller, line: str) -> None:
    body = {"name": "Once", "public_key": line}
    first, again = (owner.post(f"{tenant.path}/agents", json=body, headers={"Idempotency-Key": "once"}) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()


def test_members_can_change_agents_but_viewers_and_agents_cannot(tenant: Tenant, line: str) -> None:
    agent = tenant.agent()
    for caller in (tenant.member(Role.VIEWER), agent.login()):
        assert caller.post(f"{tenant.path}/agents", json={"name": "x", "public_key": line}).status_code == 403
        assert caller.patch(agent.path, json={"name": "x"}).status_code == 403
        assert caller.delete(agent.path).status_code == 403
    assert tenant.member(Role.MEMBER).patch(agent.path, json={"name": "x"}).status_code == 200


def test_deleted_agent_answers_404_and_cannot_log_in(tenant: Tenant, owner: Caller, anyone: Caller) -> None:
    agent = tenant.agent()
    subscription = tenant.subscribed(tenant.channel(), agent)
    posed = agent.challenge()
    answer = owner.delete(agent.path)
    assert (answer.status_code, answer.content) == (204, b"")
    assert owner.get(agent.path).json()["code"] == "agent_not_found"
    assert owner.get(subscription).status_code == 404
    assert owner.delete(agent.path).status_code == 404
    proof = {"challenge_id": posed["challenge_id"], "signature": ssh_keygen.sign(agent.key, posed["challenge"].encode())}
    assert anyone.post("/v1/auth/tokens", json=proof).status_code == 401
