"""The routes of scheduled messages: publish with `deliver_at`, list, and cancel."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from artcafe.observe.clock import now
from tests.rest.rest_app import Tenant


def later(**more: float) -> str:
    return (now() + timedelta(**more)).isoformat()


@pytest.mark.promise("s5")
def test_scheduled_messages_are_listed_by_pages_and_cancelled_once(tenant: Tenant) -> None:
    channel = tenant.channel()
    path = f"{tenant.path}/channels/{channel}"
    bodies: list[dict[str, Any]] = [
        {"data": hours, "deliver_at": later(hours=hours), "headers": {"n": "1"}} for hours in (3, 1, 2)
    ]
    made = [tenant.owner.post(f"{path}/messages", json=body) for body in bodies]
    assert [(each.status_code, each.json()["seq"]) for each in made] == [(201, None)] * 3
    ids = [each.json()["message_id"] for each in made]

    first = tenant.owner.get(f"{path}/scheduled", params={"limit": 2}).json()
    rest = tenant.owner.get(f"{path}/scheduled", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [each["message_id"] for each in (*first["items"], *rest["items"])] == [ids[1], ids[2], ids[0]]
    assert rest["next_cursor"] is None
    shown = first["items"][0]
    assert (shown["channel"], shown["data"], shown["headers"], "seq" in shown) == (channel, 1, {"n": "1"}, False)

    for _ in range(2):
        assert tenant.owner.delete(f"{path}/scheduled/{ids[1]}").status_code == 204
    missing = tenant.owner.delete(f"{path}/scheduled/msg_none")
    assert (missing.status_code, missing.json()["code"]) == (404, "scheduled_not_found")
    assert [each["message_id"] for each in tenant.owner.get(f"{path}/scheduled").json()["items"]] == [ids[2], ids[0]]
    assert tenant.owner.get(f"{path}/messages").json()["items"] == []


@pytest.mark.promise("s1", "s7")
def test_impossible_times_are_refused_with_what_to_do(tenant: Tenant) -> None:
    path = f"{tenant.path}/channels/{tenant.channel()}/messages"
    live = f"{tenant.path}/channels/{tenant.channel(type='live')}/messages"
    for route, body, words in (
        (path, {"deliver_at": later(days=-1)}, "which has passed"),
        (path, {"deliver_at": "0103-02-09T17:15:33Z", "key": "ancient"}, "which has passed"),
        (path, {"deliver_at": later(days=3650)}, "at most 30 days ahead"),
        (path, {"deliver_at": "tomorrow"}, "RFC 3339"),
        (path, {"expires_at": later(seconds=-1)}, "which has passed"),
        (live, {"deliver_at": later(hours=1)}, "stores nothing"),
        (live, {"expires_at": later(hours=1)}, "stores nothing"),
    ):
        answer = tenant.owner.post(route, json={"data": 1, **body})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
        assert next(iter(body)) in answer.text
        assert words in answer.text


def test_key_of_a_scheduled_message_is_refused_for_another_one(tenant: Tenant) -> None:
    path, at = f"{tenant.path}/channels/{tenant.channel()}/messages", later(hours=1)
    first = tenant.owner.post(path, json={"data": 1, "key": "k", "deliver_at": at}).json()
    again = tenant.owner.post(path, json={"data": 1, "deliver_at": at}, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()["message_id"], again.json()["seq"]) == (200, first["message_id"], None)
    for body in ({"data": 2, "deliver_at": at}, {"data": 1}, {"data": 1, "deliver_at": later(hours=2)}):
        refused = tenant.owner.post(path, json={**body, "key": "k"})
        assert (refused.status_code, refused.json()["code"]) == (409, "key_reused")
