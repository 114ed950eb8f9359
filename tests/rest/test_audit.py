from __future__ import annotations

import hashlib
import json
from typing import Any

from artcafe.model import Role
from tests.rest.rest_app import RestApp


def whole(rest_app: RestApp, path: str, caller: Any) -> list[dict[str, Any]]:
    """Return the audit, oldest first, read in pages of two."""
    rest_app.run(rest_app.services.audit.counters.flush())
    found: list[dict[str, Any]] = []
    query = {"order": "oldest", "limit": "2"}
    while True:
        page = caller.get(f"{path}/audit", params=query).json()
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]


def test_admins_read_logins_and_refused_logins(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    agent, other = tenant.agent(), rest_app.tenant()
    agent.login()
    rest_app.client().post("/v1/auth/tokens", json={"challenge_id": agent.challenge()["challenge_id"], "signature": "x"})
    assert other.owner.get(f"{tenant.path}/agents").status_code == 404
    entries = whole(rest_app, tenant.path, tenant.member(Role.ADMIN))
    found = [(each["action"], each["actor"], each["outcome"]) for each in entries]
    assert ("agent.login", agent.id, "done") in found
    assert ("agent.login", agent.id, "refused") in found
    assert ("tenant.trespass", "outsider", "refused") in found
    assert {each["address"] for each in entries} == {"127.0.0.1"}


def test_readers_can_verify_the_chain(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    for _ in range(3):
        tenant.agent().login()
    entries = whole(rest_app, tenant.path, tenant.owner)
    assert len(entries) >= 3
    before = ""
    for number, entry in enumerate(entries, 1):
        digest = entry.pop("digest")
        assert (entry["number"], entry["before"]) == (number, before)
        text = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert hashlib.sha256(text.encode()).hexdigest() == digest
        before = digest


def test_audit_contains_no_secrets(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    agent = tenant.agent(name="A name that is no secret")
    token = agent.login().token
    text = json.dumps(whole(rest_app, tenant.path, tenant.owner))
    assert agent.id in text
    assert token is not None
    for secret in (token, tenant.owner.token, "BEGIN SSH", "ssh-ed25519"):
        assert secret is not None
        assert secret not in text


def test_refused_owner_action_of_an_admin_is_in_the_audit(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    admin = tenant.member(Role.ADMIN)
    me = admin.get("/v1/me").json()["user_id"]
    assert admin.patch(f"{tenant.path}/members/{me}", json={"role": "owner"}).status_code == 403
    assert admin.delete(tenant.path).status_code == 403
    agent = tenant.agent().login()
    assert agent.post("/v1/tenants", json={"name": "An agent's own"}).status_code == 403
    found = {
        (each["actor"], each["facts"].get("attempt"))
        for each in whole(rest_app, tenant.path, tenant.owner)
        if each["action"] == "access.refused"
    }
    assert {
        (f"usr:{me}", "grant or revoke the owner role"),
        (f"usr:{me}", "delete the tenant"),
    } <= found
    assert len(found) == 3


def test_refusal_by_a_tool_is_in_the_audit_with_its_name(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    viewer = tenant.member(Role.VIEWER)
    answer = tenant.call_tool(viewer, "publish", channel=tenant.channel(), data=1)
    assert (answer.status_code, answer.json()["result"]["isError"]) == (200, True)
    (refused,) = (each for each in whole(rest_app, tenant.path, tenant.owner) if each["action"] == "access.refused")
    assert refused["facts"] == {
        "attempt": "publish messages",
        "code": "forbidden",
        "request": f"POST {tenant.path}/mcp publish",
    }


def test_list_filters_by_agent_action_and_time(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    one, other = tenant.agent(), tenant.agent()
    for agent in (one, other):
        agent.login()
        rest_app.client().post("/v1/auth/tokens", json={"challenge_id": agent.challenge()["challenge_id"], "signature": "x"})
    rest_app.run(rest_app.services.audit.counters.flush())

    def found(**query: str) -> set[tuple[str, str, str | None]]:
        answer = tenant.owner.get(f"{tenant.path}/audit", params={"limit": "200", **query})
        assert answer.status_code == 200, answer.text
        assert answer.json()["next_cursor"] is None
        return {(each["action"], each["outcome"], each["facts"].get("reason")) for each in answer.json()["items"]}

    assert found(agent=one.id, action="agent.login") == {
        ("agent.login", "done", None),
        ("agent.login", "refused", "bad_signature"),
    }
    assert ("agent.create", "done", None) in found(agent=one.id)
    assert found(action="agent", since="2000-01-01T00:00:00Z", until="2100-01-01T00:00:00Z") == found(action="agent")
    assert found(since="2100-01-01T00:00:00Z") == found(until="2000-01-01T00:00:00Z") == set()
    assert found(order="oldest", since="2100-01-01T00:00:00Z") == set()
    for wrong in ("yesterday", "2026-11-22", ""):
        answer = tenant.owner.get(f"{tenant.path}/audit", params={"since": wrong})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    first = tenant.owner.get(f"{tenant.path}/audit", params={"limit": 1, "action": "agent"}).json()["next_cursor"]
    other_filter = {"limit": 1, "action": "channel", "cursor": first}
    assert tenant.owner.get(f"{tenant.path}/audit", params=other_filter).json()["code"] == "bad_cursor"
