"""The client's half of a connection, without sockets: whole, and over the bytes of a WebSocket cut into pieces."""

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
    """A session with its outbox and inbox, told frames as the server would write them."""

    def __init__(self) -> None:
        self.outbox, self.inbox = Outbox(), Inbox(64)
        self.session = Session(TENANT, AGENT, 64, self.outbox, self.inbox)
        self.outcomes: list[Reply | Exception] = []

    def hears(self, **frame: object) -> None:
        self.session.receive(json.dumps(frame).encode(), now=0.0)

    def logs_in(self, signature: str = "signature") -> None:
        self.session.request_challenge()
        self.hears(id=0, challenge={"challenge_id": "chl_1", "challenge": CHALLENGE, "expires_at": "…"})
        self.session.prove(signature)
        self.hears(id=1, connect=connected())

    def publishes(self) -> list[bytes]:
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


def test_the_login_asks_signs_what_it_is_given_and_is_live() -> None:
    agent = Agent()
    asked = json.loads(agent.session.request_challenge())
    assert asked == {"id": 0, "challenge": {"tenant_id": TENANT, "agent_id": AGENT}}
    agent.hears(id=0, challenge={"challenge_id": "chl_1", "challenge": CHALLENGE, "expires_at": "…"})
    assert agent.session.to_sign == CHALLENGE
    proof = json.loads(agent.session.prove("signature"))
    assert proof == {"id": 1, "connect": {"challenge_id": "chl_1", "signature": "signature", "max_unacked": 64}}
    assert not agent.session.to_sign
    agent.hears(id=1, connect=connected())
    assert agent.session.is_connected
    assert agent.session.limits == {"frame_bytes": 65536}


def test_nothing_is_sent_before_the_login_and_everything_that_waits_right_after_it() -> None:
    agent = Agent()
    assert agent.publishes() == []
    agent.logs_in()
    assert len(agent.session.due(0.0)) == 1


def test_replies_errors_messages_and_gaps_go_where_they_belong() -> None:
    agent = Agent()
    agent.logs_in()
    for _ in range(2):
        agent.publishes()
    agent.hears(message=pushed(5))
    agent.hears(id=3, error={"code": "channel_not_found", "message": "no channel", "temporary": False})
    agent.hears(gap={"channel": CHANNEL, "from": 6, "to": 8, "reason": "retention"})
    agent.hears(id=2, publish={"seq": 9, "message_id": "msg_9", "duplicate": False})
    refused, stored = agent.outcomes
    assert isinstance(refused, ChannelNotFound)
    assert str(refused) == "no channel"
    assert stored == replies.PublishReply(9, "msg_9", False)
    assert isinstance(agent.inbox.take(), Message)
    assert agent.inbox.take() == Gap(CHANNEL, 6, 8, "retention")


def test_a_temporary_error_answers_nobody_yet() -> None:
    agent = Agent()
    agent.logs_in()
    agent.publishes()
    agent.hears(id=2, error={"code": QuotaFull.code, "message": "full", "temporary": True})
    assert agent.outcomes == []
    assert len(agent.outbox) == 1


def test_an_error_push_is_logged_once_in_a_row(caplog: pytest.LogCaptureFixture) -> None:
    agent = Agent()
    agent.logs_in()
    for seq in (9, 9, 8):
        agent.hears(error={"code": "ack_beyond_sent", "message": f"ack of {seq} on {CHANNEL}", "temporary": False})
    assert [record.getMessage() for record in caplog.records] == [
        f"the server reports: ack of {seq} on {CHANNEL}" for seq in (9, 8)
    ]


def test_the_channels_that_an_error_push_is_about_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    agent = Agent()
    agent.logs_in()
    for count in (2, 12):
        channels = [f"chn_{number}" for number in range(count)]
        error = {"code": "subscription_limit", "message": "too many", "temporary": False, "channels": channels}
        agent.hears(error=error)
    two, twelve = caplog.messages
    assert two == "the server reports: too many (chn_0, chn_1)"
    assert twelve.endswith("chn_9 and 2 more)")


async def test_acks_leave_before_a_subscribe_and_then_wait_for_its_reply() -> None:
    agent = Agent()
    agent.logs_in()
    for seq in (1, 2):
        agent.hears(message=pushed(seq))
    first, second = agent.inbox.take(), agent.inbox.take()
    assert isinstance(first, Message)
    assert isinstance(second, Message)
    await first.ack()
    text = msgspec.json.encode(frames.Subscribe(CHANNEL))
    agent.outbox.add("subscribe", msgspec.Raw(text), agent.outcomes.append, channel=CHANNEL)
    assert [[*json.loads(frame)][-1] for frame in agent.session.due(0.0)] == ["ack", "subscribe"]
    await second.ack()
    assert agent.session.due(0.0) == []
    agent.hears(id=2, subscribe={"epoch": "E1", "cursor": 1, "last": 2, "gap": None})
    agent.inbox.on_subscribed(CHANNEL, "cursor", replies.SubscribeReply("E1", 1, 2))
    assert agent.session.due(0.0) == []
    agent.hears(message=pushed(2))
    assert [json.loads(frame) for frame in agent.session.due(0.0)] == [{"ack": {"channel": CHANNEL, "seq": 2}}]


def test_what_only_a_newer_server_says_is_ignored_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    agent = Agent()
    agent.logs_in()
    for _ in range(2):
        agent.hears(weather={"channel": CHANNEL, "sunny": True})
    assert [record.getMessage() for record in caplog.records] == [
        "the server sent a frame that this version of the SDK does not know; it was ignored"
    ]
    agent.hears(message={**pushed(1), "priority": 3}, trace="7f3a")
    agent.hears(id=99, publish={"seq": 9, "message_id": "msg_9", "duplicate": False})
    assert len(agent.inbox) == 1


@pytest.mark.parametrize(
    "frame",
    [
        {"id": 0, "challenge": {"challenge_id": "chl_2", "challenge": CHALLENGE, "expires_at": "…"}},
        {"id": 1, "connect": connected()},
    ],
)
def test_a_second_login_is_out_of_turn(frame: dict[str, object]) -> None:
    agent = Agent()
    agent.logs_in()
    with pytest.raises(BadFrame, match="out of turn for a client that is connected"):
        agent.hears(**frame)


@pytest.mark.parametrize("frame", [{"message": pushed(1)}, {"id": 1, "connect": connected()}])
def test_nothing_may_come_before_the_challenge(frame: dict[str, object]) -> None:
    agent = Agent()
    agent.session.request_challenge()
    with pytest.raises(BadFrame, match="out of turn"):
        agent.hears(**frame)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_bytes_that_are_no_frame_are_a_bad_frame_and_nothing_else(payload: bytes) -> None:
    agent = Agent()
    agent.logs_in()
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
def test_a_login_that_is_refused_ends_the_connection_and_says_whether_another_can_help(
    code: str, temporary: bool, returns: bool
) -> None:
    agent = Agent()
    agent.session.request_challenge()
    with pytest.raises(ConnectionLost, match="why not") as caught:
        agent.hears(id=0, error={"code": code, "message": "why not", "temporary": temporary})
    assert caught.value.should_reconnect is returns


# --- the challenge -----------------------------------------------------------------------------------------------------


def test_ids_that_do_not_fit_on_the_line_stand_in_it_percent_encoded() -> None:
    text = CHALLENGE.replace(f"tenant={TENANT}", "tenant=old%20tenant%2Fx")
    check_challenge(text, "chl_1", "old tenant/x", AGENT)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (CHALLENGE.replace(TENANT, "ten_2"), "names the tenant 'ten_2', not 'ten_1'"),
        (CHALLENGE.replace(AGENT, "agt_2"), "names the agent 'agt_2', not 'agt_1'"),
        (CHALLENGE.replace("chl_1", "chl_2"), "names the challenge 'chl_2', not 'chl_1'"),
        (CHALLENGE.replace("artcafe login 1", "artcafe login 2"), "not of the form"),
        (CHALLENGE + "\n", "not of the form"),
        (CHALLENGE + " and=more", "not of the form"),
        (CHALLENGE.replace("0f" * 32, "0f"), "not of the form"),
        ("I owe Mallory 100 crowns", "not of the form"),
        ("", "not of the form"),
    ],
)
def test_only_this_agents_own_login_is_signed(text: str, problem: str) -> None:
    agent = Agent()
    agent.session.request_challenge()
    agent.hears(id=0, challenge={"challenge_id": "chl_1", "challenge": text, "expires_at": "…"})
    with pytest.raises(ChallengeRefused, match=problem):
        _ = agent.session.to_sign


def test_a_service_that_was_given_or_met_is_the_only_one_whose_challenge_is_signed() -> None:
    assert check_challenge(CHALLENGE, "chl_1", TENANT, AGENT) == "artcafe:test"
    assert check_challenge(CHALLENGE, "chl_1", TENANT, AGENT, "artcafe:test") == "artcafe:test"
    with pytest.raises(ChallengeRefused, match="names the service 'artcafe:test', not 'artcafe:prod'"):
        check_challenge(CHALLENGE, "chl_1", TENANT, AGENT, "artcafe:prod")
    agent = Agent()
    agent.logs_in()
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
def test_a_close_code_says_what_happened_and_whether_to_come_back(code: int, kind: type[Exception], returns: bool) -> None:
    lost = lost_by_close(code, "", None)
    assert type(lost.error) is kind
    assert lost.should_reconnect is returns
    assert str(lost)


def test_every_error_that_closes_a_connection_has_a_close_code_that_is_understood() -> None:
    for kind in errors.REGISTRY.values():
        if kind.close is not None:
            assert not isinstance(lost_by_close(kind.close, "", None).error, errors.UnknownError), kind


def test_the_reason_of_a_close_is_told_where_this_end_does_not_know_it() -> None:
    assert str(lost_by_close(4501, "bad frame: no object", None)) == "bad frame: no object"
    assert str(lost_by_close(4503, "this agent was deleted, disab", None)) == str(errors.Revoked())
    assert "later, please" in str(lost_by_close(4029, "later, please", None))
    assert str(lost_by_close(4000, "moving to another machine", None)) == "moving to another machine"
    renewed = lost_by_close(4000, str(errors.LogRenewed())[:120], None).error
    assert isinstance(renewed, errors.LogRenewed)
    assert str(renewed) == str(errors.LogRenewed())
    assert isinstance(lost_by_close(4000, str(errors.ShuttingDown()), None).error, errors.ShuttingDown)


def test_an_error_that_was_pushed_explains_the_close_with_its_code_and_no_other() -> None:
    agent = Agent()
    agent.logs_in()
    agent.hears(error={"code": "bad_credentials", "message": "told", "temporary": False})
    told = agent.session.last_error
    assert isinstance(told, BadCredentials)
    assert lost_by_close(4500, "", told).error is told
    assert lost_by_close(4000, "", told).error is not told


@given(st.integers(1000, 4999))
def test_4000_to_4499_come_back_and_4500_to_4999_do_not(code: int) -> None:
    assert should_reconnect(code) == (code < 4500 and code not in PROTOCOL_ERRORS)


# --- over the bytes of a WebSocket ----------------------------------------------------------------------------------------


class Server:
    """A gateway as a script: what it answers to each command, over the WebSocket library's own protocol and no socket."""

    def __init__(self, public_key: str) -> None:
        self.key = parse_public_key(public_key)
        self.protocol = ServerProtocol(subprotocols=[Subprotocol(frames.SUBPROTOCOL)])
        self.heard: list[str] = []

    def take(self, data: bytes) -> None:
        self.protocol.receive_data(data)
        for event in self.protocol.events_received():
            if isinstance(event, Request):
                self.protocol.send_response(self.protocol.accept(event))
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                for answer in self.answers(*frames.parse(bytes(event.data))):
                    self.protocol.send_text(json.dumps(answer).encode())

    def answers(self, id: int | None, kind: str, body: frames.Body) -> Iterator[dict[str, Any]]:
        self.heard.append(kind)
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
async def test_a_whole_conversation_over_a_websocket_in_pieces_of_any_size(signer: Signer, piece: int) -> None:
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
    for frame in agent.publishes():
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
    assert server.heard == ["challenge", "connect", "publish", "ack"]
