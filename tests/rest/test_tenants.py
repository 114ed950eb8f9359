from __future__ import annotations

import pytest

from artcafe.model import Role
from tests.rest.rest_app import Caller, RestApp, Tenant

ATTRIBUTES = {"id", "name", "plan", "limits", "role", "created_at", "updated_at"}


def test_creator_of_a_tenant_is_its_owner(rest_app: RestApp) -> None:
    alice = rest_app.person()
    answer = alice.post("/v1/tenants", json={"name": "Alice's"})
    assert answer.status_code == 201
    made = answer.json()
    assert set(made) == ATTRIBUTES
    assert (made["name"], made["plan"], made["role"]) == ("Alice's", "free", "owner")
    assert answer.headers["location"] == f"/v1/tenants/{made['id']}"
    assert alice.get(answer.headers["location"]).json() == made
    assert alice.get("/v1/tenants").json() == {"items": [made], "next_cursor": None}


def test_repeated_request_with_idempotency_key_creates_one_tenant(rest_app: RestApp) -> None:
    alice = rest_app.person()
    key = {"Idempotency-Key": "k1"}
    first, again = (alice.post("/v1/tenants", json={"name": "One"}, headers=key) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert first.headers["location"] == again.headers["location"]
    other = alice.post("/v1/tenants", json={"name": "Two"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_mismatch")
    assert len(alice.get("/v1/tenants").json()["items"]) == 1


def test_idempotency_keys_of_different_users_are_independent(rest_app: RestApp) -> None:
    ids = {
        rest_app.person().post("/v1/tenants", json={"name": "One"}, headers={"Idempotency-Key": "k"}).json()["id"]
        for _ in range(2)
    }
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": 1}, "name"),
        ({"name": None}, "name"),
        ({"name": "x", "plan": "gold"}, "plan"),
        ({"name": "x", "id": "ten_mine"}, "id"),
    ],
)
def test_invalid_tenant_names_the_field(rest_app: RestApp, body: dict[str, object], field: str) -> None:
    answer = rest_app.person().post("/v1/tenants", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert [each["field"] for each in answer.json()["errors"]] == [field]


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_invalid_idempotency_key_is_refused(rest_app: RestApp, key: str) -> None:
    answer = rest_app.person().post("/v1/tenants", json={"name": "x"}, headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "Idempotency-Key")


def test_roles_limit_rename_and_delete(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    may = {
        role: [
            tenant.member(role).patch(tenant.path, json={"name": role}).status_code,
            tenant.member(role).get(tenant.path).status_code,
        ]
        for role in Role
    }
    assert may == {Role.OWNER: [200, 200], Role.ADMIN: [200, 200], Role.MEMBER: [403, 200], Role.VIEWER: [403, 200]}
    for role in (Role.ADMIN, Role.MEMBER, Role.VIEWER):
        assert tenant.member(role).delete(tenant.path).status_code == 403
    assert tenant.member(Role.OWNER).delete(tenant.path).status_code == 204


def test_members_get_their_own_role(tenant: Tenant) -> None:
    assert tenant.member(Role.VIEWER).get(tenant.path).json()["role"] == "viewer"
    assert tenant.owner.get(tenant.path).json()["role"] == "owner"


def test_deleted_tenant_and_its_records_answer_404(rest_app: RestApp, anyone: Caller) -> None:
    tenant = rest_app.tenant()
    agent = tenant.agent()
    caller = agent.login()
    tenant.subscribed(tenant.channel(), agent)
    answer = tenant.owner.delete(tenant.path)
    assert (answer.status_code, answer.content) == (204, b"")
    assert tenant.owner.get(tenant.path).json()["code"] == "tenant_not_found"
    assert tenant.owner.get("/v1/me").json()["tenants"] == []
    assert caller.get("/v1/me").status_code == 401
