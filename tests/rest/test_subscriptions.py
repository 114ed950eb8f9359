from __future__ import annotations

from datetime import datetime

import pytest

from artcafe.model import Role
from artcafe.observe.clock import now
from tests.rest.rest_app import Caller, Tenant

ATTRIBUTES = {
    "id", "tenant_id", "channel_id", "channel_handle", "agent_id", "agent_handle", "status",
    "permissions", "cursor", "lag", "last_seen",
    "created_at", "updated_at",
}  # fmt: skip


def test_put_creates_a_subscription_once(tenant: Tenant, owner: Caller) -> None:
    channel, agent = tenant.channel(), tenant.agent()
    path = f"{tenant.path}/channels/{channel}/subscriptions/{agent.id}"
    made, again = owner.put(path), owner.put(path, json={})
    assert (made.status_code, made.headers["location"]) == (201, path)
    assert (again.status_code, again.headers.get("location")) == (200, None)
    assert made.json() == again.json() == owner.get(path).json()
    assert set(made.json()) == ATTRIBUTES
    assert (
        made.json() | {"id": f"{channel}#{agent.id}", "channel_id": channel, "agent_id": agent.id, "status": "active"}
        == made.json()
    )
    assert set(made.json()["cursor"]) == {"epoch", "seq"}


def test_subscription_is_listed_by_channel_and_by_agent(tenant: Tenant, owner: Caller) -> None:
    channel, agent, other = tenant.channel(), tenant.agent(), tenant.agent()
    one, two = (owner.get(tenant.subscribed(channel, each)).json() for each in (agent, other))
    assert owner.get(f"{tenant.path}/channels/{channel}/subscriptions").json()["items"] == sorted(
        [one, two], key=lambda each: str(each["id"])
    )
    assert owner.get(f"{agent.path}/subscriptions").json() == {"items": [one], "next_cursor": None}


def test_subscription_and_receipt_have_the_present_handles_of_agent_and_channel(tenant: Tenant, owner: Caller) -> None:
    channel, agent = tenant.channel(handle="weather"), tenant.agent(handle="meteorologist")
    path = tenant.subscribed(channel, agent)
    names = ("channel_handle", "agent_handle")
    assert [owner.get(path).json()[name] for name in names] == ["weather", "meteorologist"]
    assert owner.patch(agent.path, json={"handle": "forecaster"}).status_code == 200
    assert owner.patch(f"{tenant.path}/channels/{channel}", json={"handle": "climate"}).status_code == 200
    for listed in (f"{tenant.path}/channels/{channel}/subscriptions", f"{agent.path}/subscriptions"):
        (item,) = owner.get(listed).json()["items"]
        assert [item[name] for name in names] == ["climate", "forecaster"]
    inbox = owner.get(f"{tenant.path}/channels/@{agent.id}/subscriptions/{agent.id}").json()
    assert [inbox[name] for name in names] == [None, "forecaster"]
    seq = owner.post(f"{tenant.path}/channels/{channel}/messages", json={"data": 1}).json()["seq"]
    (receipt,) = owner.get(f"{tenant.path}/channels/{channel}/messages/{seq}/receipts").json()["items"]
    assert (receipt["agent_id"], receipt["agent_handle"]) == (agent.id, "forecaster")


def test_new_subscription_starts_after_the_newest_message(tenant: Tenant, owner: Caller) -> None:
    channel = tenant.channel()
    seq = owner.post(f"{tenant.path}/channels/{channel}/messages", json={"data": 1}).json()["seq"]
    assert owner.get(tenant.subscribed(channel, tenant.agent())).json()["cursor"]["seq"] == seq


def test_subscription_is_paused_and_resumed(tenant: Tenant, owner: Caller) -> None:
    path = tenant.subscribed(tenant.channel(), tenant.agent())
    for status in ("paused", "active"):
        answer = owner.patch(path, json={"status": status})
        assert (answer.status_code, answer.json()["status"]) == (200, status)
        assert owner.get(path).json() == answer.json()
    assert owner.put(path).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"status": "away"},
        {"status": None},
        {"cursor": -1},
        {"cursor": "soon"},
        {"cursor": True},
        {"cursor": 10**17},
        {"seq": 1},
    ],
)
def test_invalid_patch_is_refused(tenant: Tenant, owner: Caller, body: dict[str, object]) -> None:
    assert owner.patch(tenant.subscribed(tenant.channel(), tenant.agent()), json=body).status_code == 422


@pytest.mark.promise("m1")
def test_lag_counts_the_channels_own_messages_above_each_cursor(tenant: Tenant, owner: Caller) -> None:
    channel, other = tenant.channel(), tenant.channel()
    early = tenant.agent()
    tenant.subscribed(channel, early)
    for name in (channel, other, channel, other, channel):
        seq = owner.post(f"{tenant.path}/channels/{name}/messages", json={"data": 1}).json()["seq"]
    late = tenant.agent()
    tenant.subscribed(channel, late)
    owner.patch(f"{tenant.path}/channels/{channel}/subscriptions/{early.id}", json={"cursor": seq - 2})
    items = owner.get(f"{tenant.path}/channels/{channel}/subscriptions").json()["items"]
    assert {each["agent_id"]: each["lag"] for each in items} == {early.id: 1, late.id: 0}
    path = f"{tenant.path}/channels/{channel}/subscriptions/{early.id}"
    assert owner.patch(path, json={"cursor": "first"}).json()["lag"] == 3
    (listed,) = owner.get(f"{early.path}/subscriptions").json()["items"]
    assert (listed["lag"], listed["last_seen"]) == (3, None)


@pytest.mark.promise("m5")
def test_cursor_is_moved_to_a_sequence_and_to_the_first_message(tenant: Tenant, owner: Caller) -> None:
    path = tenant.subscribed(channel := tenant.channel(), tenant.agent())
    messages = f"{tenant.path}/channels/{channel}/messages"
    seq = [owner.post(messages, json={"data": 1}).json()["seq"] for _ in range(2)][1]
    for place, expected in ((seq, seq), ("first", 0), ("last", seq), ("2026-01-01T00:00:00Z", seq - 2)):
        answer = owner.patch(path, json={"cursor": place})
        assert (answer.status_code, answer.json()["cursor"]["seq"]) == (200, expected), place
    both = owner.patch(path, json={"cursor": "last", "status": "paused"}).json()
    assert (both["cursor"]["seq"], both["status"]) == (seq, "paused")


@pytest.mark.promise("m6")
def test_move_is_in_the_audit_with_both_positions(tenant: Tenant, owner: Caller) -> None:
    agent = tenant.agent()
    path = tenant.subscribed(channel := tenant.channel(), agent)
    seq = owner.post(f"{tenant.path}/channels/{channel}/messages", json={"data": 1}).json()["seq"]
    assert owner.patch(path, json={"cursor": seq}).status_code == 200
    entries = owner.get(f"{tenant.path}/audit", params={"action": "subscription.move"}).json()["items"]
    moves = [each for each in entries if each["facts"].get("to") == str(seq)]
    assert {each["outcome"] for each in moves} == {"intended", "done"}


@pytest.mark.promise("m2")
def test_agent_was_last_seen_when_its_last_ack_was_written(tenant: Tenant, owner: Caller) -> None:
    agent = tenant.agent()
    path = tenant.subscribed(channel := tenant.channel(), agent)
    seq = owner.post(f"{tenant.path}/channels/{channel}/messages", json={"data": 1}).json()["seq"]
    assert owner.get(path).json()["last_seen"] is None
    before = now()
    acked = agent.login().post(f"{agent.path}/acks", json={"acks": [{"channel": channel, "seq": seq}]})
    assert acked.json()["acks"][0]["error"] is None
    assert before <= datetime.fromisoformat(owner.get(path).json()["last_seen"]) <= now()


def test_put_refuses_unknown_fields(tenant: Tenant, owner: Caller) -> None:
    path = f"{tenant.path}/channels/{tenant.channel()}/subscriptions/{tenant.agent().id}"
    answer = owner.put(path, json={"status": "paused"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "status")
    assert owner.get(path).status_code == 404


def test_agent_can_change_only_its_own_subscriptions(tenant: Tenant, owner: Caller) -> None:
    channel, agent, other = tenant.channel(), tenant.agent(), tenant.agent()
    caller = agent.login()
    mine, theirs = (f"{tenant.path}/channels/{channel}/subscriptions/{each.id}" for each in (agent, other))
    owner.put(theirs)
    assert [
        caller.put(mine).status_code,
        caller.get(mine).status_code,
        caller.patch(mine, json={"status": "paused"}).status_code,
    ] == [201, 200, 200]
    assert len(caller.get(f"{agent.path}/subscriptions").json()["items"]) == 1
    for answer in (
        caller.put(theirs),
        caller.get(theirs),
        caller.patch(theirs, json={"status": "paused"}),
        caller.delete(theirs),
        caller.get(f"{other.path}/subscriptions"),
        caller.get(f"{tenant.path}/channels/{channel}/subscriptions"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert caller.delete(mine).status_code == 204


def test_viewer_can_read_but_not_change_subscriptions(tenant: Tenant) -> None:
    viewer = tenant.member(Role.VIEWER)
    path = tenant.subscribed(tenant.channel(), tenant.agent())
    assert viewer.get(path).status_code == 200
    for answer in (viewer.put(path), viewer.patch(path, json={"status": "paused"}), viewer.delete(path)):
        assert answer.status_code == 403


def test_unknown_channel_agent_and_subscription_answer_404(tenant: Tenant, owner: Caller) -> None:
    channel, agent = tenant.channel(), tenant.agent()
    codes = {
        "no channel": owner.put(f"{tenant.path}/channels/chn_x/subscriptions/{agent.id}").json()["code"],
        "no agent": owner.put(f"{tenant.path}/channels/{channel}/subscriptions/agt_x").json()["code"],
        "not subscribed": owner.get(f"{tenant.path}/channels/{channel}/subscriptions/{agent.id}").json()["code"],
    }
    assert codes == {"no channel": "channel_not_found", "no agent": "agent_not_found", "not subscribed": "subscription_not_found"}


def test_deleted_subscription_answers_404(tenant: Tenant, owner: Caller) -> None:
    path = tenant.subscribed(tenant.channel(), tenant.agent())
    assert (owner.delete(path).status_code, owner.get(path).status_code, owner.delete(path).status_code) == (204, 404, 404)


def test_only_members_can_subscribe_an_agent_to_a_managed_channel(tenant: Tenant, owner: Caller) -> None:
    channel = owner.post(f"{tenant.path}/channels", json={"name": "Orders", "access": "managed"}).json()["id"]
    agent = tenant.agent()
    path = f"{tenant.path}/channels/{channel}/subscriptions/{agent.id}"
    refused = agent.login().put(path)
    assert (refused.status_code, refused.json()["code"]) == (404, "channel_not_found")
    assert owner.put(path, json={"permissions": ["publish", "receive"]}).json()["permissions"] == ["publish", "receive"]
    assert agent.login().put(path).json()["permissions"] == ["publish", "receive"]


def test_agent_cannot_grant_itself_permissions(tenant: Tenant, owner: Caller) -> None:
    channel, agent = tenant.channel(), tenant.agent()
    path = f"{tenant.path}/channels/{channel}/subscriptions/{agent.id}"
    assert agent.login().put(path, json={"permissions": ["publish"]}).status_code == 403
    assert agent.login().put(path).json()["permissions"] == ["receive"]
    assert owner.put(path, json={"permissions": ["publish"]}).json()["permissions"] == ["publish"]


@pytest.mark.parametrize("permissions", [[], ["write"], "publish", None])
def test_invalid_permissions_are_refused(tenant: Tenant, owner: Caller, permissions: object) -> None:
    path = f"{tenant.path}/channels/{tenant.channel()}/subscriptions/{tenant.agent().id}"
    assert owner.put(path, json={"permissions": permissions}).status_code == 422


def test_agent_publishes_to_a_managed_channel_only_with_permission(tenant: Tenant, owner: Caller) -> None:
    channel = owner.post(f"{tenant.path}/channels", json={"name": "Orders", "access": "managed"}).json()["id"]
    agent = tenant.agent()
    subscription, messages = (
        f"{tenant.path}/channels/{channel}/subscriptions/{agent.id}",
        f"{tenant.path}/channels/{channel}/messages",
    )
    refused = agent.login().post(messages, json={"data": 1})
    assert (refused.status_code, refused.json()["code"]) == (404, "channel_not_found")
    owner.put(subscription, json={"permissions": ["receive"]})
    refused = agent.login().post(messages, json={"data": 1})
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    owner.put(subscription, json={"permissions": ["publish"]})
    assert agent.login().post(messages, json={"data": 1}).status_code == 201
    owner.patch(subscription, json={"status": "paused"})
    assert agent.login().post(messages, json={"data": 1}).status_code == 403
    assert owner.post(messages, json={"data": 1}).status_code == 201
