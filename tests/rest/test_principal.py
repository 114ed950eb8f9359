from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.model import AgentId, AgentPrincipal, TenantId
from artcafe.observe.clock import now
from tests.rest.rest_app import Caller, RestApp, Tenant


def code(caller: Caller, path: str = "/v1/me", **headers: str) -> tuple[int, str]:
    answer = caller.get(path, headers=headers)
    assert answer.headers.get("www-authenticate") == ("Bearer" if answer.status_code == 401 else None)
    return answer.status_code, answer.json().get("code")


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
def test_authorization_scheme_is_case_insensitive(rest_app: RestApp, anyone: Caller, scheme: str) -> None:
    assert code(anyone, authorization=f"{scheme} {rest_app.person().token}")[0] == 200


@pytest.mark.parametrize("header", ["", "Bearer", "Basic YTpi", "Token x", "x"])
def test_other_authorization_is_refused(anyone: Caller, header: str) -> None:
    assert code(anyone, authorization=header) == (401, "unauthenticated")


@given(text=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1))
def test_arbitrary_text_is_refused_as_a_token(anyone: Caller, text: str) -> None:
    assert code(anyone, authorization=f"Bearer {text}") == (401, "unauthenticated")


@pytest.fixture(scope="module")
def token(rest_app: RestApp) -> str:
    return rest_app.identity.issue("alice", now())


@given(data=st.data())
def test_changed_token_is_refused(anyone: Caller, token: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(token) - 2))  # The last character has unused bits.
    other = data.draw(st.sampled_from([char for char in "Aa0_-.=" if char != token[at]]))
    assert code(anyone, authorization=f"Bearer {token[:at]}{other}{token[at + 1 :]}") == (401, "unauthenticated")


def test_expired_user_token_answers_credentials_expired(rest_app: RestApp) -> None:
    late = rest_app.client(rest_app.identity.issue("alice", now() - timedelta(days=1)))
    assert code(late) == (401, "credentials_expired")


def test_expired_agent_token_answers_credentials_expired(rest_app: RestApp, tenant: Tenant) -> None:
    principal = AgentPrincipal(agent_id=AgentId(tenant.agent().id), tenant_id=TenantId(tenant.id), epoch=0)
    assert code(rest_app.client(rest_app.tokens.mint(principal, now() - timedelta(hours=1)))) == (401, "credentials_expired")


@pytest.mark.parametrize("change", ["disabled", "re-keyed", "deleted"])
def test_agents_token_is_revoked_by_a_change_of_the_agent(rest_app: RestApp, tenant: Tenant, change: str) -> None:
    agent = tenant.agent()
    caller = agent.login()
    assert code(caller)[0] == 200
    if change == "deleted":
        assert tenant.owner.delete(agent.path).status_code == 204
    else:
        key = rest_app.key().with_suffix(".pub").read_text()
        body = {"status": "disabled"} if change == "disabled" else {"public_key": key}
        assert tenant.owner.patch(agent.path, json=body).status_code == 200
    assert code(caller) == (401, "revoked")


def test_tenant_outside_the_path_is_ignored_or_refused(rest_app: RestApp, tenant: Tenant) -> None:
    mine = rest_app.tenant()
    mine.agent()
    named = {"X-Tenant-Id": mine.id, "Tenant": mine.id, "Cookie": f"tenant_id={mine.id}"}
    assert mine.owner.get(f"{tenant.path}/agents", headers=named).json()["code"] == "tenant_not_found"
    assert mine.owner.get(f"{tenant.path}/agents", params={"tenant_id": mine.id}).json()["code"] == "tenant_not_found"
    body = {"name": "x", "tenant_id": tenant.id}
    answer = mine.owner.post(f"{mine.path}/channels", json=body)
    assert (answer.status_code, answer.json()["errors"]) == (422, [{"field": "tenant_id", "problem": "is unknown"}])


def test_authentication_precedes_validation(anyone: Caller, tenant: Tenant, rest_app: RestApp) -> None:
    assert anyone.post(f"{tenant.path}/agents", content=b"{").status_code == 401
    assert anyone.get(f"{tenant.path}/agents?limit=x").status_code == 401
    assert rest_app.person().post(f"{tenant.path}/agents", content=b"{").status_code == 404


def test_agent_cannot_list_tenants(tenant: Tenant) -> None:
    caller = tenant.agent().login()
    assert code(caller, "/v1/tenants") == (403, "forbidden")
    assert caller.post("/v1/tenants", json={"name": "Mine"}).status_code == 403
