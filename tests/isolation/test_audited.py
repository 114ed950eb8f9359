"""The audit records every changing route, before and after the change, without secrets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import httpx2
import pytest

from artcafe.model import Outcome, TenantId
from artcafe.rules.access import Action
from tests.isolation import tool_matrix
from tests.isolation.matrix import Matrix, disposable_ids
from tests.isolation.route_rules import PARAMETER, TABLE, CallerKind, K, S, T
from tests.rest.rest_app import RestApp

CHANGING: Final = [route for route in TABLE if PARAMETER.search(route) and not route.startswith("GET ")]
MCP: Final = f"POST {T}/mcp"
"""Its tools refuse in a result, with status 200."""
NOT_AUDITED: Final[Mapping[str, str]] = {
    MCP: "its tools store messages at most",
    f"POST {T}/agents/{{agent_id}}/requests": "nothing is stored, and the audit never contains a payload",
    f"POST {T}/channels/{{channel_id}}/messages": "the log stores the message, and the audit never contains a payload",
}
"""Changing routes of a tenant without audit entries, and the reason."""
BY_AGENTS_ONLY: Final[Mapping[str, str]] = {
    f"POST {T}/agents/{{agent_id}}/acks": "an agent settles its own messages; the attempts of others are audited",
}
"""Changing routes of a tenant that no person may call, and the reason."""
OTHER_AUDITS: Final[Mapping[str, str]] = {
    "POST /v1/auth/challenges": "nothing is proven yet; the outcome is audited as agent.login",
    "POST /v1/auth/console-codes": "changes nothing of a tenant",
    "POST /v1/auth/console-tokens": "signs a person in, who belongs to no tenant yet",
    "POST /v1/auth/tokens": "agent.login, counted by the minute",
    "POST /v1/terms/acceptances": "terms.accept, in the platform's audit",
    "POST /v1/tenants": "tenant.create, in the audit of the new tenant",
    "POST /v1/invitations/acceptances": "member.join, in the audit of the joined tenant",
}
"""Changing routes outside a tenant's path, and their audit entries; the story below has each."""
CHANGES: Final[Mapping[str, Any]] = {
    f"PATCH {S}": {"status": "paused"},
    f"PUT {S}": {"permissions": ["publish"]},
    f"PATCH {K}/{{key_id}}": {"status": "disabled"},
}
"""Bodies that change existing records, where those of the matrix do not."""
PAYLOAD: Final = "a-payload-never-audited"


def of_request(matrix: Matrix, answer: httpx2.Response) -> list[dict[str, Any]]:
    """Return the tenant's audit entries for one request, oldest first."""
    audit = matrix.ours.tenant.owner.get(f"{matrix.ours.tenant.path}/audit", params={"limit": 200})
    assert audit.status_code == 200, audit.text
    return [each for each in reversed(audit.json()["items"]) if each["request_id"] == answer.headers["x-request-id"]]


def of_deletion(rest_app: RestApp, tenant_id: str | None, answer: httpx2.Response) -> list[Outcome]:
    """Return the outcomes of one request in an audit without a route: a deleted tenant's, or the platform's."""
    page = rest_app.run(rest_app.audit.list_any(None if tenant_id is None else TenantId(tenant_id)))
    entries = [line.entry for line in reversed(page.items)]
    return [each.outcome for each in entries if each.request_id == answer.headers["x-request-id"]]


def test_every_changing_route_is_tested() -> None:
    outside = {route for route in TABLE if not PARAMETER.search(route) and not route.startswith("GET ")}
    assert outside == set(OTHER_AUDITS)
    assert set(NOT_AUDITED) <= set(CHANGING)
    assert set(BY_AGENTS_ONLY) == {route for route in CHANGING if TABLE[route].there[CallerKind.OWNER] == 403}


@pytest.mark.parametrize("route", [route for route in CHANGING if route not in BY_AGENTS_ONLY])
def test_change_by_a_person_is_audited_before_and_after(matrix: Matrix, route: str) -> None:
    is_removal = route.startswith("DELETE ")
    ids = disposable_ids(route, matrix.ours) if is_removal else matrix.ours.ids()
    body = CHANGES.get(route) or matrix.body_of(route)
    done = matrix.send(CallerKind.OWNER, route, ids, body)
    assert done.is_success or done.status_code == TABLE[route].there[CallerKind.OWNER], done.text
    if route == f"DELETE {T}":
        for tenant_id in (ids["tenant_id"], None):
            assert of_deletion(matrix.rest_app, tenant_id, done) == [Outcome.INTENDED, Outcome.DONE]
        return
    entries_of_request = of_request(matrix, done)
    assert [each["outcome"] for each in entries_of_request] == ([] if route in NOT_AUDITED else ["intended", "done"])
    for entry in entries_of_request:
        assert (entry["actor"], entry["address"]) == (f"usr:{user_id(matrix)}", "127.0.0.1")
        assert entry["target"] is not None


@pytest.mark.parametrize("route", [route for route in CHANGING if route != MCP])
def test_refused_change_is_not_audited_as_done(matrix: Matrix, route: str) -> None:
    refused = matrix.send(CallerKind.VIEWER, route, matrix.ours.ids(), matrix.body_of(route))
    assert refused.status_code == 403
    entries_of_request = of_request(matrix, refused)
    assert "done" not in [each["outcome"] for each in entries_of_request]


@pytest.mark.parametrize("route", [route for route in CHANGING if route not in NOT_AUDITED])
def test_refused_attempt_is_audited_with_the_caller(matrix: Matrix, route: str) -> None:
    matrix.rest_app.run(matrix.rest_app.audit.counters.flush())
    refused = matrix.send(CallerKind.VIEWER, route, matrix.ours.ids(), matrix.body_of(route))
    assert refused.status_code == 403
    matrix.rest_app.run(matrix.rest_app.audit.counters.flush())
    audit = matrix.ours.tenant.owner.get(f"{matrix.ours.tenant.path}/audit", params={"limit": 1}).json()["items"]
    (entry,) = audit
    assert (entry["action"], entry["outcome"], entry["facts"]["code"]) == ("access.refused", "refused", "forbidden")
    assert entry["facts"]["request"] == f"{refused.request.method} {refused.request.url.raw_path.decode()}"
    assert entry["actor"].startswith("usr:")


def test_refused_tool_is_audited_with_the_caller(matrix: Matrix) -> None:
    arguments = tool_matrix.arguments_of(matrix.ours, tool_matrix.TOOLS["publish"])
    _, refused = tool_matrix.call(matrix, CallerKind.VIEWER, matrix.ours.tenant.id, "publish", arguments)
    assert tool_matrix.code_of(refused) == "forbidden"
    matrix.rest_app.run(matrix.rest_app.audit.counters.flush())
    (entry,) = matrix.ours.tenant.owner.get(f"{matrix.ours.tenant.path}/audit", params={"limit": 1}).json()["items"]
    assert (entry["action"], entry["outcome"], entry["facts"]["code"]) == ("access.refused", "refused", "forbidden")
    assert entry["facts"]["request"].endswith("/mcp publish")
    assert entry["actor"].startswith("usr:")


def test_attempt_on_a_hidden_channel_is_in_the_audit_though_the_agent_gets_404(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    agent, channel = tenant.agent(), tenant.channel(access="managed")
    attempts = {"GET": "", "POST": "/messages", "PUT": f"/subscriptions/{agent.id}"}
    for method, path in attempts.items():
        body = {"data": PAYLOAD} if method == "POST" else None
        refused = agent.login().request(method, f"{tenant.path}/channels/{channel}{path}", json=body)
        assert (refused.status_code, refused.json()["code"]) == (404, "channel_not_found")
    rest_app.run(rest_app.audit.counters.flush())
    query = {"action": "access.refused"}
    entries = tenant.owner.get(f"{tenant.path}/audit", params=query).json()["items"]
    assert {each["facts"]["request"].split()[0] for each in entries} == set(attempts)
    assert {(each["actor"], each["facts"]["code"], each["facts"]["attempt"]) for each in entries} == {
        (agent.id, "forbidden", Action.READ_HIDDEN.value)
    }


def user_id(matrix: Matrix) -> str:
    return str(matrix.ours.tenant.owner.get("/v1/me").json()["user_id"])


def test_audit_answers_the_questions_of_an_organisation(rest_app: RestApp) -> None:
    """It has logins and their failures, keys, members, roles, terms, deletions, attempts from outside, and no secrets."""
    tenant, stranger = rest_app.tenant(), rest_app.tenant()
    agent, channel = tenant.agent(), tenant.channel()
    tenant.subscribed(channel, agent)
    caller, failed = agent.login(), rest_app.client()
    failed.post("/v1/auth/tokens", json={"challenge_id": agent.challenge()["challenge_id"], "signature": "a-bad-signature"})
    key = agent.another_key()
    for status in ("disabled", "active"):
        assert tenant.owner.patch(f"{agent.path}/keys/{key}", json={"status": status}).is_success
    assert tenant.owner.delete(f"{agent.path}/keys/{key}").is_success
    invitation = tenant.invite("bob@example.com")
    bob = rest_app.user("bob@example.com")
    assert bob.post("/v1/invitations/acceptances", json={"token": invitation["token"]}).status_code == 201
    assert tenant.owner.patch(f"{tenant.path}/members/bob@example.com", json={"role": "admin"}).is_success
    assert tenant.owner.delete(f"{tenant.path}/members/bob@example.com").is_success
    assert stranger.owner.get(tenant.path).status_code == 404
    publish = f"{tenant.path}/channels/{channel}/messages"
    assert caller.post(publish, json={"data": PAYLOAD}).status_code == 201
    assert tenant.owner.delete(agent.path).is_success
    assert tenant.owner.delete(f"{tenant.path}/channels/{channel}").is_success
    rest_app.run(rest_app.audit.counters.flush())

    entries = tenant.owner.get(f"{tenant.path}/audit", params={"limit": 200}).json()["items"]
    assert {(each["action"], each["outcome"]) for each in entries} == {
        ("agent.login", "done"),
        ("agent.login", "refused"),
        ("tenant.trespass", "refused"),
        *(
            (action, outcome)
            for outcome in ("intended", "done")
            for action in (
                "tenant.create",
                "agent.create",
                "agent.delete",
                "channel.create",
                "channel.delete",
                "subscription.create",
                "key.add",
                "key.disable",
                "key.enable",
                "key.revoke",
                "invitation.create",
                "member.join",
                "member.role",
                "member.remove",
            )
        ),
    }
    platform = rest_app.run(rest_app.audit.list_any(None)).items
    named = {(line.entry.action, line.entry.actor) for line in platform}
    assert {("terms.accept", "usr:bob@example.com"), ("tenant.trespass", f"usr:{me(stranger.owner)}")} <= named
    text = json.dumps(entries) + str(platform)
    secrets = (PAYLOAD, "a-bad-signature", "ssh-ed25519", invitation["token"], caller.token, tenant.owner.token)
    assert not [secret for secret in secrets if secret is None or secret in text]


def me(caller: Any) -> str:
    return str(caller.get("/v1/me").json()["user_id"])
