from __future__ import annotations

import itertools

import pytest

from tests.rest.rest_app import Caller, RestApp, Tenant

COUNT = 7


@pytest.fixture(scope="module")
def full(rest_app: RestApp) -> Tenant:
    """Create a tenant with seven agents of one capability, all subscribed to each of seven channels."""
    tenant = rest_app.tenant()
    agents = [tenant.agent(capabilities=["plan"]) for _ in range(COUNT)]
    channels = [tenant.channel() for _ in range(COUNT)]
    for agent in agents:
        tenant.subscribed(channels[0], agent)
    for channel in channels[1:]:
        tenant.subscribed(channel, agents[0])
    return tenant


def some(full: Tenant, kind: str) -> str:
    return str(full.owner.get(f"{full.path}/{kind}").json()["items"][0]["id"])


def lists(full: Tenant) -> list[str]:
    return [
        f"{full.path}/agents",
        f"{full.path}/channels",
        f"{full.path}/channels/{some(full, 'channels')}/subscriptions",
        f"{full.path}/agents/{some(full, 'agents')}/subscriptions",
    ]


def walk(caller: Caller, path: str, **query: str | int) -> list[list[str]]:
    pages, cursor = [], None
    while True:
        answer = caller.get(path, params={**query, **({"cursor": cursor} if cursor else {})})
        assert answer.status_code == 200, answer.text
        pages.append([each["id"] for each in answer.json()["items"]])
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return pages


@pytest.mark.parametrize("limit", [1, 3, COUNT, 200])
def test_pages_list_each_record_once_in_order(full: Tenant, limit: int) -> None:
    for path in lists(full):
        pages = walk(full.owner, path, limit=limit)
        ids = [id for page in pages for id in page]
        assert len(ids) == len(set(ids)) == COUNT
        assert ids == [id for page in walk(full.owner, path) for id in page]
        assert max(map(len, pages)) <= limit


def test_pages_list_each_of_a_users_tenants_once(rest_app: RestApp) -> None:
    person = rest_app.person()
    made = {person.post("/v1/tenants", json={"name": str(n)}).json()["id"] for n in range(3)}
    assert {id for page in walk(person, "/v1/tenants", limit=1) for id in page} == made
    assert {each["tenant_id"] for each in person.get("/v1/me").json()["tenants"]} == made


def test_filter_applies_to_all_pages(full: Tenant) -> None:
    other = full.agent()
    assert other.id not in [id for page in walk(full.owner, f"{full.path}/agents", limit=2, capability="plan") for id in page]
    assert full.owner.delete(other.path).status_code == 204


def test_cursor_is_bound_to_its_list(rest_app: RestApp, full: Tenant) -> None:
    agents, channels, *_ = lists(full)
    cursor = full.owner.get(agents, params={"limit": 1}).json()["next_cursor"]
    stranger = rest_app.tenant()
    for caller, path, query in (
        (full.owner, channels, {}),
        (full.owner, agents, {"capability": "plan"}),
        (full.owner, "/v1/tenants", {}),
        (stranger.owner, f"{stranger.path}/agents", {}),
        (stranger.owner, "/v1/tenants", {}),
    ):
        answer = caller.get(path, params={**query, "cursor": cursor})
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_cursor")
    assert full.owner.get(agents, params={"cursor": cursor, "limit": 5}).status_code == 200


def test_cursor_with_a_flipped_bit_is_refused(full: Tenant) -> None:
    path = f"{full.path}/agents"
    cursor = full.owner.get(path, params={"limit": 1}).json()["next_cursor"]
    found = set()
    for place, bit in itertools.product(range(len(cursor)), range(8)):
        changed = bytearray(cursor.encode())
        changed[place] ^= 1 << bit
        escaped = "".join(f"%{byte:02X}" for byte in changed)
        answer = full.owner.get(f"{path}?cursor={escaped}")
        found.add((answer.status_code, answer.json()["code"]))
    assert found == {(400, "bad_cursor")}


@pytest.mark.parametrize("cursor", ["", "x", "agt_00000000000000000000000000", "A" * 5000, "é"])
def test_forged_cursor_is_refused(tenant: Tenant, cursor: str) -> None:
    answer = tenant.owner.get(f"{tenant.path}/agents", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_cursor")


def test_cursor_reveals_nothing_about_its_position(full: Tenant) -> None:
    first = full.owner.get(f"{full.path}/agents", params={"limit": 1}).json()
    assert first["items"][0]["id"] not in first["next_cursor"]
