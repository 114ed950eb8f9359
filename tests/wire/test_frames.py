from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from artcafe.errors import ArtcafeError, BadCommand, BadFrame, ChannelNotFound
from artcafe.wire import envelopes, frames, replies
from artcafe.wire.frames import MAX_DEPTH, MAX_ID, Ack, Connect, Publish, RefusedCommand, Status, Subscribe, Unsubscribe

text = st.text(st.characters(exclude_categories=["Cs"]))  # Half a surrogate pair is not text.
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)
seqs = st.integers(1, frames.MAX_SEQ)


def as_raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


publishes = st.builds(
    Publish, text, json_values.map(as_raw), st.none() | text, st.none() | st.dictionaries(text, text), st.none() | text
)


def said_of(payload: bytes) -> tuple[int | None, str, frames.Body] | ArtcafeError:
    """Return the command or the refusal of a frame. Any other exception fails the test."""
    try:
        return frames.parse(payload)
    except RefusedCommand as refused:
        return refused.error
    except ArtcafeError as error:
        return error


# --- what a client says --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "command"),
    [
        (
            '{"id":0,"challenge":{"tenant_id":"ten_1","agent_id":"agt_1"}}',
            (0, "challenge", frames.Challenge(tenant_id="ten_1", agent_id="agt_1")),
        ),
        (
            '{"id":1,"connect":{"challenge_id":"chl_1","signature":"-----BEGIN"}}',
            (1, "connect", Connect(challenge_id="chl_1", signature="-----BEGIN")),
        ),
        (
            '{"id":1,"connect":{"access_token":"e30","tenant_id":"ten_1","max_unacked":64}}',
            (1, "connect", Connect(access_token="e30", tenant_id="ten_1", max_unacked=64)),
        ),
        ('{"id":3,"subscribe":{"channel":"chn_1"}}', (3, "subscribe", Subscribe("chn_1", "cursor", None))),
        (
            '{"id":3,"subscribe":{"channel":"chn_1","from":"first","max_unacked":64}}',
            (3, "subscribe", Subscribe("chn_1", "first", 64)),
        ),
        ('{"id":3,"subscribe":{"channel":"chn_1","from":42}}', (3, "subscribe", Subscribe("chn_1", 42, None))),
        ('{"ack":{"channel":"chn_1","seq":58}}', (None, "ack", Ack("chn_1", 58))),
        ('{"id":8,"unsubscribe":{"channel":"chn_1"}}', (8, "unsubscribe", Unsubscribe("chn_1"))),
        ('{"id":7,"status":{"status":"busy"}}', (7, "status", Status("busy"))),
        ('{"id":7,"status":{"status":null}}', (7, "status", Status(None))),
    ],
)
def test_commands_of_the_contract_are_parsed(text: str, command: tuple[int | None, str, frames.Body]) -> None:
    assert frames.parse(text.encode()) == command


@given(st.binary() | text.map(str.encode) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_parse_or_raise_one_of_two_errors(payload: bytes) -> None:
    outcome = said_of(payload)

    assert outcome.close is None if isinstance(outcome, BadCommand) else isinstance(outcome, BadFrame | tuple)


@given(
    st.dictionaries(
        st.sampled_from(["id", *frames.KINDS, "else"]),
        json_values | st.fixed_dictionaries({"channel": text, "seq": json_values, "data": json_values}),
        max_size=3,
    ),
    st.binary(max_size=3),
)
def test_invalid_object_is_refused_with_its_own_id_or_none(command: dict[str, Any], behind: bytes) -> None:
    refused_id = None
    with suppress(BadFrame):
        try:
            frames.parse(json.dumps(command).encode() + behind)
        except RefusedCommand as refused:
            refused_id = refused.id

    assert refused_id is None or (refused_id == command["id"] and 0 <= refused_id <= MAX_ID)


@pytest.mark.parametrize("payload", [b"", b"[]", b"3", b"null", b'"text"', b"{", b"\xff", b'{"publish":3, garbage', b"{}{}"])
def test_payload_that_is_not_a_json_object_raises_bad_frame(payload: bytes) -> None:
    with pytest.raises(BadFrame):
        frames.parse(payload)


@pytest.mark.parametrize("start", [b'{"id":1,"publish":', b'{"publish":3,"z":', b'{"id":1,"publish":{"channel":"c","data":'])
def test_extreme_nesting_raises_bad_frame(start: bytes) -> None:
    with pytest.raises(BadFrame):
        frames.parse(start + b"[" * 30_000 + b"]" * 30_000 + b"}")


@pytest.mark.parametrize("data", [b"1.", b"01", b"NaN", b'"\\x"', b'"\n"', b'"\\x\\ud800"', b"[1,]", b"\xed\xa0\x80", b'"\xff"'])
def test_data_that_is_not_json_is_refused(data: bytes) -> None:
    with pytest.raises(BadFrame):
        frames.parse(b'{"id":1,"publish":{"channel":"chn_1","data":%b}}' % data)


@pytest.mark.parametrize(
    ("payload", "id"),
    [
        (b'{"id":5,"publish":{"channel":"chn_1","data":"\\ud800"}}', 5),
        (b'{"id":5,"publish":{"channel":"\\udfff","data":1}}', 5),
        (b'{"publish":{"channel":"chn_1","data":"\\ud800"}}', None),
        (b'{"id":5,"subscribe":{"channel":"chn_1","from":"begin"}}', 5),
        (b'{"id":5,"subscribe":{"channel":"chn_1","from":0}}', 5),
        (b'{"id":5,"subscribe":{"channel":"chn_1","max_unacked":0}}', 5),
        (b'{"id":5,"subscribe":{"channel":"chn_1","misspelt":1}}', 5),
        (b'{"id":5,"publish":{"channel":"chn_1"}}', 5),
        (b'{"id":5,"fly":{}}', 5),
        (b'{"id":5,"status":{}}', 5),
        (b'{"id":5,"status":{"status":1}}', 5),
        (b'{"id":5}', 5),
        (b'{"id":5,"publish":null}', 5),
        (b'{"id":5,"ack":{"channel":"c","seq":1},"unsubscribe":{"channel":"c"}}', 5),
        (b'{"id":"5","fly":{}}', None),
        (b'{"id":5.0,"unsubscribe":{"channel":"c"}}', None),
        (b'{"id":-5,"fly":{}}', None),
        (b'{"id":-5,"unsubscribe":{"channel":"c"}}', None),
        (b'{"id":9007199254740993,"unsubscribe":{"channel":"c"}}', None),
        (b'{"unsubscribe":{"channel":"c"}}', None),
    ],
)
def test_object_that_is_not_a_command_is_refused_with_its_id(payload: bytes, id: int | None) -> None:
    with pytest.raises(RefusedCommand) as refused:
        frames.parse(payload)

    assert refused.value.id == id


@given(
    st.integers(0, MAX_ID),
    publishes
    | st.builds(Subscribe, text, st.sampled_from(["cursor", "new", "first"]) | seqs, st.none() | st.integers(1, 65536))
    | st.builds(frames.Challenge, text, text)
    | st.builds(Connect, st.none() | text, st.none() | text, st.none() | text, st.none() | text)
    | st.builds(Unsubscribe, text)
    | st.builds(Status, st.none() | text)
    | st.builds(Ack, text, st.integers(0, frames.MAX_SEQ))
    | st.builds(frames.Nak, text, st.integers(0, frames.MAX_SEQ), st.none() | st.floats(0, frames.MAX_DELAY_S))
    | st.builds(frames.Extend, text, st.integers(0, frames.MAX_SEQ)),
)
def test_server_parses_the_encoded_command_of_a_client(id: int, body: frames.Body) -> None:
    kind = type(body).__name__.lower()

    assert frames.parse(frames.command(kind, body, id)) == (id, kind, body)


# --- how deep ------------------------------------------------------------------------------------------------------------


def depth_of(value: object) -> int:
    if isinstance(value, Mapping):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


@given(json_values, st.integers(0, 5), st.booleans())
def test_is_deep_equals_a_walk_over_the_parsed_value(value: object, limit: int, ascii_only: bool) -> None:
    encoded = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")

    assert frames.is_deep(encoded, limit) is (depth_of(value) > limit)


@pytest.mark.parametrize(("depth", "is_deep"), [(MAX_DEPTH, False), (MAX_DEPTH + 1, True)])
def test_depth_32_is_the_limit_and_brackets_in_strings_do_not_count(depth: int, is_deep: bool) -> None:
    noise = b'["' + b'[{\\"' * 100 + b'"],'

    assert frames.is_deep(b"[" + noise + b"[" * (depth - 1) + b"]" * depth) is is_deep
    assert frames.is_deep(b'{"a":' * depth + b"1" + b"}" * depth) is is_deep
    assert not frames.is_deep(b"[" + b"[]," * 20_000 + b"1]")


# --- what the server says ------------------------------------------------------------------------------------------------


@given(
    st.builds(
        Publish, text, json_values.map(as_raw), st.none() | text, st.none() | st.dictionaries(text, text), st.none() | text
    ),
    text,
    text,
    text,
    text,
)
@example(Publish("c", as_raw(1), None, None, None), "a", "agent", "now", 'quotes " and \\ backslashes')
def test_message_frame_has_the_published_fields(publish: Publish, message_id: str, sender: str, time: str, channel: str) -> None:
    stored = envelopes.envelope(publish, message_id=message_id, sender=sender, time=time)
    id = envelopes.channel_text(channel, None)
    whole = json.loads(envelopes.message_frame(id, 42, 41, stored))
    message = replies.parse_incoming(envelopes.message_frame(id, 42, None, stored)).message

    assert list(whole) == ["message"]
    assert whole["message"].pop("data") == json.loads(bytes(publish.data))
    assert whole["message"] == {
        "channel": channel,
        "seq": 42,
        "prev": 41,
        "message_id": message_id,
        "from": sender,
        "time": time,
        "headers": publish.headers or {},
    } | ({} if publish.reply_to is None else {"reply_to": publish.reply_to})
    assert json.loads(envelopes.live_frame(id, stored))["message"]["channel"] == channel
    assert json.loads(envelopes.message_text(id, 42, stored))["channel"] == channel
    assert message is not None
    assert message.prev is None
    assert bytes(message.data) == bytes(publish.data)


@given(
    st.builds(
        Publish, text, json_values.map(as_raw), st.none() | text, st.none() | st.dictionaries(text, text), st.none() | text
    ),
    text,
)
def test_envelope_can_be_parsed(publish: Publish, sender: str) -> None:
    again = envelopes.parse_envelope(envelopes.envelope(publish, message_id="msg_1", sender=sender, time="now"))

    assert (again.message_id, again.sender, again.time) == ("msg_1", sender, "now")
    assert (again.headers, again.reply_to) == (publish.headers or {}, publish.reply_to)
    assert bytes(again.data) == bytes(publish.data)


LINK = envelopes.ChainLink("msg_2", 2, "msg_1")


def test_envelope_of_a_message_without_a_cause_has_no_chain() -> None:
    publish = Publish("chn_1", as_raw({"a": 1}), "key", {"lang": "fr"}, "here")

    assert envelopes.envelope(publish, message_id="msg_1", sender="agt_1", time="now") == (
        b'{"message_id":"msg_1","from":"agt_1","time":"now","headers":{"lang":"fr"},"reply_to":"here","data":{"a": 1}}'
    )


def test_answer_is_delivered_and_kept_with_its_cause_its_hops_and_its_chain() -> None:
    stored = envelopes.envelope(Publish("chn_1", as_raw(1)), message_id="msg_3", sender="agt_1", time="now", link=LINK)
    message = replies.parse_incoming(envelopes.message_frame(envelopes.channel_text("chn_1", None), 3, 2, stored)).message
    past = msgspec.json.decode(envelopes.message_text(envelopes.channel_text("chn_1", None), 3, stored), type=replies.PastMessage)
    parsed = envelopes.parse_envelope(stored)

    assert message is not None
    for each in (message, past, parsed):
        assert (each.caused_by, each.hops, each.chain) == LINK


def test_message_of_an_older_version_begins_a_chain() -> None:
    head = envelopes.parse_head(b'{"message_id":"msg_1","from":"agt_1","time":"now","headers":{},"data":1}')

    assert (head.message_id, head.sender, head.hops, head.chain) == ("msg_1", "agt_1", 0, None)


@given(text, st.none() | st.just(LINK), st.none() | st.dictionaries(text, text))
@example('a,"headers":b', LINK, {"headers": ',"headers":'})
def test_head_of_an_envelope_is_what_the_server_wrote(
    sender: str, link: envelopes.ChainLink | None, headers: dict[str, str] | None
) -> None:
    publish = Publish("c", as_raw({"message_id": "forged", "hops": 0}), None, headers)
    stored = envelopes.envelope(publish, message_id="msg_1", sender=sender, time="now", link=link)
    head = envelopes.parse_head(envelopes.head_text(stored))

    assert head == envelopes.parse_head(stored)
    assert (head.message_id, head.sender) == ("msg_1", sender)
    assert (head.hops, head.chain) == ((0, None) if link is None else (2, "msg_1"))


@pytest.mark.parametrize(
    ("named", "parsed"),
    [
        (b'"msg_1"', "msg_1"),
        (b'{"channel":"chn_1","seq":42}', frames.Cause("chn_1", 42)),
        (b'{"channel":"chn_1","seq":42,"message_id":"msg_1"}', frames.Cause("chn_1", 42, "msg_1")),
        (b"null", None),
    ],
)
def test_publish_names_its_cause_by_id_or_by_place(named: bytes, parsed: frames.CausedBy | None) -> None:
    _, _, body = frames.parse(b'{"id":1,"publish":{"channel":"chn_1","data":1,"caused_by":%b}}' % named)

    assert isinstance(body, Publish)
    assert body.caused_by == parsed


@pytest.mark.parametrize(
    "field",
    [
        '"caused_by":{"channel":"chn_1","seq":0}',
        '"caused_by":{"channel":"chn_1"}',
        '"caused_by":{"channel":"chn_1","seq":1,"hops":3}',
        '"caused_by":5',
        '"hops":1',
        '"chain":"msg_1"',
    ],
)
def test_client_cannot_set_hops_and_chain_and_names_a_whole_cause(field: str) -> None:
    with pytest.raises(RefusedCommand, match="not a command"):
        frames.parse(b'{"id":1,"publish":{"channel":"chn_1","data":1,%b}}' % field.encode())


def test_replies_errors_and_gaps_have_the_text_of_the_contract() -> None:
    lost = ChannelNotFound("chn_1")

    assert replies.reply(2, "publish", replies.PublishReply(59, "msg_1", duplicate=False)) == (
        b'{"id":2,"publish":{"seq":59,"message_id":"msg_1","duplicate":false,"subscribers":null,"connected":null}}'
    )
    assert replies.reply(3, "subscribe", replies.SubscribeReply("epoch", 41, 59, None, "chn_1")) == (
        b'{"id":3,"subscribe":{"epoch":"epoch","cursor":41,"last":59,"gap":null,"channel":"chn_1"}}'
    )
    assert replies.gap("chn_1", replies.Gap(42, 50, "retention")) == (
        b'{"gap":{"channel":"chn_1","from":42,"to":50,"reason":"retention"}}'
    )
    told = {"code": "channel_not_found", "message": str(lost), "temporary": False}
    assert json.loads(replies.error(lost, 2)) == {"id": 2, "error": told}
    assert json.loads(replies.error(lost)) == {"error": told}


@given(st.binary())
def test_client_parses_any_bytes_or_raises_bad_frame(payload: bytes) -> None:
    with suppress(BadFrame):
        replies.parse_incoming(payload)


def test_client_ignores_fields_of_a_newer_server() -> None:
    read = replies.parse_incoming('{"id":2,"publish":{"seq":1,"message_id":"m","duplicate":false,"new":1},"newer":{}}')

    assert read.publish == replies.PublishReply(1, "m", duplicate=False)
