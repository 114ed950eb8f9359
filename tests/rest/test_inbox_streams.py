"""The stream of an agent's inbox: what it sends from where, how it is resumed over several channels, and what ends it."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from artcafe.model import AgentId, ChannelId, Epoch, TenantId
from artcafe.rules.stream_positions import InboxPosition
from tests.rest.event_reader import ReadEvent, reading, wait_for
from tests.rest.rest_app import RestApp, Tenant
from tests.rest.test_history import remove_all
from tests.rest.test_inbox import Inbox


@pytest.fixture
def inbox(tenant: Tenant) -> Inbox:
    """Return a new agent without subscriptions."""
    return Inbox.of(tenant)


def path_of(inbox: Inbox) -> str:
    return f"{inbox.agent.path}/inbox/stream"


def told(events: list[ReadEvent]) -> list[Any]:
    """Return the data of messages, in their order."""
    assert {each.name for each in events} == {"message"}, events
    return [each.data["data"] for each in events]


def acknowledge(inbox: Inbox, channel: str, seq: int) -> None:
    answer = inbox.caller.post(f"{inbox.agent.path}/acks", json={"acks": [{"channel": channel, "seq": seq}]})
    assert [each["error"] for each in answer.json()["acks"]] == [None]


@pytest.mark.promise("t3", "t7")
def test_stream_sends_every_subscription_above_its_cursor_and_acknowledges_nothing(inbox: Inbox) -> None:
    one, two = inbox.channel(), inbox.channel()
    seen = inbox.publish(one, "acknowledged")
    acknowledge(inbox, one, seen)
    inbox.publish(one, 1)
    inbox.publish(two, 2)
    with reading(inbox.caller, path_of(inbox)) as reader:
        assert sorted(told(reader.events(2))) == [1, 2]
        inbox.publish(one, 3)
        inbox.publish(f"@{inbox.agent.id}", "direct")
        assert sorted(map(str, told(reader.events(2)))) == ["3", "direct"]
    pulled = inbox.pull()
    assert sorted(str(each["data"]) for each in pulled["items"]) == ["1", "2", "3", "direct"]


@pytest.mark.promise("t3", "t4")
def test_every_id_resumes_all_channels_exactly_where_it_was_sent(inbox: Inbox) -> None:
    channels = [inbox.channel() for _ in range(3)]
    with reading(inbox.caller, path_of(inbox)) as reader:
        begun = str(reader.last_id)
        for number in range(6):
            inbox.publish(channels[number % 3], number)
        events = reader.events(6)
    data = told(events)
    assert sorted(data) == list(range(6))
    for number in range(6, 9):
        inbox.publish(channels[number % 3], number)
    for at, last_id in enumerate([begun, *(str(each.id) for each in events)]):
        with reading(inbox.caller, path_of(inbox), last_id) as reader:
            rest = told(reader.events(9 - at))
        assert Counter([*data[:at], *rest]) == Counter(range(9)), "each once, whatever the event"


@pytest.mark.promise("t5")
def test_messages_acknowledged_since_are_not_sent_again_and_a_moved_cursor_counts(inbox: Inbox) -> None:
    channel = inbox.channel()
    seqs = [inbox.publish(channel, number) for number in (1, 2, 3)]
    with reading(inbox.caller, path_of(inbox)) as reader:
        assert told(reader.events(1)) == [1]
        first = reader.last_id
        assert told(reader.events(2)) == [2, 3]
        last = reader.last_id
    acknowledge(inbox, channel, seqs[1])
    with reading(inbox.caller, path_of(inbox), first) as reader:
        assert told(reader.events(1)) == [3]
        subscription = f"{inbox.agent.tenant.path}/channels/{channel}/subscriptions/{inbox.agent.id}"
        assert inbox.agent.tenant.owner.patch(subscription, json={"cursor": seqs[0]}).status_code == 200
        moved = reader.next()
        assert (moved.name, moved.data["channel"], moved.data["cursor"]) == ("moved", channel, seqs[0])
        assert told(reader.events(2)) == [2, 3]
    with reading(inbox.caller, path_of(inbox), last) as reader:
        assert reader.next().name == "moved"
        assert told(reader.events(2)) == [2, 3]


@pytest.mark.promise("t7", "t8")
def test_queue_messages_are_left_for_pulls_and_live_ones_have_no_id(inbox: Inbox) -> None:
    queue, live = inbox.channel(type="queue"), inbox.channel(type="live")
    inbox.publish(queue, "task")
    with reading(inbox.caller, path_of(inbox)) as reader:
        sent = inbox.agent.tenant.owner.post(f"{inbox.agent.tenant.path}/channels/{live}/messages", json={"data": "now"})
        assert sent.status_code == 201
        event = reader.next()
        assert (event.data["data"], event.id) == ("now", None)
    (task,) = inbox.pull()["items"]
    assert (task["data"], task["deliveries"]) == ("task", 1)


@pytest.mark.promise("t10")
def test_subscriptions_begin_pause_and_end_while_the_stream_is_open(inbox: Inbox) -> None:
    tenant = inbox.agent.tenant
    with reading(inbox.caller, path_of(inbox)) as reader:
        channel = inbox.channel()
        inbox.publish(channel, 1)
        assert told(reader.events(1)) == [1]
        subscription = f"{tenant.path}/channels/{channel}/subscriptions/{inbox.agent.id}"
        assert tenant.owner.patch(subscription, json={"status": "paused"}).status_code == 200
        wait_for(lambda: not deliveries(tenant, channel))
        inbox.publish(channel, 2)
        assert tenant.owner.patch(subscription, json={"status": "active"}).status_code == 200
        assert told(reader.events(1)) == [2]
        assert tenant.owner.delete(subscription).status_code == 204
        wait_for(lambda: not deliveries(tenant, channel))
        assert tenant.owner.patch(inbox.agent.path, json={"status": "disabled"}).status_code == 200
        assert reader.end()["code"] == "revoked"


def deliveries(tenant: Tenant, channel: str) -> int:
    """Return the number of streams of the tenant that deliver a channel."""
    streams = tenant.rest_app.services.streams._open.get(TenantId(tenant.id), set())
    return sum(channel in each.deliveries for each in streams)


@pytest.mark.promise("t12")
def test_stream_is_no_presence(inbox: Inbox) -> None:
    with reading(inbox.caller, path_of(inbox)):
        assert inbox.agent.tenant.owner.get(inbox.agent.path).json()["presence"]["connected"] is False


def test_gap_of_removed_messages_has_a_position(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    inbox = Inbox.of(tenant)
    channel = inbox.channel()
    removed = [inbox.publish(channel, number) for number in (1, 2)]
    rest_app.run(remove_all(rest_app, TenantId(tenant.id)))
    inbox.publish(channel, 3)
    with reading(inbox.caller, path_of(inbox)) as reader:
        gap = reader.next()
        assert (gap.name, gap.data["to"], gap.data["reason"]) == ("gap", removed[-1], "retention")
        assert told(reader.events(1)) == [3]
    with reading(inbox.caller, path_of(inbox), gap.id) as reader:
        assert told(reader.events(1)) == [3]


@pytest.mark.parametrize("last_id", ["", "x", "01J8ZK3V7Q5W2X4Y6Z8A0B1C2:1", "x" * 5000])
@pytest.mark.promise("t6")
def test_malformed_position_is_refused(inbox: Inbox, last_id: str) -> None:
    answer = inbox.caller.get(path_of(inbox), headers={"Last-Event-ID": last_id})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_event_id")


@pytest.mark.promise("t3", "t6")
def test_position_of_another_agent_or_tenant_is_refused(inbox: Inbox, rest_app: RestApp) -> None:
    for other in (Inbox.of(inbox.agent.tenant), Inbox.of(rest_app.tenant())):
        with reading(other.caller, path_of(other)) as reader:
            foreign = str(reader.last_id)
        answer = inbox.caller.get(path_of(inbox), headers={"Last-Event-ID": foreign})
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_event_id")
        assert other.caller.get(path_of(inbox)).status_code in (403, 404)


def test_position_in_the_most_channels_fits_a_header() -> None:
    position = InboxPosition(bytes(32), TenantId("ten_x"), AgentId("agt_x"))
    for number in range(129):
        position.advance(ChannelId(f"chn_{number:026}"), Epoch("0" * 26), 9_007_199_254_740_991, 99)
    text = position.text()
    assert len(text) < 8192
    assert re.fullmatch(r"[\w-]+", text)
    again = InboxPosition(bytes(32), TenantId("ten_x"), AgentId("agt_x"))
    again.resume(text)
