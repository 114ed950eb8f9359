from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.errors import ArtcafeError, OutOfTurn, TooLarge
from artcafe.wire.frames import KINDS, MAX_FRAME_BYTES, Refused
from artcafe.wire.session import Session, State

FRAMES = {
    "challenge": b'{"id":0,"challenge":{"tenant_id":"ten_1","agent_id":"agt_1"}}',
    "connect": b'{"id":1,"connect":{"access_token":"e30"}}',
    "publish": b'{"id":2,"publish":{"channel":"chn_1","data":{}}}',
    "subscribe": b'{"id":3,"subscribe":{"channel":"chn_1"}}',
    "ack": b'{"ack":{"channel":"chn_1","seq":58}}',
    "unsubscribe": b'{"id":8,"unsubscribe":{"channel":"chn_1"}}',
    "history": b'{"id":6,"history":{"channel":"chn_1"}}',
    "watch": b'{"id":9,"watch":{"channel":"chn_1"}}',
    "unwatch": b'{"id":9,"unwatch":{"presence":true}}',
    "status": b'{"id":7,"status":{"status":"busy"}}',
}


@given(st.lists(st.sampled_from(sorted(FRAMES)) | st.binary(max_size=20), max_size=8))
def test_whatever_comes_nothing_but_challenge_passes_before_connect(said: list[str | bytes]) -> None:
    session, heard = Session(), []

    for each in said:
        before = session.state
        try:
            heard.append(session.receive(FRAMES[each] if isinstance(each, str) else each)[1])
        except (Refused, ArtcafeError):
            assert session.state is before

    assert set(itertools.takewhile(lambda kind: kind != "connect", heard)) <= {"challenge"}


@pytest.mark.parametrize("kind", sorted(FRAMES.keys() - {"challenge", "connect"}))
def test_a_command_before_connect_is_out_of_turn(kind: str) -> None:
    with pytest.raises(OutOfTurn, match=kind) as refused:
        Session().receive(FRAMES[kind])

    assert refused.value.close == 4501


def test_every_command_is_tried_here() -> None:
    assert FRAMES.keys() == set(KINDS)


@pytest.mark.parametrize("kind", sorted(FRAMES))
def test_after_connect_every_command_has_its_turn_and_challenge_and_connect_come_again(kind: str) -> None:
    session = Session()
    session.receive(FRAMES["connect"])

    assert session.receive(FRAMES[kind])[1] == kind
    assert session.state is State.CONNECTED


@pytest.mark.parametrize("kind", sorted(FRAMES))
def test_a_closed_session_hears_nothing(kind: str) -> None:
    session = Session()
    session.receive(FRAMES["connect"])
    session.close()

    with pytest.raises(OutOfTurn):
        session.receive(FRAMES[kind])


def test_a_frame_of_64_kib_passes_and_one_byte_more_does_not() -> None:
    session = Session()
    session.receive(FRAMES["connect"])
    frame = b'{"id":2,"publish":{"channel":"chn_1","data":"%b"}}'
    fitting = frame % (b"x" * (MAX_FRAME_BYTES - len(frame) + 2))

    assert len(fitting) == MAX_FRAME_BYTES
    assert session.receive(fitting)[1] == "publish"
    with pytest.raises(TooLarge) as refused:
        session.receive(fitting + b" ")
    assert refused.value.close == 4501
