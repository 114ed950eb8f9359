"""Rate limits over REST: the headers, and refusals with 429."""

from __future__ import annotations

import json
import re
from typing import Final

import httpx2

from artcafe.model import TenantId
from artcafe.tables.catalog import TENANTS
from artcafe.tables.engine.writes import Add, Assign, Change, ItemKey, Update
from artcafe.tables.rows import IS_PRESENT
from tests.rest.rest_app import RestApp, Tenant

PARAMETER: Final = re.compile(r";([a-z*][a-z0-9_.*-]*)=(-?[0-9]{1,15})")
ITEM: Final = re.compile(rf'"([\x20-\x21\x23-\x5b\x5d-\x7e]*)"((?:{PARAMETER.pattern})*)')


def parsed(field: str) -> dict[str, dict[str, int]]:
    """Parse a List of Strings with Integer parameters (RFC 9651, sections 3.1 and 4.2), strictly."""
    found: dict[str, dict[str, int]] = {}
    for member in re.split(r"[ \t]*,[ \t]*", field):
        item = ITEM.fullmatch(member)
        assert item, field
        assert item[1] not in found, field
        found[item[1]] = {name: int(value) for name, value in PARAMETER.findall(item[2])}
    return found


def set_limits(rest_app: RestApp, tenant: Tenant, **limits: int) -> None:
    """Set limits of the tenant's own, as an operator does in its row."""
    changes: list[Change] = [Assign("limits", dict(limits)), Add("version", 1)]

    async def write() -> None:
        await rest_app.services.store._tables.update(Update(TENANTS, ItemKey(tenant.id), changes, IS_PRESENT))
        rest_app.services.invalidation.notify(TenantId(tenant.id))

    rest_app.run(write())


def policies(response: httpx2.Response) -> dict[str, dict[str, int]]:
    return parsed(response.headers["ratelimit-policy"])


def states(response: httpx2.Response) -> dict[str, dict[str, int]]:
    return parsed(response.headers["ratelimit"])


def test_tools_spend_the_limits_of_calls_and_messages(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    set_limits(rest_app, tenant, messages_a_minute=1, api_calls_a_minute=3)
    channel = tenant.channel()
    sent = [tenant.call_tool(tenant.owner, "publish", channel=channel, data=1) for _ in range(2)]
    assert [each.json()["result"]["isError"] for each in sent] == [False, True]
    error = json.loads(sent[1].json()["result"]["content"][0]["text"])["error"]
    assert (error["code"], error["can_retry"], error["retry_after_s"] > 0) == ("too_fast", True, True)
    assert {"messages_a_minute", "api_calls_a_minute"} == set(states(sent[1]))
    refused = tenant.call_tool(tenant.owner, "whoami")
    assert (refused.status_code, refused.json()["code"]) == (429, "too_fast")


def test_every_response_in_a_tenant_has_its_policy_and_what_remains(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    set_limits(rest_app, tenant, api_calls_a_minute=20)
    seen = [tenant.owner.get(f"{tenant.path}/agents") for _ in range(3)]
    assert [policies(each) for each in seen] == [{"api_calls_a_minute": {"q": 20, "w": 60}}] * 3
    assert [states(each)["api_calls_a_minute"]["r"] for each in seen] == [19, 18, 17]
    assert all(0 < states(each)["api_calls_a_minute"]["t"] <= 63 for each in seen)


def test_calls_above_the_limit_get_429_with_the_limit_and_when_to_try_again(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    set_limits(rest_app, tenant, api_calls_a_minute=2)
    assert [tenant.owner.get(f"{tenant.path}/agents").status_code for _ in range(2)] == [200, 200]
    refused = tenant.owner.get(f"{tenant.path}/agents")
    problem = refused.json()
    assert (refused.status_code, problem["code"]) == (429, "too_fast")
    assert (problem["limit"]["name"], problem["limit"]["limit"], problem["limit"]["used"]) == ("api_calls_a_minute", 2, 2)
    assert 0 < int(refused.headers["retry-after"]) <= 63
    state = states(refused)["api_calls_a_minute"]
    assert state["r"] == 0
    assert abs(state["t"] - int(refused.headers["retry-after"])) <= 1
    other = rest_app.tenant()
    assert other.owner.get(f"{other.path}/agents").status_code == 200


def test_publish_above_the_limit_gets_429_and_stores_nothing(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    channel = tenant.owner.post(f"{tenant.path}/channels", json={"name": "updates"}).json()["id"]
    set_limits(rest_app, tenant, messages_a_minute=2)
    answers = [tenant.owner.post(f"{tenant.path}/channels/{channel}/messages", json={"data": number}) for number in range(4)]
    assert [each.status_code for each in answers] == [201, 201, 429, 429]
    assert [states(each)["messages_a_minute"]["r"] for each in answers] == [1, 0, 0, 0]
    assert policies(answers[0])["messages_a_minute"] == {"q": 2, "w": 60}
    assert answers[2].json()["limit"]["name"] == "messages_a_minute"
    assert len(tenant.owner.get(f"{tenant.path}/channels/{channel}/messages").json()["items"]) == 2


def test_limits_show_the_use_of_rates_and_connections(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    channel = tenant.owner.post(f"{tenant.path}/channels", json={"name": "updates"}).json()["id"]
    set_limits(rest_app, tenant, messages_a_minute=100, messages_a_month=1000, api_calls_a_minute=500)
    for number in range(3):
        assert tenant.owner.post(f"{tenant.path}/channels/{channel}/messages", json={"data": number}).status_code == 201
    found = {each["name"]: each for each in tenant.owner.get(f"{tenant.path}/limits").json()["items"]}
    assert {name: (found[name]["used"], found[name]["left"]) for name in ("messages_a_minute", "messages_a_month")} == {
        "messages_a_minute": (3, 97),
        "messages_a_month": (3, 997),
    }
    assert found["messages_a_minute"]["resets_at"] is not None
    assert found["api_calls_a_minute"]["used"] >= 4
    assert (found["connections"]["used"], found["agent_connections"]["used"]) == (0, 0)
