from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner

from artcafe.cli.commands import artcafe
from artcafe.model import TenantId
from artcafe.observe.clock import now
from artcafe.rules import times
from artcafe.sdk.client import Client
from artcafe.sdk.messages import Gap
from artcafe.services.retention import Retention
from tests.rest.rest_app import Caller, RestApp, Tenant


@pytest.fixture
def path(tenant: Tenant, owner: Caller) -> str:
    """Create a channel with the messages 0 to 9, interleaved with messages of another channel."""
    path, other = (f"{tenant.path}/channels/{tenant.channel()}/messages" for _ in range(2))
    for number in range(10):
        assert owner.post(path, json={"data": number, "headers": {"n": str(number)}}).status_code == 201
        owner.post(other, json={"data": "noise"})
    return path


def pages(caller: Caller, path: str, **query: Any) -> list[list[Any]]:
    """Return the data of all pages, following `next_cursor`."""
    found, cursor = [], None
    while True:
        answer = caller.get(path, params={**query, **({"cursor": cursor} if cursor else {})})
        assert answer.status_code == 200, answer.text
        found.append([each["data"] for each in answer.json()["items"]])
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return found


def test_history_is_newest_first_by_default(owner: Caller, path: str) -> None:
    assert pages(owner, path, limit=4) == [[9, 8, 7, 6], [5, 4, 3, 2], [1, 0]]


def test_history_reads_forward_from_one_sequence_to_below_another(owner: Caller, path: str) -> None:
    seqs = [each["seq"] for each in owner.get(path).json()["items"]][::-1]
    assert pages(owner, path, after=0, limit=6) == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9]]
    assert pages(owner, path, after=seqs[2], before=seqs[6]) == [[3, 4, 5]]
    assert pages(owner, path, before=seqs[2]) == [[1, 0]]
    assert pages(owner, path, before=0) == pages(owner, path, before=0, after=0) == [[]]
    assert pages(owner, path, after=seqs[9]) == [[]]
    assert pages(owner, path, after=10**15) == [[]]
    assert pages(owner, path, before=10**15, limit=200) == [list(range(9, -1, -1))]


def test_history_returns_all_long_messages_over_several_log_reads(tenant: Tenant, owner: Caller) -> None:
    path = f"{tenant.path}/channels/{tenant.channel()}/messages"
    for number in range(40):
        assert owner.post(path, json={"data": [number, "x" * 60_000]}).status_code == 201
    for query in ({"after": 0}, {"after": 0, "limit": 30}, {"after": 0, "before": 10**15}):
        assert [number for page in pages(owner, path, **query) for number, _ in page] == [*range(40)]


def test_history_starts_at_a_time(owner: Caller, path: str) -> None:
    items = owner.get(path, params={"after": "2020-01-01T00:00:00+01:00"}).json()["items"]
    assert [each["data"] for each in items] == list(range(10))
    assert pages(owner, path, after="2099-01-01T00:00:00Z") == [[]]
    assert pages(owner, path, before="2020-01-01T00:00:00Z") == [[]]


def test_history_message_equals_the_delivered_message(owner: Caller, path: str) -> None:
    message = owner.get(path, params={"limit": 1}).json()["items"][0]
    assert set(message) == {"channel", "channel_handle", "seq", "message_id", "from", "time", "headers", "data"}
    assert (message["data"], message["headers"], message["channel"]) == (9, {"n": "9"}, path.split("/")[-2])


@pytest.mark.parametrize("query", [{"after": "yesterday"}, {"before": "-1"}, {"limit": 0}, {"x": "1"}, {"after": "9" * 17}])
def test_invalid_position_is_refused(owner: Caller, path: str, query: dict[str, Any]) -> None:
    assert owner.get(path, params=query).status_code == 422


def test_cursor_is_bound_to_its_history(tenant: Tenant, owner: Caller, path: str) -> None:
    cursor = owner.get(path, params={"limit": 1}).json()["next_cursor"]
    other = f"{tenant.path}/channels/{tenant.channel()}/messages"
    assert owner.get(other, params={"limit": 1, "cursor": cursor}).json()["code"] == "bad_cursor"


def test_agent_reads_history_of_a_managed_channel_only_with_permission(tenant: Tenant, owner: Caller) -> None:
    channel = owner.post(f"{tenant.path}/channels", json={"name": "Orders", "access": "managed"}).json()["id"]
    agent, path = tenant.agent(), f"{tenant.path}/channels/{channel}"
    assert agent.login().get(f"{path}/messages").status_code == 404
    owner.put(f"{path}/subscriptions/{agent.id}", json={"permissions": ["publish"]})
    assert agent.login().get(f"{path}/messages").status_code == 403
    owner.put(f"{path}/subscriptions/{agent.id}", json={"permissions": ["receive"]})
    assert agent.login().get(f"{path}/messages").json() == {"items": [], "next_cursor": None}


def test_history_reports_a_gap_after_its_start_position(rest_app: RestApp, tenant: Tenant, owner: Caller, path: str) -> None:
    seqs = [each["seq"] for each in owner.get(path).json()["items"]][::-1]
    rest_app.run(remove_all(rest_app, TenantId(tenant.id)))
    assert owner.post(path, json={"data": "new"}).status_code == 201

    def asked(after: int, **query: Any) -> tuple[list[Any], Any]:
        answer = owner.get(path, params={"after": after, **query}).json()
        return [each["data"] for each in answer["items"]], answer.get("gap")

    assert asked(0) == (["new"], {"from": 1, "to": seqs[-1], "reason": "retention"})
    assert asked(seqs[3]) == (["new"], {"from": seqs[3] + 1, "to": seqs[-1], "reason": "retention"})
    assert asked(seqs[-1]) == (["new"], None)
    assert pages(owner, path) == [["new"]]

    # From a time, and backward from the end.
    assert asked_from(owner, path, after="2020-01-01T00:00:00Z") == (["new"], {"from": 1, "to": seqs[-1], "reason": "retention"})
    assert asked_from(owner, path, after=times.to_text(now() + timedelta(days=400))) == ([], None)
    assert asked_from(owner, path) == (["new"], {"from": 1, "to": seqs[-1], "reason": "retention"})
    assert asked_from(owner, path, before=seqs[3]) == ([], {"from": 1, "to": seqs[3] - 1, "reason": "retention"})
    assert asked_from(owner, path, before=1) == ([], None)


def asked_from(caller: Caller, path: str, **query: Any) -> tuple[list[Any], Any]:
    """Return the data of a page, and its gap."""
    answer = caller.get(path, params=query).json()
    return [each["data"] for each in answer["items"]], answer.get("gap")


def test_only_the_last_backward_page_reports_the_gap_below_it(
    rest_app: RestApp, tenant: Tenant, owner: Caller, path: str
) -> None:
    rest_app.run(remove_all(rest_app, TenantId(tenant.id)))
    for number in range(3):
        owner.post(path, json={"data": number})
    first = owner.get(path, params={"limit": 2}).json()
    assert ([each["data"] for each in first["items"]], "gap" in first) == ([2, 1], False)
    last = owner.get(path, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert ([each["data"] for each in last["items"]], last["gap"]["from"]) == ([0], 1)


def test_sdk_and_command_line_report_the_gap(
    rest_app: RestApp, tenant: Tenant, owner: Caller, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    rest_app.run(remove_all(rest_app, TenantId(tenant.id)))
    channel = path.split("/")[-2]

    async def read() -> list[Gap]:
        gaps: list[Gap] = []
        async with Client(rest_app.url, owner.token) as rest:
            assert [each async for each in rest.tenant(tenant.id).messages.list(channel, after=0, on_gap=gaps.append)] == []
            assert [each async for each in rest.tenant(tenant.id).messages.list(channel)] == []
        return gaps

    (gap,) = asyncio.run(read())
    assert (gap.channel, gap.first, gap.reason) == (channel, 1, "retention")
    assert f"messages of {channel} will not come: 1 to {gap.last} (retention)" in caplog.text

    arguments = ["channel", "history", channel, "--url", rest_app.url, "--token", str(owner.token), "--tenant", tenant.id]
    shown = CliRunner().invoke(artcafe, arguments)
    assert f"#1 to #{gap.last} are no longer stored: they are older than the channel's retention" in shown.stderr
    shown = CliRunner().invoke(artcafe, [*arguments, "--json"])
    assert json.loads(shown.stderr)["gap"] == {"channel": channel, "from": 1, "to": gap.last, "reason": "retention"}
    assert "[]" in shown.stdout.splitlines()  # The server of the test logs there too.


async def remove_all(rest_app: RestApp, tenant_id: TenantId) -> None:
    """Return the retention service with a clock one year ahead."""
    retention = Retention(rest_app.store, rest_app.fabric, lambda: now() + timedelta(days=365), rest_app.services.plans)
    await retention.sweep(rest_app.fabric.tenant(tenant_id))
