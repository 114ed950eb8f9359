"""The wake policy of an agent over REST."""

from __future__ import annotations

import pytest

from tests.rest.rest_app import Caller, Tenant

URL = "https://hooks.example.com/agents/scout"


def test_policy_is_set_read_and_removed_and_its_secret_is_shown_once(tenant: Tenant, owner: Caller) -> None:
    agent = tenant.agent()
    path = f"{agent.path}/wake"
    none = owner.get(path).json()
    assert (none["url"], none["enabled"], none["secret"]) == (None, False, None)
    made = owner.put(path, json={"url": URL, "interval_s": 300, "quiet_hours": "22:00-06:00"})
    assert made.status_code == 200
    shown = made.json()
    secret = shown["secret"]
    assert secret.startswith("whsec_")
    assert shown == {
        "agent_id": agent.id,
        "url": URL,
        "interval_s": 300,
        "quiet_hours": "22:00-06:00",
        "enabled": True,
        "problem": None,
        "secret": secret,
        "sent_at": None,
        "failures": 0,
        "failure": None,
    }
    assert owner.get(path).json() == shown | {"secret": None}
    again = owner.put(path, json={"url": URL, "enabled": False}).json()
    assert (again["secret"], again["enabled"], again["interval_s"], again["quiet_hours"]) == (None, False, 60, None)
    rotated = owner.put(path, json={"url": URL, "new_secret": True}).json()["secret"]
    assert rotated.startswith("whsec_")
    assert rotated != secret
    for _ in range(2):
        assert owner.delete(path).status_code == 204
    assert owner.get(path).json() == none
    assert owner.put(path, json={"url": URL}).json()["secret"] not in (secret, rotated)


def test_agent_with_a_policy_is_shown_and_changed_as_before(tenant: Tenant, owner: Caller) -> None:
    agent = tenant.agent()
    before = owner.get(agent.path).json()
    owner.put(f"{agent.path}/wake", json={"url": URL})
    after = owner.get(agent.path).json()
    assert after == before
    assert owner.patch(agent.path, json={"name": "Another"}).json()["name"] == "Another"
    assert owner.get(f"{agent.path}/wake").json()["url"] == URL


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"),
        ({"url": "http://hooks.example.com"}, "url"),
        ({"url": "https://169.254.169.254/latest/meta-data/"}, "url"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "url"),
        ({"url": URL, "interval_s": 0}, "interval_s"),
        ({"url": URL, "interval_s": 86_401}, "interval_s"),
        ({"url": URL, "quiet_hours": "late"}, "quiet_hours"),
        ({"url": URL, "secret": "whsec_AAAA"}, "secret"),
    ],
)
def test_invalid_policy_is_refused_with_its_field(tenant: Tenant, owner: Caller, body: dict[str, object], field: str) -> None:
    refused = owner.put(f"{tenant.agent().path}/wake", json=body)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, field)


def test_audit_names_the_host_and_no_more_of_the_address(tenant: Tenant, owner: Caller) -> None:
    agent = tenant.agent()
    owner.put(f"{agent.path}/wake", json={"url": f"{URL}?token=hidden"})
    entry = owner.get(f"{tenant.path}/audit", params={"action": "agent.wake"}).json()["items"][0]
    assert (entry["target"], entry["facts"]["host"]) == (agent.id, "hooks.example.com")
    assert "hidden" not in str(entry)
