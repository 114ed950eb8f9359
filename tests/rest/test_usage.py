from __future__ import annotations

from typing import Any

import pytest

from artcafe.model import Role, TenantId
from artcafe.rules.usage import Metric
from tests.rest.rest_app import Caller, RestApp, Tenant


def usage(caller: Caller, tenant: Tenant, **query: str | int) -> dict[str, Any]:
    answer = caller.get(f"{tenant.path}/usage", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def values(caller: Caller, tenant: Tenant, **query: str | int) -> dict[str, int | None]:
    return {each["name"]: each["value"] for each in usage(caller, tenant, **query)["items"]}


def flush(rest_app: RestApp) -> None:
    rest_app.run(rest_app.services.usage_counters.flush())


def test_current_month_has_every_metric_and_null_for_what_was_never_counted(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    items = usage(tenant.owner, tenant)["items"]
    assert [each["name"] for each in items] == [metric.value for metric in Metric]
    assert {each["value"] for each in items} == {None}
    assert all(each["exact"] is False and "bound" not in each for each in items)


def test_requests_of_every_principal_of_the_tenant_are_counted_by_agent(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    agent = tenant.agent()
    as_agent = agent.login()
    for _ in range(3):
        assert as_agent.get(agent.path).status_code == 200
    assert as_agent.delete(agent.path).status_code == 403
    assert tenant.call_tool(as_agent, "agents_find").status_code == 200
    assert tenant.call_tool(as_agent, "no_such_tool").status_code == 200
    stranger = rest_app.person()
    assert stranger.get(tenant.path).status_code == 404
    flush(rest_app)
    found = usage(tenant.owner, tenant, metric="api_calls", by="agent")["items"]
    assert {each["agent"]: each["value"] for each in found}[agent.id] == 6
    handle = tenant.owner.get(agent.path).json()["handle"]
    assert {each["agent"]: each.get("agent_handle") for each in found} == {
        agent.id: handle,
        next(each["agent"] for each in found if each["agent"].startswith("usr:")): None,
    }


def test_live_messages_are_counted_by_sender_and_channel(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    live, stored = tenant.channel(type="live"), tenant.channel()
    for channel in (live, live, stored):
        path = f"{tenant.path}/channels/{channel}/messages"
        assert tenant.owner.post(path, json={"data": 1}).status_code == 201
    flush(rest_app)
    assert values(tenant.owner, tenant, metric="messages_live") == {"messages_live": 2}
    (by_channel,) = usage(tenant.owner, tenant, metric="messages_live", by="channel")["items"]
    assert (by_channel["channel"], by_channel["value"]) == (live, 2)
    (by_agent,) = usage(tenant.owner, tenant, metric="messages_live", by="agent")["items"]
    assert by_agent["agent"].startswith("usr:")


def test_days_of_a_month_are_listed_on_request_over_several_pages(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    first = usage(tenant.owner, tenant, period="2026-01", every="day", metric="deliveries", limit=30)
    assert [each["period"] for each in first["items"]] == [f"2026-01-{day:02}" for day in range(1, 31)]
    rest = usage(tenant.owner, tenant, period="2026-01", every="day", metric="deliveries", limit=30, cursor=first["next_cursor"])
    assert [each["period"] for each in rest["items"]] == ["2026-01-31"]
    assert rest["next_cursor"] is None


def test_parts_are_listed_over_several_pages(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()

    async def count() -> None:
        for number in range(7):
            rest_app.services.usage_counters.count(TenantId(tenant.id), Metric.REQUESTS, number + 1, agent=f"agt_{number}")

    rest_app.run(count())
    flush(rest_app)
    found: list[str] = []
    query: dict[str, Any] = {"metric": "requests", "by": "agent", "limit": 3}
    while True:
        page = usage(tenant.owner, tenant, **query)
        found += [each["agent"] for each in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert found == [f"agt_{number}" for number in range(7)]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"period": "2026-13"}, "2026-11-28T10"),
        ({"period": "november"}, "2026-11-28T10"),
        ({"metric": "messages"}, "messages_stored, bytes_stored"),
        ({"by": "user"}, "agent, channel"),
        ({"every": "minute"}, "day, hour"),
        ({"every": "day", "period": "2026-11-28"}, "must be hour for a day"),
        ({"every": "hour", "period": "2026-11-28T10"}, "hour"),
        ({"by": "agent", "every": "day"}, "cannot be combined"),
        ({"by": "agent", "period": "2026-11-28T10"}, "day or a month"),
        ({"by": "channel", "metric": "requests"}, "messages_stored, bytes_stored, messages_live, deliveries"),
        ({"metrics": "deliveries"}, "metrics"),
    ],
)
def test_invalid_query_names_what_is_allowed(owner: Caller, tenant: Tenant, query: dict[str, str], text: str) -> None:
    answer = owner.get(f"{tenant.path}/usage", params=query)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert text in answer.text


def test_only_admins_and_owners_read_usage(tenant: Tenant) -> None:
    path = f"{tenant.path}/usage"
    assert tenant.member(Role.ADMIN).get(path).status_code == 200
    for other in (tenant.member(Role.MEMBER), tenant.member(Role.VIEWER), tenant.agent().login()):
        assert (other.get(path).status_code, other.get(path).json()["code"]) == (403, "forbidden")


def test_usage_of_a_foreign_tenant_is_answered_like_that_of_an_unknown_one(rest_app: RestApp, tenant: Tenant) -> None:
    stranger = rest_app.tenant().owner
    foreign, unknown = stranger.get(f"{tenant.path}/usage"), stranger.get("/v1/tenants/ten_unknown/usage")
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.json()["code"] == unknown.json()["code"] == "tenant_not_found"
