from __future__ import annotations

from typing import Any

import pytest

from artcafe.model import Role
from tests.rest.rest_app import Caller, RestApp, Tenant
from tests.rest.test_inbox import Inbox

OF_QUEUES = {"ack_wait_s", "back_off", "max_deliveries", "key_ordered", "dead_letter", "dead_letter_of"}
"""Null for other types."""
EMPTY = {"first_seq": 0, "last_seq": 0, "messages": 0, "pending": None, "held": None, "oldest_seq": None}
ATTRIBUTES = {
    "id", "tenant_id", "handle", "name", "description", "type", "access", "retention_s", *OF_QUEUES, "created_at", "updated_at",
}  # fmt: skip


def test_created_channel_equals_its_row(tenant: Tenant, owner: Caller) -> None:
    answer = owner.post(f"{tenant.path}/channels", json={"name": "Research", "description": "What was found."})
    assert answer.status_code == 201
    made = answer.json()
    assert set(made) == ATTRIBUTES
    assert (made["tenant_id"], made["name"], made["description"], made["type"]) == (
        tenant.id, "Research", "What was found.", "broadcast",
    )  # fmt: skip
    assert {made[name] for name in OF_QUEUES} == {None}
    assert made["created_at"] == made["updated_at"]
    assert made["created_at"].endswith("Z")
    assert answer.headers["location"] == f"{tenant.path}/channels/{made['id']}"
    assert owner.get(answer.headers["location"]).json() == made | EMPTY
    assert made in owner.get(f"{tenant.path}/channels", params={"limit": 200}).json()["items"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": "x", "type": "postcard"}, "type"),
        ({"name": "x", "access": "secret"}, "access"),
        ({"name": "x", "description": "\0"}, "description"),
        ({"name": "x", "retention_s": 0}, "retention_s"),
        ({"name": "x", "retention_s": 60, "type": "live"}, "retention_s"),
        ({"name": "x", "x": 1}, "x"),
    ],
)
def test_invalid_channel_names_the_field(tenant: Tenant, owner: Caller, body: dict[str, object], field: str) -> None:
    answer = owner.post(f"{tenant.path}/channels", json=body)
    assert (answer.status_code, [each["field"] for each in answer.json()["errors"]]) == (422, [field])


def test_agent_finds_open_channels_and_managed_ones_with_its_subscription(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    agent, other = tenant.agent(), tenant.agent()
    open_, managed, hidden = tenant.channel(), tenant.channel(access="managed"), tenant.channel(access="managed")
    tenant.subscribed(managed, agent)
    path = f"{tenant.path}/channels"

    def found(who: Caller) -> list[str]:
        ids: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = who.get(path, params={"limit": 1} | ({"cursor": cursor} if cursor else {})).json()
            ids += [each["id"] for each in page["items"]]
            cursor = page["next_cursor"]
        return ids

    finder = agent.login()
    assert found(finder) == sorted([open_, managed])
    assert found(other.login()) == [open_]
    assert finder.get(f"{path}/{managed}").json() == tenant.owner.get(f"{path}/{managed}").json()
    absent = finder.get(f"{path}/{hidden}")
    assert (absent.status_code, absent.json()["code"]) == (404, "channel_not_found")


def test_channel_can_be_renamed_but_its_type_is_fixed(tenant: Tenant, owner: Caller) -> None:
    path = f"{tenant.path}/channels/{tenant.channel(description='Stays')}"
    answer = owner.patch(path, json={"name": "Findings"})
    assert (answer.status_code, answer.json()["name"], answer.json()["description"]) == (200, "Findings", "Stays")
    assert owner.get(path).json() == answer.json() | EMPTY
    assert owner.patch(path, json={"type": "broadcast"}).status_code == 422


@pytest.mark.promise("m3", "m4")
def test_channel_shows_its_first_and_last_message_and_their_number(tenant: Tenant, owner: Caller) -> None:
    one, other = (f"{tenant.path}/channels/{tenant.channel()}" for _ in range(2))
    seqs = [owner.post(f"{path}/messages", json={"data": 1}).json()["seq"] for path in (one, other, one, one)]
    shown = owner.get(one).json()
    assert (shown["first_seq"], shown["last_seq"], shown["messages"]) == (seqs[0], seqs[3], 3)
    live = owner.get(f"{tenant.path}/channels/{tenant.channel(type='live')}").json()
    assert (live["first_seq"], live["last_seq"], live["messages"]) == (None, None, None)


@pytest.mark.promise("m4a")
def test_queue_shows_what_waits_what_is_held_and_the_oldest_of_both(tenant: Tenant, owner: Caller) -> None:
    inbox = Inbox.of(tenant)
    queue = inbox.channel(type="queue")

    def shown() -> tuple[int, int, int]:
        details = owner.get(f"{tenant.path}/channels/{queue}").json()
        return details["pending"], details["held"], details["oldest_seq"]

    assert shown() == (0, 0, 0)
    seqs = [inbox.publish(queue, number) for number in range(3)]
    assert shown() == (3, 0, seqs[0])
    (first,) = inbox.pull(limit=1)["items"]
    assert shown() == (2, 1, seqs[0])
    (second,) = inbox.pull(limit=1)["items"]
    assert finish(inbox, second)
    assert shown() == (1, 1, seqs[0])  # It ended before an older one.
    assert finish(inbox, first)
    assert shown() == (1, 0, seqs[2])
    (third,) = inbox.pull(limit=1)["items"]
    assert finish(inbox, third)
    assert shown() == (0, 0, 0)


def finish(inbox: Inbox, item: dict[str, Any]) -> bool:
    """Acknowledge a message of a queue, and return whether that was done."""
    ack = {"channel": item["channel"], "seq": item["seq"], "receipt": item["receipt"]}
    answer = inbox.caller.post(f"{inbox.agent.path}/acks", json={"acks": [ack]})
    return [each["error"] for each in answer.json()["acks"]] == [None]


def test_retention_is_set_and_reset_to_the_plans(tenant: Tenant, owner: Caller) -> None:
    made = owner.post(f"{tenant.path}/channels", json={"name": "Short", "retention_s": 3600}).json()
    path = f"{tenant.path}/channels/{made['id']}"
    assert made["retention_s"] == owner.get(path).json()["retention_s"] == 3600
    for sent, then in [
        ({"name": "Shorter"}, 3600),
        ({"retention_s": 60}, 60),
        ({"retention_s": None}, None),
        ({"name": "x"}, None),
    ]:
        assert owner.patch(path, json=sent).json()["retention_s"] == then
        assert owner.get(path).json()["retention_s"] == then
    refused = owner.patch(path, json={"retention_s": 10**9})
    assert (refused.status_code, refused.json()["code"]) == (402, "limit_reached")
    limit = {"name": "retention_s", "limit": 30 * 86_400, "used": 10**9, "left": 0, "resets_at": None}
    assert refused.json()["limit"] == limit


def test_repeated_request_with_idempotency_key_creates_one_channel(tenant: Tenant, owner: Caller) -> None:
    key = {"Idempotency-Key": "channel"}
    first, again = (owner.post(f"{tenant.path}/channels", json={"name": "Once"}, headers=key) for _ in range(2))
    assert first.json() == again.json()
    assert owner.post(f"{tenant.path}/channels", json={"name": "Twice"}, headers=key).json()["code"] == "idempotency_mismatch"


def test_members_can_change_channels_but_viewers_and_agents_cannot(tenant: Tenant) -> None:
    path = f"{tenant.path}/channels/{tenant.channel()}"
    viewer, agent = tenant.member(Role.VIEWER), tenant.agent().login()
    for caller in (viewer, agent):
        assert caller.post(f"{tenant.path}/channels", json={"name": "x"}).status_code == 403
        assert caller.patch(path, json={"name": "x"}).status_code == 403
        assert caller.delete(path).status_code == 403
    assert (viewer.get(path).status_code, agent.get(path).status_code) == (200, 200)
    assert tenant.member(Role.MEMBER).delete(path).status_code == 204


def test_deleted_channel_and_its_subscriptions_answer_404(tenant: Tenant, owner: Caller) -> None:
    channel, agent = tenant.channel(), tenant.agent()
    subscription = tenant.subscribed(channel, agent)
    path = f"{tenant.path}/channels/{channel}"
    assert owner.delete(path).status_code == 204
    assert owner.get(path).json()["code"] == "channel_not_found"
    assert owner.get(subscription).status_code == 404
    assert owner.get(f"{agent.path}/subscriptions").json()["items"] == []
    assert owner.post(f"{path}/messages", json={"data": 1}).json()["code"] == "channel_not_found"
    assert owner.delete(path).status_code == 404
