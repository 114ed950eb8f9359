"""The routes of an agent's inbox: pulls, waiting pulls, and acks."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from artcafe.delivery.pull_page import PAGE_BYTES
from artcafe.model import AgentId, ChannelId, TenantId
from artcafe.observe.clock import now
from tests.gateway.gateway_app import until
from tests.rest.rest_app import Agent, Caller, RestApp, Tenant

WAITS_S = 20


@dataclass(frozen=True)
class Inbox:
    """An agent with its token, and helpers to fill its channels."""

    agent: Agent
    caller: Caller

    @classmethod
    def of(cls, tenant: Tenant) -> Inbox:
        """Register an agent without subscriptions."""
        agent = tenant.agent()
        return cls(agent, agent.login())

    def channel(self, **fields: Any) -> str:
        """Create a channel that the agent is subscribed to."""
        channel = self.agent.tenant.channel(**fields)
        self.agent.tenant.subscribed(channel, self.agent)
        return channel

    def publish(self, channel: str, data: object) -> int:
        """Store a message as the owner, and return its sequence."""
        path = f"{self.agent.tenant.path}/channels/{channel}/messages"
        stored = self.agent.tenant.owner.post(path, json={"data": data})
        assert stored.status_code == 201, stored.text
        return int(stored.json()["seq"])

    def pull(self, **query: str | float) -> dict[str, Any]:
        """Pull, and return the answer."""
        answer = self.caller.get(f"{self.agent.path}/inbox", params=query, timeout=WAITS_S + 10)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def refusal(self, **query: str | float) -> tuple[int, str]:
        """Pull, and return status and code of the error."""
        answer = self.caller.get(f"{self.agent.path}/inbox", params=query)
        return answer.status_code, answer.json()["code"]

    def ack(self, *acks: tuple[str, int], **more: Any) -> list[str | None]:
        """Acknowledge, and return the error code of each entry."""
        body = {"acks": [{"channel": channel, "seq": seq} for channel, seq in acks], **more}
        answer = self.caller.post(f"{self.agent.path}/acks", json=body)
        assert answer.status_code == 200, answer.text
        assert [(each["channel"], each["seq"]) for each in answer.json()["acks"]] == list(acks)
        return [each["error"] and each["error"]["code"] for each in answer.json()["acks"]]


@pytest.fixture
def inbox(tenant: Tenant) -> Inbox:
    """Return an agent without subscriptions."""
    return Inbox.of(tenant)


def data_of(pulled: dict[str, Any]) -> list[Any]:
    return [item["data"] for item in pulled["items"]]


def waiting(rest_app: RestApp) -> int:
    return len(rest_app.services.pulls.waits)


def until_waiting(rest_app: RestApp, count: int) -> None:
    rest_app.run(until(lambda: waiting(rest_app) == count))


# --- messages ------------------------------------------------------------------------------------------------------------


@pytest.mark.promise("p1", "p2")
def test_pull_returns_messages_as_the_gateway_pushes_them(inbox: Inbox) -> None:
    channel = inbox.channel()
    path = f"{inbox.agent.tenant.path}/channels/{channel}/messages"
    first = inbox.publish(channel, {"n": 1})
    body = {"data": 2, "headers": {"h": "v"}, "reply_to": "there", "caused_by": {"channel": channel, "seq": first}}
    second = inbox.agent.tenant.owner.post(path, json=body).json()

    pulled = inbox.pull()

    assert data_of(pulled) == [{"n": 1}, 2]
    assert (pulled["gaps"], pulled["more"]) == ([], False)
    assert pulled["epoch"]
    last = pulled["items"][1]
    assert (last["channel"], last["seq"], last["prev"]) == (channel, second["seq"], first)
    assert (last["message_id"], last["headers"], last["reply_to"]) == (second["message_id"], {"h": "v"}, "there")
    assert last["hops"] == 1
    assert pulled["items"][0]["prev"] is None


@pytest.mark.promise("p6")
def test_gap_takes_the_place_of_expired_messages_in_a_pull(rest_app: RestApp, inbox: Inbox) -> None:
    channel = inbox.channel()
    path = f"{inbox.agent.tenant.path}/channels/{channel}/messages"
    first = inbox.publish(channel, 1)
    end = now() + timedelta(seconds=1)
    body = {"data": 2, "expires_at": end.isoformat()}
    expired = [inbox.agent.tenant.owner.post(path, json=body).json()["seq"] for _ in range(2)]
    last = inbox.publish(channel, 3)

    rest_app.run(until(lambda: now() > end))
    pulled = inbox.pull()
    assert data_of(pulled) == [1, 3]
    gap = {"channel": channel, "from": expired[0], "to": expired[1], "reason": "expired", "after": expired[1]}
    assert pulled["gaps"] == [gap]
    assert inbox.ack((channel, first)) == [None]
    assert [each["seq"] for each in inbox.pull()["items"]] == [last]


@pytest.mark.promise("p25")
def test_moves_of_a_pull_void_its_acks_after_the_cursor_was_moved(inbox: Inbox) -> None:
    channel = inbox.channel()
    last = [inbox.publish(channel, each) for each in (1, 2)][-1]
    pulled = inbox.pull()
    assert pulled["moves"] == {}
    place = f"{inbox.agent.tenant.path}/channels/{channel}/subscriptions/{inbox.agent.id}"
    assert inbox.agent.tenant.owner.patch(place, json={"cursor": "first"}).status_code == 200

    assert inbox.ack((channel, last), epoch=pulled["epoch"], moves=pulled["moves"]) == [None]
    again = inbox.pull()
    assert (data_of(again), again["moves"]) == ([1, 2], {channel: 1})
    assert inbox.ack((channel, last), moves=again["moves"]) == [None]
    assert data_of(inbox.pull()) == []


@pytest.mark.promise("p17", "p18")
def test_pull_acknowledges_nothing_and_an_ack_is_written_before_its_answer(rest_app: RestApp, inbox: Inbox) -> None:
    channel = inbox.channel()
    seqs = [inbox.publish(channel, number) for number in range(3)]
    assert data_of(inbox.pull()) == data_of(inbox.pull()) == [0, 1, 2]

    assert inbox.ack((channel, seqs[1])) == [None]

    tenant_id, agent_id = TenantId(inbox.agent.tenant.id), AgentId(inbox.agent.id)
    row = rest_app.run(rest_app.store.tenant(tenant_id).subscriptions.get(ChannelId(channel), agent_id))
    assert row is not None
    assert row.cursor.seq == seqs[1]
    pulled = inbox.pull()
    assert [(item["data"], item["prev"]) for item in pulled["items"]] == [(2, seqs[1])]
    assert inbox.ack((channel, seqs[0]), (channel, seqs[2])) == [None, None]
    assert inbox.pull()["items"] == []


@pytest.mark.promise("p3")
def test_pull_continues_with_the_messages_left_by_its_limit(inbox: Inbox) -> None:
    channel = inbox.channel()
    for number in range(7):
        inbox.publish(channel, number)
    found: list[Any] = []
    more = True
    while more:
        pulled = inbox.pull(limit=3)
        found += data_of(pulled)
        more = pulled["more"]
        assert inbox.ack((channel, pulled["items"][-1]["seq"]), epoch=pulled["epoch"]) == [None]
    assert found == list(range(7))


@pytest.mark.promise("p2")
def test_busy_channel_leaves_room_for_the_others(inbox: Inbox) -> None:
    busy, quiet = inbox.channel(), inbox.channel()
    for number in range(12):
        inbox.publish(busy, number)
    inbox.publish(quiet, "quiet")

    pulled = inbox.pull(limit=10)

    assert len(pulled["items"]) == 10
    assert [each for each in data_of(pulled) if each != "quiet"] == list(range(9))
    assert pulled["more"]
    assert "quiet" in data_of(pulled)[:2]


@pytest.mark.promise("p2")
def test_limit_of_one_starves_no_channel(inbox: Inbox) -> None:
    channels = [inbox.channel() for _ in range(2)]
    for channel in channels:
        inbox.publish(channel, channel)
    seen: set[str] = set()
    for _ in range(100):  # each pull begins with either of them
        seen |= set(data_of(inbox.pull(limit=1)))
        if len(seen) == 2:
            break
    assert seen == set(channels)


@pytest.mark.promise("p2", "p3")
def test_page_has_a_size_limit_and_continues(inbox: Inbox) -> None:
    channel = inbox.channel()
    text = "x" * 60_000
    for _ in range(12):
        inbox.publish(channel, text)

    pulled = inbox.pull(limit=200)

    assert 1 < len(pulled["items"]) < 12
    assert sum(len(item["data"]) for item in pulled["items"]) <= PAGE_BYTES
    assert pulled["more"]


@pytest.mark.promise("p2", "p7")
def test_channel_selects_one_subscription(inbox: Inbox, tenant: Tenant) -> None:
    one, other = inbox.channel(), inbox.channel()
    for channel in (one, other):
        inbox.publish(channel, channel)
    assert data_of(inbox.pull(channel=one)) == [one]

    assert inbox.refusal(channel=tenant.channel()) == (404, "subscription_not_found")
    assert inbox.refusal(channel="chn_unknown") == (404, "subscription_not_found")
    path = f"{tenant.path}/channels/{one}/subscriptions/{inbox.agent.id}"
    assert tenant.owner.patch(path, json={"status": "paused"}).status_code == 200
    assert inbox.refusal(channel=one) == (409, "conflict")
    assert data_of(inbox.pull()) == [other]
    live = inbox.channel(type="live")
    assert inbox.refusal(channel=live) == (422, "invalid")
    assert inbox.ack((live, 1)) == ["invalid"]


@pytest.mark.parametrize(
    "query",
    [{"wait_s": "1e9"}, {"wait_s": "25.1"}, {"wait_s": "-1"}, {"wait_s": "nan"}, {"limit": "0"}, {"limit": "201"}, {"x": "1"}],
)
@pytest.mark.promise("p2", "p4")
def test_values_outside_their_range_are_invalid(inbox: Inbox, query: dict[str, str]) -> None:
    answer = inbox.caller.get(f"{inbox.agent.path}/inbox", params=query)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert answer.json()["errors"][0]["field"] == next(iter(query))


# --- acks ----------------------------------------------------------------------------------------------------------------


@pytest.mark.promise("p19", "p20", "p22")
def test_wrong_ack_does_not_stop_the_others(inbox: Inbox, tenant: Tenant) -> None:
    channel, other = inbox.channel(), tenant.channel()
    seq = inbox.publish(channel, 1)
    assert inbox.ack((channel, seq + 1), (other, 1), ("chn_unknown", 1), (channel, seq)) == [
        "ack_beyond_sent",
        "subscription_not_found",
        "subscription_not_found",
        None,
    ]
    assert inbox.pull()["items"] == []


def test_ack_of_the_last_message_may_be_repeated_without_any_later_one(inbox: Inbox) -> None:
    channel = inbox.channel()
    seq = inbox.publish(channel, 1)
    for _ in range(2):
        assert inbox.ack((channel, seq)) == [None]


@pytest.mark.promise("p23")
def test_ack_with_the_epoch_of_another_log_moves_nothing(inbox: Inbox) -> None:
    channel = inbox.channel()
    seq = inbox.publish(channel, 1)
    assert inbox.ack((channel, seq), epoch="another") == ["log_renewed"]
    assert data_of(inbox.pull()) == [1]


@pytest.mark.parametrize("body", [{"x": 1}, {"acks": [{"channel": "c"}]}, {"acks": [{"channel": "c", "seq": -1}]}, {"acks": 1}])
def test_malformed_acks_are_refused_together(inbox: Inbox, body: dict[str, Any]) -> None:
    answer = inbox.caller.post(f"{inbox.agent.path}/acks", json=body)
    assert answer.status_code == 422
    answer = inbox.caller.post(f"{inbox.agent.path}/acks", json={"acks": [{"channel": "c", "seq": 1}] * 201})
    assert answer.status_code == 422


# --- waiting -------------------------------------------------------------------------------------------------------------


@pytest.mark.promise("p4")
def test_waiting_pull_answers_with_the_next_message(rest_app: RestApp, inbox: Inbox) -> None:
    channel = inbox.channel()
    with ThreadPoolExecutor() as threads:
        pulled = threads.submit(inbox.pull, wait_s=WAITS_S)
        until_waiting(rest_app, 1)
        inbox.publish(channel, "new")
        assert data_of(pulled.result()) == ["new"]
    assert waiting(rest_app) == 0


def test_waiting_pull_answers_at_once_with_a_stored_message(inbox: Inbox) -> None:
    channel = inbox.channel()
    inbox.publish(channel, "stored")
    assert data_of(inbox.pull(wait_s=WAITS_S)) == ["stored"]


@pytest.mark.promise("p4")
def test_wait_without_a_message_ends_with_an_empty_list(inbox: Inbox) -> None:
    inbox.channel()
    assert inbox.pull(wait_s=0.05)["items"] == []


@pytest.mark.promise("p5")
def test_third_waiting_pull_of_an_agent_is_refused_and_others_wait(rest_app: RestApp, inbox: Inbox, tenant: Tenant) -> None:
    channel = inbox.channel()
    other = Inbox.of(tenant)
    tenant.subscribed(channel, other.agent)
    with ThreadPoolExecutor() as threads:
        waits = [threads.submit(inbox.pull, wait_s=WAITS_S) for _ in range(2)]
        until_waiting(rest_app, 2)
        answer = inbox.caller.get(f"{inbox.agent.path}/inbox", params={"wait_s": WAITS_S})
        assert (answer.status_code, answer.json()["code"]) == (429, "too_fast")
        assert "waiting pulls by this agent (at most 2 at once)" in answer.json()["detail"]
        assert answer.headers["retry-after"]
        assert inbox.pull()["items"] == []  # without a wait
        waits.append(threads.submit(other.pull, wait_s=WAITS_S))
        until_waiting(rest_app, 3)
        inbox.publish(channel, "new")
        assert [data_of(each.result()) for each in waits] == [["new"]] * 3


def test_closed_connection_frees_its_place(rest_app: RestApp, inbox: Inbox) -> None:
    inbox.channel()
    address = urlsplit(rest_app.url)
    with socket.create_connection((address.hostname, address.port)) as raw:
        request = httpx2.Request("GET", f"{rest_app.url}{inbox.agent.path}/inbox?wait_s=25").url.raw_path.decode()
        head = f"GET {request} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {inbox.caller.token}\r\n\r\n"
        raw.sendall(head.encode())
        until_waiting(rest_app, 1)
    until_waiting(rest_app, 0)


@pytest.mark.promise("p4")
def test_agent_disabled_while_it_waits_is_revoked(rest_app: RestApp, inbox: Inbox, tenant: Tenant) -> None:
    inbox.channel()
    with ThreadPoolExecutor() as threads:
        refused = threads.submit(inbox.refusal, wait_s=4)
        until_waiting(rest_app, 1)
        assert tenant.owner.patch(inbox.agent.path, json={"status": "disabled"}).status_code == 200
        assert refused.result() == (401, "revoked")
