from __future__ import annotations

import pytest

from tests import ssh_keygen
from tests.rest.rest_app import Caller, RestApp, Tenant

ATTRIBUTES = ["id", "agent_id", "public_key", "fingerprint", "first", "status", "added_at", "not_after"]


@pytest.fixture
def line(rest_app: RestApp) -> str:
    return ssh_keygen.public_line(rest_app.key())


def test_key_is_added_read_disabled_and_revoked(rest_app: RestApp, tenant: Tenant, owner: Caller, line: str) -> None:
    agent = tenant.agent()
    made = owner.post(f"{agent.path}/keys", json={"public_key": line, "not_after": "2126-01-01T00:00:00+02:00"})
    assert made.status_code == 201
    key = made.json()
    assert list(key) == ATTRIBUTES
    assert key["fingerprint"] == ssh_keygen.fingerprint(line)
    assert (key["first"], key["status"], key["not_after"]) == (False, "active", "2125-12-31T22:00:00.000Z")
    assert made.headers["location"] == f"{agent.path}/keys/{key['id']}"
    assert owner.get(made.headers["location"]).json() == key
    listed = owner.get(f"{agent.path}/keys").json()
    assert [each["id"] for each in listed["items"] if not each["first"]] == [key["id"]]
    assert [each["fingerprint"] for each in listed["items"] if each["first"]] == [owner.get(agent.path).json()["fingerprint"]]
    assert owner.patch(made.headers["location"], json={"status": "disabled"}).json() == key | {"status": "disabled"}
    assert owner.delete(made.headers["location"]).status_code == 204
    assert owner.get(made.headers["location"]).json()["code"] == "key_not_found"


def test_repeated_request_with_idempotency_key_adds_one_key(tenant: Tenant, owner: Caller, line: str) -> None:
    agent = tenant.agent()
    answers = [owner.post(f"{agent.path}/keys", json={"public_key": line}, headers={"Idempotency-Key": "once"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    again = owner.post(f"{agent.path}/keys", json={"public_key": line})
    assert (again.status_code, again.json()["code"]) == (409, "key_taken")


@pytest.mark.parametrize("end", ["2020-01-01T00:00:00Z", "2126-01-01T00:00:00", "soon", 7])
def test_past_or_invalid_expiry_is_refused(tenant: Tenant, owner: Caller, line: str, end: object) -> None:
    answer = owner.post(f"{tenant.agent().path}/keys", json={"public_key": line, "not_after": end})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "not_after")


def test_disabled_key_ends_only_its_own_tokens(rest_app: RestApp, tenant: Tenant, owner: Caller) -> None:
    agent = tenant.agent()
    before, first_line = agent.login(), owner.get(agent.path).json()["public_key"]
    second = rest_app.key()
    owner.post(f"{agent.path}/keys", json={"public_key": ssh_keygen.public_line(second)})
    caller = type(agent)(tenant, agent.id, second).login()
    assert before.get("/v1/me").status_code == caller.get("/v1/me").status_code == 200
    first = next(each for each in owner.get(f"{agent.path}/keys").json()["items"] if each["first"])
    assert first["public_key"] == first_line
    assert owner.delete(f"{agent.path}/keys/{first['id']}").status_code == 204
    assert (before.get("/v1/me").json()["code"], caller.get("/v1/me").status_code) == ("revoked", 200)
    assert owner.get(agent.path).json()["public_key"] == " ".join(ssh_keygen.public_line(second).split()[:2])
    last = owner.get(f"{agent.path}/keys").json()["items"]
    refused = owner.delete(f"{agent.path}/keys/{last[0]['id']}")
    assert (len(last), refused.status_code, refused.json()["code"]) == (1, 409, "conflict")
