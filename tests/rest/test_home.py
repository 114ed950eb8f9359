from __future__ import annotations

from datetime import datetime

from artcafe.model import Role
from tests.rest.rest_app import GATEWAY_URL, Caller, RestApp, Tenant


def test_entry_names_gateway_and_documents(anyone: Caller) -> None:
    home = anyone.get("/v1").json()
    time = datetime.fromisoformat(home.pop("time"))
    assert time.tzinfo is not None
    assert home == {
        "name": "artcafe",
        "version": "1.2.3",
        "gateway_url": GATEWAY_URL,
        "subprotocol": "artcafe.v1",
        "issuer": None,
        "console_client_id": None,
        "console_scope": "openid email",
        "terms_version": None,
        "openapi": "/openapi.json",
        "asyncapi": "/asyncapi.json",
    }


def test_me_returns_a_users_tenants_and_roles(rest_app: RestApp, tenant: Tenant) -> None:
    viewer = tenant.member(Role.VIEWER)
    own = viewer.post("/v1/tenants", json={"name": "Mine"}).json()
    me = viewer.get("/v1/me").json()
    assert me["user_id"].startswith("viewer-")
    assert sorted((each["tenant_id"], each["role"]) for each in me["tenants"]) == sorted(
        [(tenant.id, "viewer"), (own["id"], "owner")]
    )
    assert {each["name"] for each in me["tenants"] if each["tenant_id"] == own["id"]} == {"Mine"}


def test_new_user_has_no_tenants(rest_app: RestApp) -> None:
    assert rest_app.person().get("/v1/me").json()["tenants"] == []


def test_me_returns_an_agents_id_and_tenant(tenant: Tenant) -> None:
    agent = tenant.agent()
    assert agent.login().get("/v1/me").json() == {"agent_id": agent.id, "handle": "an-agent", "tenant_id": tenant.id}
