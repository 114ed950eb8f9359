"""The agent's half of a connection, without sockets: whole frames, and the bytes of a WebSocket in pieces."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import Protocol
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from artcafe import errors
from artcafe.errors import BadCredentials, BadFrame, ChallengeRefused, ChannelNotFound, QuotaFull
from artcafe.sdk.inbox import Inbox
from artcafe.sdk.keys import Signer, load_signer
from artcafe.sdk.messages import Gap, Message
from artcafe.sdk.outbox import Outbox, Reply
from artcafe.sdk.session import PROTOCOL_ERRORS, ConnectionLost, Session, check_challenge, lost_by_close, should_reconnect
from artcafe.wire import frames, replies, sshsig
from artcafe.wire.sshkeys import parse_public_key
from tests import ssh_keygen

TENANT, AGENT, CHANNEL = "ten_1", "agt_1", "chn_1"
CHALLENGE = (
    f"artcafe login 1 service=artcafe:test tenant={TENANT} agent={AGENT} challenge=chl_1"
    f" nonce={'0f' * 32} expires=2026-11-22T16:50:57.123Z"
)


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory, require: Callable[[str, bool], None]) -> Signer:
    require("ssh-keygen", ssh_keygen.PRESENT)
    return load_signer(ssh_keygen.make_key(tmp_path_factory.mktemp("session") / "key"))


class Agent:
    """A session with its outbox and inbox, and helpers for the frames of a server."""

    def __init__(self) -> None:
        self.outbox, self.inbox = Outbox(), Inbox(64)
        self.session = Session(TENANT, AGENT, 64, self.outbox, self.inbox)
        self.outcomes: list[Reply | Exception] = []

    def receive(self, **frame: object) -> None:
        self.session.receive(json.dumps(frame).encode(), now=0.0)

    def log_in(self, signature: str = "signature") -> None:
        self.session.request_challenge()
        self.receive(id=0, challenge={"challenge_id": "chl_1", "challenge": CHALLENGE, "expires_at": "…"})
        self.session.prove(signature)
        self.receive(id=1, connect=connected())

    def publish(self) -> list[bytes]:
        text = msgspec.json.encode(frames.Publish(CHANNEL, msgspec.Raw(b"1")))
        self.outbox.add("publish", msgspec.Raw(text), self.outcomes.append)
        return self.session.due(0.0)


def connected() -> dict[str, object]:
    return {"session_id": "ses_1", "agent_id": AGENT, "tenant_id": TENANT, "ping_s": 25, "limits": {"frame_bytes": 65536}}


def pushed(seq: int, data: object = None) -> dict[str, object]:
    return {
        "channel": CHANNEL,
        "seq": seq,
        "prev": seq - 1 or None,
        "message_id": f"msg_{seq}",
        "from": "agt_2",
        "time": "2026-11-22T16:50:57.123Z",
        "headers": {},
        "data": data,
    }


def test_login_requests_a_challenge_and_sends_its_signature() -> None:
    agent = Agent()
    asked = json.loads(agent.session.request_challenge())
    assert asked == {"id": 0, "challenge": {"tenant_id": TENANT, "agent_id": AGENT}}
    agent.receive(id=0, challenge={"challenge_id": "chl_1", "challenge": CHALLENGE, "expires_at": "…"})
    assert agent.session.to_sign == CHALLENGE
    proof = json.loads(agent.session.prove("signature"))
    windows = {"max_unacked": 64, "max_requests": 0}
    assert proof == {"id": 1, "connect": {"challenge_id": "chl_1", "signature": "signature", **windows}}
    assert not agent.session.to_sign
    agent.receive(id=1, connect=connected())
    assert agent.session.is_connected
    assert agent.session.limits == {"frame_bytes": 65536}


def test_commands_are_sent_only_after_the_login() -> None:
    agent = Agent()
    assert agent.publish() == []
    agent.log_in()
    assert len(agent.session.due(0.0)) == 1


def test_replies_errors_messages_and_gaps_reach_outbox_and_inbox() -> None:
    agent = Agent()
    agent.log_in()
    for _ in range(2):
        agent.publish()
    agent.receive(message=pushed(5))
    agent.receive(id=3, error={"code": "channel_not_found", "message": "no channel", "temporary": False})
    agent.receive(gap={"channel": CHANNEL, "from": 6, "to": 8, "reason": "retention"})
    agent.receive(id=2, publish={"seq": 9, "message_id": "msg_9", "duplicate": False})
    refused, stored = agent.outcomes
    assert isinstance(refused, ChannelNotFound)
    assert str(refused) == "no channel"
    assert stored == replies.PublishReply(9, "msg_9", False)
    assert isinstance(agent.inbox.take(), Message)
    assert agent.inbox.take() == Gap(CHANNEL, 6, 8, "retention")


def test_temporary_error_does_not_finish_the_command() -> None:
    agent = Agent()
    agent.log_in()
    agent.publish()
    agent.receive(id=2, error={"code": QuotaFull.code, "message": "full", "temporary": True})
    assert agent.outcomes == []
    assert len(agent.outbox) == 1


def test_repeated_error_push_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    agent = Agent()
    agent.log_in()
    for seq in (9, 9, 8):
        agent.receive(error={"code": "ack_beyond_sent", "message": f"ack of {seq} on {CHANNEL}", "temporary": False})
    assert [record.getMessage() for record in caplog.records] == [
        f"the server reports: ack of {seq} on {CHANNEL}" for seq in (9, 8)
    ]


def test_channels_of_an_error_push_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    agent = Agent()
    agent.log_in()
    for count in (2, 12):
        channels = [f"chn_{number}" for number in range(count)]
        error = {"code": "subscription_limit", "message": "too many", "temporary": False, "channels": channels}
        agent.receive(error=error)
    two, twelve = caplog.messages
    assert two == "the server reports: too many (chn_0, chn_1)"
    assert twelve.endswith("chn_9 and 2 more)")


async def test_acks_are_sent_before_a_subscribe_and_then_wait_for_its_reply() -> None:
    agent = Agent()
    agent.log_in()
    for seq in (1, 2):
        agent.receive(message=pushed(seq))
    first, second = agent.inbox.take(), agent.inbox.take()
    assert isinstance(first, Message)
    assert isinstance(second, Message)
    await first.ack()
    text = msgspec.json.encode(frames.Subscribe(CHANNEL))
    agent.outbox.add("subscribe", msgspec.Raw(text), agent.outcomes.append, channel=CHANNEL)
    assert [[*json.loads(frame)][-1] for frame in agent.session.due(0.0)] == ["ack", "subscribe"]
    await second.ack()
    assert agent.session.due(0.0) == []
    agent.receive(id=2, subscribe={"epoch": "E1", "cursor": 1, "last": 2, "gap": None})
    agent.inbox.on_subscribed(CHANNEL, "cursor", replies.SubscribeReply("E1", 1, 2))
    assert agent.session.due(0.0) == []
    agent.receive(message=pushed(2))
    assert [json.loads(frame) for frame in agent.session.due(0.0)] == [{"ack": {"channel": CHANNEL, "seq": 2}}]


def test_unknown_frame_is_ignored_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    agent = Agent()
    agent.log_in()
    for _ in range(2):
        agent.receive(weather={"channel": CHANNEL, "sunny": True})
    assert [record.getMessage() for record in caplog.records] == [
        "the server sent a frame that this version of the SDK does not know; it was ignored"
    ]
    agent.receive(message={**pushed(1), "priority": 3}, trace="7f3a")
    agent.receive(id=99, publish={"seq": 9, "message_id": "msg_9", "duplicate": False})
    assert len(agent.inbox) == 1


@pytest.mark.parametrize(
    "frame",
    [
        {"id": 0, "challenge": {"challenge_id": "chl_2", "challenge": CHALLENGE, "expires_at": "…"}},
        {"id": 1, "connect": connected()},
    ],
)
def test_second_login_reply_is_out_of_turn(frame: dict[str, object]) -> None:
    agent = Agent()
    agent.log_in()
    with pytest.raises(BadFrame, match="out of turn for a client that is connected"):
        agent.receive(**frame)


@pytest.mark.parametrize("frame", [{"message": pushed(1)}, {"id": 1, "connect": connected()}])
def test_frame_before_the_challenge_is_out_of_turn(frame: dict[str, object]) -> None:
    agent = Agent()
    agent.session.request_challenge()
    with pytest.raises(BadFrame, match="out of turn"):
        agent.receive(**frame)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_bytes_that_are_not_a_frame_raise_bad_frame(payload: bytes) -> None:
    agent = Agent()
    agent.log_in()
    try:
        agent.session.receive(payload, now=0.0)
    except BadFrame:
        return
    assert isinstance(json.loads(payload), dict)


@pytest.mark.parametrize(
    ("code", "temporary", "returns"),
    [
        ("bad_credentials", False, False),
        ("unavailable", True, True),
        ("internal", False, True),
        ("something_newer", False, False),
    ],
)
def test_refused_login_raises_connection_lost_with_should_reconnect(code: str, temporary: bool, returns: bool) -> None:
    agent = Agent()
    agent.session.request_challenge()
    with pytest.raises(ConnectionLost, match="why not") as caught:
        agent.receive(id=0, error={"code": code, "message": "why not", "temporary": temporary})
    assert caught.value.should_reconnect is returns


# --- the challenge -----------------------------------------------------------------------------------------------------


def test_challenge_has_ids_percent_encoded() -> None:
    text = CHALLENGE.replace(f"tenant={TENANT}", "tenant=old%20tenant%2Fx")
    check_challenge(text, "chl_1", "old tenant/x", AGENT)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (CHALLENGE.replace(TENANT, "ten_2"), "names the tenant 'ten_2', not 'ten_1'"),
        (CHALLENGE.replace(AGENT, "agt_2"), "names the agent 'agt_2', not 'agt_1'"),
        (CHALLENGE.replace("chl_1", "chl_2"), "names the challenge 'chl_2', not 'chl_1'"),
        (CHALLENGE.replace("artcafe login 1", "artcafe login 2"), "not have the form"),
        (CHALLENGE + "\n", "not have the form"),
        (CHALLENGE + " and=more", "not have the form"),
        (CHALLENGE.replace("0f" * 32, "0f"), "not have the form"),
        ("I owe Mallory 100 crowns", "not have the form"),
        ("", "not have the form"),
    ],
)
def test_only_a_login_of_this_agent_is_signed(text: str, problem: str) -> None:
    agent = Agent()
    agent.session.request_challenge()
    agent.receive(id=0, challenge={"challenge_id": "chl_1", "challenge": text, "expires_at": "…"})
    with pytest.raises(ChallengeRefused, match=problem):
        _ = agent.session.to_sign


def test_only_the_given_or_first_service_is_signed_for() -> None:
    assert check_challenge(CHALLENGE, "chl_1", TENANT, AGENT) == "artcafe:test"
    assert check_challenge(CHALLENGE, "chl_1", TENANT, AGENT, "artcafe:test") == "artcafe:test"
    with pytest.raises(ChallengeRefused, match="names the service 'artcafe:test', not 'artcafe:prod'"):
        check_challenge(CHALLENGE, "chl_1", TENANT, AGENT, "artcafe:prod")
    agent = Agent()
    agent.log_in()
    assert agent.session.service is None  # Nothing was signed.
    session = Session(TENANT, AGENT, 64, agent.outbox, agent.inbox, "artcafe:prod")
    session.request_challenge()
    posed = {"id": 0, "challenge": {"challenge_id": "chl_1", "challenge": CHALLENGE, "expires_at": "…"}}
    session.receive(json.dumps(posed).encode(), now=0.0)
    with pytest.raises(ChallengeRefused, match="artcafe:prod"):
        _ = session.to_sign


# --- the end -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind", "returns"),
    [
        (1000, errors.Unavailable, True),
        (1001, errors.Unavailable, True),
        (1006, errors.Unavailable, True),
        (1011, errors.Unavailable, True),
        (1012, errors.Unavailable, True),
        (1002, errors.UnknownError, False),
        (1009, errors.UnknownError, False),
        (4000, errors.ShuttingDown, True),
        (4001, errors.CredentialsExpired, True),
        (4008, errors.SlowConsumer, True),
        (4012, errors.NoPong, True),
        (4029, errors.RateLimited, True),
        (4499, errors.UnknownError, True),
        (4500, errors.BadCredentials, False),
        (4501, errors.BadFrame, False),
        (4502, errors.ConnectTimeout, False),
        (4503, errors.Revoked, False),
        (4504, errors.ConnectionLimit, False),
        (4506, errors.TenantSuspended, False),
        (4999, errors.UnknownError, False),
    ],
)
def test_close_code_maps_to_error_and_should_reconnect(code: int, kind: type[Exception], returns: bool) -> None:
    lost = lost_by_close(code, "", None)
    assert type(lost.error) is kind
    assert lost.should_reconnect is returns
    assert str(lost)


def test_every_close_code_of_the_errors_is_known() -> None:
    for kind in errors.REGISTRY.values():
        if kind.close is not None:
            assert not isinstance(lost_by_close(kind.close, "", None).error, errors.UnknownError), kind


def test_unknown_close_reason_becomes_the_error_text() -> None:
    assert str(lost_by_close(4501, "bad frame: no object", None)) == "bad frame: no object"
    assert str(lost_by_close(4503, "this agent was deleted, disab", None)) == str(errors.Revoked())
    assert "later, please" in str(lost_by_close(4029, "later, please", None))
    assert str(lost_by_close(4000, "moving to another machine", None)) == "moving to another machine"
    renewed = lost_by_close(4000, str(errors.LogRenewed())[:120], None).error
    assert isinstance(renewed, errors.LogRenewed)
    assert str(renewed) == str(errors.LogRenewed())
    assert isinstance(lost_by_close(4000, str(errors.ShuttingDown()), None).error, errors.ShuttingDown)


def test_pushed_error_explains_only_the_close_with_its_code() -> None:
    agent = Agent()
    agent.log_in()
    agent.receive(error={"code": "bad_credentials", "message": "pushed_error", "temporary": False})
    pushed_error = agent.session.last_error
    assert isinstance(pushed_error, BadCredentials)
    assert lost_by_close(4500, "", pushed_error).error is pushed_error
    assert lost_by_close(4000, "", pushed_error).error is not pushed_error


@given(st.integers(1000, 4999))
def test_codes_4000_to_4499_reconnect_and_4500_to_4999_do_not(code: int) -> None:
    assert should_reconnect(code) == (code < 4500 and code not in PROTOCOL_ERRORS)


# --- over the bytes of a WebSocket ----------------------------------------------------------------------------------------


class Server:
    """A scripted gateway: its answer to each command, over the sans-I/O protocol of the WebSocket library."""

    def __init__(self, public_key: str) -> None:
        self.key = parse_public_key(public_key)
        self.protocol = ServerProtocol(subprotocols=[Subprotocol(frames.SUBPROTOCOL)])
        self.received: list[str] = []

    def take(self, data: bytes) -> None:
        self.protocol.receive_data(data)
        for event in self.protocol.events_received():
            if isinstance(event, Request):
                self.protocol.send_response(self.protocol.accept(event))
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                for answer in self.answers(*frames.parse(bytes(event.data))):
                    self.protocol.send_text(json.dumps(answer).encode())

    def answers(self, id: int | None, kind: str, body: frames.Body) -> Iterator[dict[str, Any]]:
        self.received.append(kind)
        match body:
            case frames.Challenge():
                yield {"id": id, "challenge": {"challenge_id": "chl_1", "challenge": CHALLENGE, "expires_at": "…"}}
            case frames.Connect():
                assert sshsig.verify(body.signature or "", CHALLENGE.encode(), self.key)
                yield {"id": id, "connect": connected()}
                yield {"message": pushed(1, "käse")}
            case frames.Publish():
                yield {"id": id, "publish": {"seq": 2, "message_id": "msg_2", "duplicate": False}}
                yield {"message": pushed(2, bytes(body.data).decode())}
            case frames.Ack():
                yield {"gap": {"channel": CHANNEL, "from": body.seq + 1, "to": 7, "reason": "retention"}}


@pytest.mark.parametrize("piece", [1, 7, 1000_000])
async def test_whole_connection_over_websocket_bytes_in_pieces_of_any_size(signer: Signer, piece: int) -> None:
    agent, server = Agent(), Server(signer.public_key)
    client = ClientProtocol(parse_uri("ws://127.0.0.1/v1/connect"), subprotocols=[Subprotocol(frames.SUBPROTOCOL)])

    def moved(sender: Protocol, take: Callable[[bytes], None]) -> bool:
        data = b"".join(sender.data_to_send())
        for at in range(0, len(data), piece):
            take(data[at : at + piece])
        return bool(data)

    def hear(data: bytes) -> None:
        client.receive_data(data)
        for event in client.events_received():
            if isinstance(event, Frame):
                agent.session.receive(bytes(event.data), now=0.0)

    def settle() -> None:
        while moved(client, server.take) or moved(server.protocol, hear):
            pass

    client.send_request(client.connect())
    settle()
    client.send_text(agent.session.request_challenge())
    settle()
    client.send_text(agent.session.prove(await signer.sign(agent.session.to_sign or "")))
    settle()
    assert agent.session.is_connected
    for frame in agent.publish():
        client.send_text(frame)
    settle()
    assert agent.outcomes == [replies.PublishReply(2, "msg_2", False)]
    first, second = agent.inbox.take(), agent.inbox.take()
    assert isinstance(first, Message)
    assert isinstance(second, Message)
    assert (first.data, second.data) == ("käse", "1")
    await second.ack()
    await first.ack()
    for frame in agent.session.due(0.0):
        client.send_text(frame)
    settle()
    assert agent.inbox.take() == Gap(CHANNEL, 3, 7, "retention")
    assert server.received == ["challenge", "connect", "publish", "ack"]


def test_limits_that_are_pushed_or_refuse_a_command_are_known() -> None:
    agent = Agent()
    agent.log_in()
    state = {"name": "messages_a_minute", "limit": 10, "used": 8, "left": 2, "resets_at": "2026-11-22T16:51:57.123Z"}
    agent.receive(limits={**state, "percent": 80})
    assert (agent.outbox.limits["messages_a_minute"].used, agent.outbox.limits["messages_a_minute"].left) == (8, 2)
    agent.publish()
    used_up = {**state, "used": 10, "left": 0}
    error = {"code": "too_fast", "message": "…", "temporary": True, "limit": used_up, "retry_after_s": 70.5}
    agent.receive(id=2, error=error)
    assert agent.outbox.limits["messages_a_minute"].left == 0
    (refused,) = agent.outcomes
    assert isinstance(refused, errors.RateExceeded)
    assert (refused.limit, refused.most, refused.used, refused.wait_s) == ("messages_a_minute", 10, 10, 70.5)
