"""The stream of a channel's messages: what it sends, how it is resumed, and why it ends."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from artcafe.delivery import event_stream
from artcafe.errors import TenantSuspended
from artcafe.model import TenantId
from artcafe.observe import metrics
from artcafe.observe.clock import now
from tests.rest.event_reader import reading, wait_for
from tests.rest.rest_app import Agent, RestApp, Tenant
from tests.rest.test_history import remove_all
from tests.rest.test_rates import set_limits


def stream_of(tenant: Tenant, channel: str) -> str:
    return f"{tenant.path}/channels/{channel}/messages/stream"


def publish(tenant: Tenant, channel: str, *data: object, **fields: Any) -> list[int | None]:
    """Publish messages as the owner, and return their sequences."""
    answers = [tenant.owner.post(f"{tenant.path}/channels/{channel}/messages", json={"data": one, **fields}) for one in data]
    assert [each.status_code for each in answers] == [201] * len(data), answers
    return [each.json()["seq"] for each in answers]


@pytest.fixture
def channel(tenant: Tenant) -> str:
    """Return a new channel of the shared tenant."""
    return tenant.channel()


@pytest.fixture
def path(tenant: Tenant, channel: str) -> str:
    """Return the path of its stream."""
    return stream_of(tenant, channel)


@pytest.mark.promise("t1", "t2")
def test_stream_sends_new_messages_as_events_with_their_position(tenant: Tenant, channel: str, path: str) -> None:
    publish(tenant, channel, "before")
    with reading(tenant.owner, path) as reader:
        assert reader.response.headers["content-type"].startswith("text/event-stream")
        assert reader.response.headers["x-accel-buffering"] == "no"
        epoch = str(reader.last_id).partition(":")[0]
        seqs = publish(tenant, channel, {"n": 1}, {"n": 2})
        found = reader.events(2)
    assert [(each.name, each.id, each.data["seq"], each.data["data"]) for each in found] == [
        ("message", f"{epoch}:{seqs[0]}", seqs[0], {"n": 1}),
        ("message", f"{epoch}:{seqs[1]}", seqs[1], {"n": 2}),
    ]
    assert found[0].data["channel"] == channel
    assert found[0].data["from"].startswith("usr:")


@pytest.mark.promise("t4")
def test_last_event_id_resumes_with_what_was_missed_and_then_new_messages(tenant: Tenant, channel: str, path: str) -> None:
    with reading(tenant.owner, path) as reader:
        begun = reader.last_id
        publish(tenant, channel, 1, 2)
        assert reader.messages(1) == [1]
        seen = reader.last_id
    publish(tenant, channel, 3)
    with reading(tenant.owner, path, seen) as reader:
        assert reader.messages(2) == [2, 3]
        publish(tenant, channel, 4)
        assert reader.messages(1) == [4]
    with reading(tenant.owner, path, begun) as reader:
        assert reader.messages(4) == [1, 2, 3, 4]


@pytest.mark.promise("t2")
def test_stream_begins_above_a_sequence_and_survives_every_line_end_in_data(tenant: Tenant, channel: str, path: str) -> None:
    (first,) = publish(tenant, channel, 1)
    text = b'{"data": {\r\n\r\n  "id": "5",\n\n\r  "event:": "x\\n\\ny"}}'
    sent = tenant.owner.post(f"{tenant.path}/channels/{channel}/messages", content=text)
    assert sent.status_code == 201, sent.text
    with reading(tenant.owner, path, after=0) as reader:
        assert reader.messages(2) == [1, {"id": "5", "event:": "x\n\ny"}]
    with reading(tenant.owner, path, after=int(first or 0)) as reader:
        assert reader.messages(1) == [{"id": "5", "event:": "x\n\ny"}]


def test_stream_resumed_from_before_the_log_s_first_message_misses_none(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    channel = tenant.channel()
    path = stream_of(tenant, channel)
    with reading(tenant.owner, path) as reader:
        assert reader.last_id == ":0"
        publish(tenant, channel, 1)
        assert reader.messages(1) == [1]
        assert str(reader.last_id).endswith(":1")
        assert not str(reader.last_id).startswith(":")
    with reading(tenant.owner, path, ":0") as reader:
        assert reader.messages(1) == [1]


@pytest.mark.promise("t7")
def test_stream_of_a_queue_holds_no_message(tenant: Tenant) -> None:
    channel, agent = tenant.channel(type="queue"), tenant.agent()
    tenant.subscribed(channel, agent)
    with reading(tenant.owner, stream_of(tenant, channel)) as reader:
        publish(tenant, channel, 1)
        assert reader.messages(1) == [1]
        pulled = agent.login().get(f"{agent.path}/inbox", params={"wait_s": 20}).json()["items"]
    assert [(each["data"], each["deliveries"]) for each in pulled] == [(1, 1)]


@pytest.mark.promise("t8")
def test_events_of_a_live_channel_have_no_position(tenant: Tenant) -> None:
    channel = tenant.channel(type="live")
    with reading(tenant.owner, stream_of(tenant, channel)) as reader:
        publish(tenant, channel, 1)
        event = reader.next()
    assert (event.id, event.data["seq"], event.data["data"]) == (None, None, 1)


@pytest.mark.promise("t1", "t4")
def test_gaps_take_the_place_of_removed_and_of_expired_messages(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    channel = tenant.channel()
    path = stream_of(tenant, channel)
    removed = publish(tenant, channel, 1, 2)
    rest_app.run(remove_all(rest_app, TenantId(tenant.id)))
    expires_at = now() + timedelta(seconds=2)
    (expired,) = publish(tenant, channel, 3, expires_at=expires_at.isoformat())
    publish(tenant, channel, 4)
    wait_for(lambda: now() > expires_at)
    with reading(tenant.owner, path, after=0) as reader:
        gaps = reader.events(2)
        assert [(each.name, each.data["from"], each.data["to"], each.data["reason"]) for each in gaps] == [
            ("gap", 1, removed[-1], "retention"),
            ("gap", expired, expired, "expired"),
        ]
        assert reader.messages(1) == [4]
    with reading(tenant.owner, path, gaps[1].id) as reader:
        assert reader.messages(1) == [4]


@pytest.mark.parametrize(
    "last_id", ["", "x", "12", "a:b", "01J:-1", ":7", "01J:1:2", "é:1", "x" * 5000, "01J8ZK3V7Q5W2X4Y6Z8A0B1C2:1"]
)
@pytest.mark.promise("t6")
def test_malformed_or_unknown_position_is_refused(tenant: Tenant, path: str, channel: str, last_id: str) -> None:
    publish(tenant, channel, 1)
    answer = tenant.owner.get(path, headers={b"Last-Event-ID": last_id.encode()})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_event_id"), answer.text
    assert answer.json()["detail"].startswith("Last-Event-ID ")


@pytest.mark.promise("t6")
def test_position_of_another_tenant_or_above_the_log_is_refused(
    rest_app: RestApp, tenant: Tenant, channel: str, path: str
) -> None:
    other = rest_app.tenant()
    theirs = other.channel()
    publish(tenant, channel, 1)
    publish(other, theirs, "secret")
    with reading(other.owner, stream_of(other, theirs)) as reader:
        foreign = reader.last_id
    with reading(tenant.owner, path) as reader:
        epoch = str(reader.last_id).partition(":")[0]
    before = rest_app.run(rest_app.services.fabric.position(TenantId(tenant.id)))
    for last_id, why in ((foreign, "another log"), (f"{epoch}:9007199254740000", "above the newest message")):
        answer = tenant.owner.get(path, headers={"Last-Event-ID": str(last_id)})
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_event_id")
        assert why in answer.json()["detail"]
    assert rest_app.run(rest_app.services.fabric.position(TenantId(tenant.id))) == before, "nobody can renew a log by an id"


def test_streams_of_two_tenants_get_their_own_messages_only(rest_app: RestApp) -> None:
    ours, theirs = rest_app.tenant(), rest_app.tenant()
    channels = [each.channel(handle="news") for each in (ours, theirs)]
    with reading(ours.owner, stream_of(ours, "news")) as mine, reading(theirs.owner, stream_of(theirs, "news")) as other:
        publish(ours, channels[0], "ours")
        publish(theirs, channels[1], "theirs")
        assert (mine.messages(1), other.messages(1)) == (["ours"], ["theirs"])


def test_head_has_the_headers_and_leaves_no_stream(rest_app: RestApp, tenant: Tenant, path: str) -> None:
    answer = tenant.owner.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")
    wait_for(lambda: not rest_app.services.streams.by_tenant()[TenantId(tenant.id)])


@pytest.mark.promise("t9")
def test_silent_stream_sends_comments(tenant: Tenant, channel: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_S", 0.02)
    with reading(tenant.owner, path) as reader:
        assert reader.comment() == "ping"
        publish(tenant, channel, 1)
        assert reader.messages(1) == [1]


# --- how it ends -------------------------------------------------------------------------------------------------------


def disable(agent: Agent) -> None:
    assert agent.tenant.owner.patch(agent.path, json={"status": "disabled"}).status_code == 200


def withdraw(agent: Agent, channel: str) -> None:
    subscription = f"{agent.tenant.path}/channels/{channel}/subscriptions/{agent.id}"
    assert agent.tenant.owner.put(subscription, json={"permissions": ["publish"]}).status_code == 200


@pytest.mark.promise("t1", "t10")
def test_stream_of_an_agent_ends_with_its_access(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    channel, one, two = tenant.channel(access="managed"), tenant.agent(), tenant.agent()
    for agent in (one, two):
        tenant.subscribed(channel, agent)
    with (
        reading(one.login(), stream_of(tenant, channel)) as disabled,
        reading(two.login(), stream_of(tenant, channel)) as withdrawn,
        reading(tenant.owner, stream_of(tenant, channel)) as owner,
    ):
        disable(one)
        assert disabled.end()["code"] == "revoked"
        withdraw(two, channel)
        assert withdrawn.end()["code"] == "forbidden"
        publish(tenant, channel, 1)
        assert owner.messages(1) == [1]
        rest_app.suspend(tenant.id)
        assert owner.end() == {"code": "tenant_suspended", "message": str(TenantSuspended()), "temporary": False}


@pytest.mark.promise("t10")
def test_stream_ends_with_its_channel(tenant: Tenant, channel: str, path: str) -> None:
    with reading(tenant.owner, path) as reader:
        assert tenant.owner.delete(f"{tenant.path}/channels/{channel}").status_code == 204
        assert reader.end()["code"] == "channel_not_found"


@pytest.mark.promise("t10")
def test_stream_ends_with_its_token(rest_app: RestApp, tenant: Tenant, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = tenant.agent()
    caller = agent.login()
    with reading(caller, path) as short, reading(tenant.owner, path) as long:
        monkeypatch.setattr(rest_app.services, "clock", lambda: now() + timedelta(minutes=16))
        end = short.end()
        assert (end["code"], end["temporary"]) == ("credentials_expired", True)
        monkeypatch.setattr(rest_app.services, "clock", lambda: now() + timedelta(hours=13))
        assert long.end()["code"] == "credentials_expired"


# --- bounds and counts -------------------------------------------------------------------------------------------------


@pytest.mark.promise("t12")
def test_streams_count_in_the_limits_of_connections(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    path = stream_of(tenant, tenant.channel())
    set_limits(rest_app, tenant, agent_connections=2)
    with reading(tenant.owner, path), reading(tenant.owner, path):
        refused = tenant.owner.get(path)
        assert (refused.status_code, refused.json()["code"]) == (402, "connection_limit")
        assert refused.json()["limit"]["name"] == "agent_connections"
        found = {each["name"]: each["used"] for each in tenant.owner.get(f"{tenant.path}/limits").json()["items"]}
        assert found["connections"] == 2
    wait_for(lambda: not rest_app.services.connections.by_tenant()[TenantId(tenant.id)])
    with reading(tenant.owner, path):
        pass


@pytest.mark.promise("t13")
def test_person_has_at_most_ten_streams_on_a_server(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    path = stream_of(tenant, tenant.channel())
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(reading(tenant.owner, path))
        refused = tenant.owner.get(path)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_fast")
        assert "by this person (at most 10 at once)" in refused.json()["detail"]


def test_streams_are_in_the_usage_as_connections_and_deliveries(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    channel = tenant.channel()
    with reading(tenant.owner, stream_of(tenant, channel)) as one, reading(tenant.owner, stream_of(tenant, channel)) as two:
        publish(tenant, channel, 1, 2)
        assert (one.messages(2), two.messages(2)) == ([1, 2], [1, 2])
    rest_app.run(rest_app.services.usage_counters.flush())
    found = {each["name"]: each["value"] for each in tenant.owner.get(f"{tenant.path}/usage").json()["items"]}
    assert (found["deliveries"], found["peak_connections"]) == (4, 2)


@pytest.mark.promise("t11")
def test_slow_reader_gets_every_message_once_from_the_log(rest_app: RestApp) -> None:
    tenant = rest_app.tenant()
    channel, padding, count = tenant.channel(), "x" * 60_000, 0
    small = httpx2.HTTPTransport(socket_options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)])
    headers = {"Authorization": f"Bearer {tenant.owner.token}"}
    with (
        httpx2.Client(base_url=rest_app.url, transport=small, headers=headers) as slow,
        reading(slow, stream_of(tenant, channel)) as reader,
    ):
        (stream,) = rest_app.services.streams._open[TenantId(tenant.id)]
        while not stream.is_paused:
            publish(tenant, channel, [count, padding])
            count += 1
        publish(tenant, channel, [count, padding])
        count += 1
        assert [number for number, _ in reader.messages(count)] == list(range(count))
        publish(tenant, channel, "last")
        assert reader.messages(1) == ["last"]


@pytest.mark.promise("t11")
def test_reader_that_stalls_is_cut_off_and_delays_nobody(rest_app: RestApp, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = rest_app.tenant()
    channel, data = tenant.channel(), "x" * 60_000
    path, streams = stream_of(tenant, channel), rest_app.services.streams
    monkeypatch.setattr(streams, "stall_s", 1.0)
    errors = metrics.ERRORS.of("slow_consumer").value
    url = httpx2.URL(rest_app.url)
    with socket.socket() as stalled, reading(tenant.owner, path) as reader:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect((url.host, url.port))
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tenant.owner.token}\r\n\r\n"
        stalled.sendall(head.encode())
        wait_for(lambda: streams.by_tenant()[TenantId(tenant.id)] == 2)
        sent = 0
        while streams.by_tenant()[TenantId(tenant.id)] == 2:
            publish(tenant, channel, data)
            sent += 1
            assert reader.messages(1) == [data]
            assert most_waiting(rest_app, tenant) < 2 * event_stream.WRITE_HIGH_BYTES
    assert metrics.ERRORS.of("slow_consumer").value == errors + 1
    assert sent * len(data) > event_stream.WRITE_HIGH_BYTES


def most_waiting(rest_app: RestApp, tenant: Tenant) -> int:
    """Return the most bytes that wait in the process for a reader."""
    return max((each._size for each in list(rest_app.services.streams._open[TenantId(tenant.id)])), default=0)
