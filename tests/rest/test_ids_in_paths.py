"""Ids in paths: every record can be addressed by its id, whatever its characters, and by no other path."""

from __future__ import annotations

import socket
import string
from urllib.parse import quote, urlsplit

import pytest

from artcafe.model import Agent, AgentId, Channel, ChannelId, Member, Role, TenantId, UserId
from artcafe.observe.clock import now
from artcafe.sdk.client import Client
from artcafe.tables.tenant_store import RecordCount
from artcafe.wire.segments import segment_of
from tests.rest.rest_app import Caller, RestApp, Tenant
from tests.services.service_env import new_key

PRINTABLE = list(map(chr, range(0x20, 0x7F)))
ODD = [
    *(f"a{char}b" for char in PRINTABLE if char not in string.ascii_letters + string.digits),
    *(char for char in PRINTABLE if char not in string.ascii_letters + string.digits),
    "..",
    "../..",
    "a/../b",
    "//",
    "%2F",
    "%2e%2e",
    "~2e2e",
    "samlp|corp|ab/cd==",
    "https://orcid.example/0000-0002",
    "日本/語",
]
"""Every printable ASCII character except letters and digits, alone and within an id, and text that clients or proxies rewrite."""


@pytest.fixture
def older(rest_app: RestApp) -> Tenant:
    """Create a tenant of an older system, with an agent, a channel and a member for each unusual id."""
    tenant = rest_app.tenant()
    tenant_id, at = TenantId(tenant.id), now()
    rows, people = rest_app.store.tenant(tenant_id), rest_app.store.people(tenant_id)

    async def fill() -> None:
        for id in ODD:
            agent = Agent(tenant_id=tenant_id, id=AgentId(id), name=id, public_key=new_key(), created_at=at, updated_at=at)
            channel = Channel(tenant_id=tenant_id, id=ChannelId(id), name=id, created_at=at, updated_at=at)
            member = Member(user_id=UserId(id), tenant_id=tenant_id, role=Role.MEMBER, joined_at=at)
            await rows.transact([rows.insert_agent(agent), rows.insert_channel(channel), *people.insert_member(member)])
        for count in RecordCount:
            await rows.transact([rows.count(count, len(ODD))])

    rest_app.run(fill())
    return tenant


def everybody(tenant: Tenant) -> set[str]:
    return {each["user_id"] for each in tenant.owner.get(f"{tenant.path}/members?limit=200").json()["items"]}


@pytest.mark.parametrize("encode", [segment_of, lambda id: quote(id, safe="")], ids=["the SDK's form", "percent-encoded"])
def test_records_are_read_and_changed_by_any_id(older: Tenant, encode: object) -> None:
    assert callable(encode)
    for id in ODD:
        if encode is not segment_of and (id in {".", ".."} or id.startswith("~")):
            continue  # httpx2 removes the first two, as browsers do, and `~` starts the other form.
        for kind in ("agents", "channels"):
            found = older.owner.get(f"{older.path}/{kind}/{encode(id)}")
            assert (found.status_code, found.json()["id"]) == (200, id)
        changed = older.owner.patch(f"{older.path}/members/{encode(id)}", json={"role": "viewer"})
        assert (changed.status_code, changed.json()["user_id"]) == (200, id)
        path = f"{older.path}/channels/{encode(id)}/subscriptions/{encode(id)}"
        subscribed = older.owner.put(path)
        assert subscribed.status_code in {200, 201}, id
        assert subscribed.json()["id"] == f"{id}#{id}"
        if subscribed.status_code == 201:
            assert older.owner.get(subscribed.headers["Location"]).json() == subscribed.json()


def test_cursor_is_valid_for_both_forms_of_a_channels_path(older: Tenant) -> None:
    for agent in ("a/b", "//"):
        older.owner.put(f"{older.path}/channels/{segment_of('a/b')}/subscriptions/{segment_of(agent)}")
    first = older.owner.get(f"{older.path}/channels/a%2Fb/subscriptions?limit=1").json()
    rest = older.owner.get(f"{older.path}/channels/{segment_of('a/b')}/subscriptions?cursor={first['next_cursor']}")
    assert rest.status_code == 200
    assert {each["agent_id"] for each in (*first["items"], *rest.json()["items"])} == {"a/b", "//"}


@pytest.mark.parametrize("id", ["a\nb", "\x7f", "~invited", "x" * 300])
def test_member_of_an_older_system_with_an_invalid_id_can_be_removed(rest_app: RestApp, tenant: Tenant, id: str) -> None:
    member = Member(user_id=UserId(id), tenant_id=TenantId(tenant.id), role=Role.ADMIN, joined_at=now())
    rows, people = rest_app.store.tenant(member.tenant_id), rest_app.store.people(member.tenant_id)
    rest_app.run(rows.transact([rows.count(RecordCount.MEMBERS, 1), *people.insert_member(member)]))
    assert id in everybody(tenant)
    assert tenant.owner.delete(f"{tenant.path}/members/{segment_of(id)}").status_code == 204
    assert id not in everybody(tenant)


def test_foreign_ids_answer_404_in_either_form(rest_app: RestApp, older: Tenant) -> None:
    stranger = rest_app.person()
    for path in (older.path, f"/v1/tenants/~{older.id.encode().hex()}"):
        for target in ("", "/agents/a%2Fb", f"/agents/{segment_of('a/b')}", "/members/.."):
            assert raw(stranger, "GET" if target != "/members/.." else "DELETE", f"{path}{target}") == 404
    assert older.owner.get(f"/v1/tenants/~{older.id.encode().hex()}").json()["id"] == older.id


def raw(caller: Caller, method: str, target: str) -> int:
    """Return the status of a request with an unmodified target."""
    url = urlsplit(str(caller.base_url))
    with socket.create_connection((url.hostname, url.port or 0), 5) as connection:
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {caller.token}\r\n\r\n"
        connection.sendall(head.encode())
        return int(connection.makefile("rb").readline().split()[1])


def test_path_with_dot_segments_never_addresses_the_tenant(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    for target in ("members/..", "members/../", "members/%2e%2e", "members/.%2E/", "members/../..", "agents/..", "members/..%2F"):
        assert raw(tenant.owner, "DELETE", f"{tenant.path}/{target}") == 404, target
    assert raw(tenant.owner, "DELETE", f"{tenant.path}/") == 404
    assert tenant.owner.get(tenant.path).status_code == 200


@pytest.mark.parametrize("sub", [".", "..", "~x"])
def test_user_id_that_clients_cannot_send_safely_is_refused(rest_app: RestApp, tenant: Tenant, sub: str) -> None:
    caller = rest_app.user(sub)
    for answer in (
        caller.post("/v1/tenants", json={"name": "Mine"}),
        caller.post("/v1/invitations/acceptances", json={"token": tenant.invite("bob@example.com")["token"]}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


def test_user_id_with_a_slash_can_join_and_leave(rest_app: RestApp, tenant: Tenant) -> None:
    caller = rest_app.user("idp|a/b@example.com")
    accepted = caller.post("/v1/invitations/acceptances", json={"token": tenant.invite("idp|a/b@example.com")["token"]})
    assert accepted.status_code == 201
    assert caller.delete(f"{tenant.path}/members/{quote('idp|a/b@example.com', safe='')}").status_code == 204
    assert caller.get(tenant.path).status_code == 404


async def test_sdk_deletes_records_with_any_id_and_leaves_the_tenant(rest_app: RestApp, older: Tenant) -> None:
    async with Client(rest_app.url, older.owner.token) as rest:
        for id in ODD:
            assert (await rest.tenant(older.id).agents.get(id)).id == id
            await rest.tenant(older.id).channels.delete(id)
            await rest.tenant(older.id).agents.delete(id)
            await rest.tenant(older.id).members.remove(id)
        assert (await rest.tenant(older.id).get()).id == older.id
        assert [agent.id async for agent in rest.tenant(older.id).agents.list()] == []
        assert [member.role async for member in rest.tenant(older.id).members.list()] == ["owner"]
