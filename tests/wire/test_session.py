"""Both roles of a connection: the tables side by side, joined in memory, and every illegal order of frames."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.errors import ArtcafeError, BadFrame, OutOfTurn, TooLarge
from artcafe.wire import frames, replies
from artcafe.wire.frames import KINDS, MAX_FRAME_BYTES, RefusedCommand
from artcafe.wire.session import (
    CLIENT_RECEIVES,
    CLIENT_SENDS,
    SERVER_RECEIVES,
    ClientSession,
    ClientState,
    ServerSession,
    ServerState,
)
from tests.wire import transcripts
from tests.wire.connection_pair import ConnectionPair, Pieces, Transport, Whole
from tests.wire.transcripts import COMMANDS, VECTORS, command_frame, server_frame

DOCUMENT: dict[str, Any] = json.loads(VECTORS.read_text())
TRANSPORTS: dict[str, Callable[[], Transport]] = {"whole": Whole, "byte by byte": lambda: Pieces(1), "7 bytes": lambda: Pieces(7)}
over = pytest.mark.parametrize("transport", TRANSPORTS.values(), ids=TRANSPORTS)


def named(case: dict[str, Any]) -> str:
    return f"{case['state']}-{case['kind']}"


# --- the two tables, side by side ----------------------------------------------------------------------------------------


def test_server_accepts_every_command_that_a_client_may_send() -> None:
    reached, todo = set(), [(ClientState.FRESH, ServerState.FRESH)]
    while todo:
        client, server = pair = todo.pop()
        if pair in reached:
            continue
        reached.add(pair)
        for kind in KINDS:
            if (client, kind) in CLIENT_SENDS:
                assert (server, kind) in SERVER_RECEIVES, f"{kind} from a client that is {client.value}"
                todo.append((CLIENT_SENDS[client, kind], SERVER_RECEIVES[server, kind]))
        todo += [(CLIENT_RECEIVES[client, kind], server) for kind in replies.KINDS if (client, kind) in CLIENT_RECEIVES]
    assert {client for client, _ in reached} == set(ClientState) - {ClientState.CLOSED}


def test_connected_client_may_send_every_command_that_the_server_accepts() -> None:
    for kind in KINDS:
        assert ((ClientState.CONNECTED, kind) in CLIENT_SENDS) == ((ServerState.CONNECTED, kind) in SERVER_RECEIVES)


def test_client_accepts_the_reply_to_every_command_and_every_push() -> None:
    for kind in set(KINDS) - {"ack", "cancel"}:
        after = CLIENT_SENDS[ClientState.CONNECTED, kind]
        assert (after, kind) in CLIENT_RECEIVES
        assert (after, "error") in CLIENT_RECEIVES
    for kind in ("message", "gap", "presence", "request", "cancel", "error"):
        assert (ClientState.CONNECTED, kind) in CLIENT_RECEIVES


def test_closed_sessions_accept_and_send_nothing() -> None:
    client, server = ClientSession(), ServerSession()
    client.close()
    server.close()
    for kind in KINDS:
        with pytest.raises(OutOfTurn):
            client.send(kind, COMMANDS[kind], 1)
        with pytest.raises(OutOfTurn):
            server.receive(command_frame(kind))
    for kind in replies.KINDS:
        with pytest.raises(BadFrame):
            client.receive(server_frame(kind))


# --- joined in memory ------------------------------------------------------------------------------------------------------


@over
@pytest.mark.parametrize("recorded", DOCUMENT["transcripts"], ids=lambda each: each["name"])
def test_transcript_replays_frame_by_frame(recorded: dict[str, Any], transport: Callable[[], Transport]) -> None:
    pair = ConnectionPair(transport())
    for step in recorded["steps"]:
        frame = step["frame"].encode()
        if step["from"] == "client":
            id, kind, body = frames.parse(frame)
            assert pair.send(kind, body, id) == frame
            assert pair.commands[-1] == (id, kind, body)
        else:
            pair.deliver_to_client(frame)
            kind = pair.answers[-1][0] or "unknown"
        assert kind == step["kind"]
        assert (pair.client.state.name.lower(), pair.server.state.name.lower()) == (step["client"], step["server"])


@over
@pytest.mark.parametrize("case", DOCUMENT["illegal_for_client"], ids=named)
def test_client_refuses_a_frame_out_of_turn(case: dict[str, Any], transport: Callable[[], Transport]) -> None:
    pair = ConnectionPair(transport())
    follow(pair, case["path"])
    before = pair.client.state
    with pytest.raises(BadFrame, match=f"{case['kind']} is out of turn"):
        pair.deliver_to_client(case["frame"].encode())
    assert pair.client.state is before
    assert before.name.lower() == case["state"]


@over
@pytest.mark.parametrize("case", DOCUMENT["illegal_for_server"], ids=named)
def test_server_refuses_a_command_out_of_turn(case: dict[str, Any], transport: Callable[[], Transport]) -> None:
    pair = ConnectionPair(transport())
    follow(pair, case["path"])
    before = pair.server.state
    with pytest.raises(OutOfTurn, match=case["kind"]) as refused:
        pair.deliver_to_server(case["frame"].encode())
    assert (refused.value.code, refused.value.close) == (case["code"], case["close"])
    assert pair.server.state is before
    assert before.name.lower() == case["state"]


def follow(pair: ConnectionPair, path: list[dict[str, str]]) -> None:
    for step in path:
        if step["from"] == "client":
            id, kind, body = frames.parse(step["frame"].encode())
            pair.send(kind, body, id)
        else:
            pair.deliver_to_client(step["frame"].encode())


ILLEGAL_SENDS = [(state, kind) for state in transcripts.CLIENT_PATHS for kind in KINDS if (state, kind) not in CLIENT_SENDS]


@pytest.mark.parametrize(("state", "kind"), ILLEGAL_SENDS, ids=lambda each: each if isinstance(each, str) else each.name.lower())
def test_client_does_not_send_a_command_out_of_turn(state: ClientState, kind: str) -> None:
    session = ClientSession()
    for sender, each in transcripts.CLIENT_PATHS[state]:
        if sender == "client":
            session.send(each, COMMANDS[each], 1)
        else:
            session.receive(server_frame(each))
    with pytest.raises(OutOfTurn):
        session.send(kind, COMMANDS[kind], 1)
    assert session.state is state


STEPS = st.tuples(st.just("client"), st.sampled_from(KINDS)) | st.tuples(st.just("server"), st.sampled_from(replies.KINDS))


@given(steps=st.lists(STEPS, max_size=20), size=st.sampled_from([None, 1, 5]))
def test_each_side_accepts_every_frame_that_the_other_may_send(steps: list[tuple[str, str]], size: int | None) -> None:
    pair = ConnectionPair(Pieces(size) if size else Whole())
    for sender, kind in steps:
        if sender == "client" and (pair.client.state, kind) in CLIENT_SENDS:
            pair.send(kind, COMMANDS[kind], None if kind in frames.WITHOUT_ID else 1)
            assert pair.commands[-1][1:] == (kind, COMMANDS[kind])
        elif sender == "server" and (pair.client.state, kind) in CLIENT_RECEIVES:
            pair.deliver_to_client(server_frame(kind))
            assert pair.answers[-1][0] == kind


def test_committed_vectors_equal_the_generated_ones() -> None:
    assert VECTORS.read_text() == transcripts.vectors(), "stale: run `python -m tests.wire.transcripts`"


# --- the server alone --------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(KINDS) | st.binary(max_size=20), max_size=8))
def test_only_challenge_is_accepted_before_connect(sent: list[str | bytes]) -> None:
    session, accepted = ServerSession(), []
    for each in sent:
        before = session.state
        try:
            accepted.append(session.receive(command_frame(each) if isinstance(each, str) else each)[1])
        except (RefusedCommand, ArtcafeError):
            assert session.state is before
    assert set(itertools.takewhile(lambda kind: kind != "connect", accepted)) <= {"challenge"}


def test_frame_of_64_kib_is_accepted_and_one_byte_more_is_not() -> None:
    session = ServerSession()
    session.receive(command_frame("connect"))
    frame = b'{"id":2,"publish":{"channel":"chn_1","data":"%b"}}'
    fitting = frame % (b"x" * (MAX_FRAME_BYTES - len(frame) + 2))
    assert len(fitting) == MAX_FRAME_BYTES
    assert session.receive(fitting)[1] == "publish"
    with pytest.raises(TooLarge) as refused:
        session.receive(fitting + b" ")
    assert refused.value.close == 4501


# --- the client alone --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [b'{"publish":{"seq":1,"message_id":"msg_1","duplicate":false}}', b'{"weather":1}', b"{}"])
def test_reply_without_an_id_and_unknown_kinds_are_ignored_in_every_state(frame: bytes) -> None:
    session = ClientSession()
    assert session.receive(frame)[0] is None
    assert session.state is ClientState.FRESH


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_bytes_that_are_not_a_frame_raise_bad_frame_and_change_nothing(payload: bytes) -> None:
    session = ClientSession()
    session.send("connect", transcripts.TOKEN, 0)
    try:
        session.receive(payload)
    except BadFrame:
        assert session.state is ClientState.CONNECT_SENT
