"""The envelope: the JSON text of a stored message. Delivery copies this text into frames without parsing it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from artcafe.wire.frames import Publish

_encode = msgspec.json.Encoder().encode


def envelope(publish: Publish, *, message_id: str, sender: str, time: str) -> bytes:
    """Return the JSON object to store. `message_frame` only adds `channel`, `seq` and `prev` in front of it."""
    head: dict[str, object] = {"message_id": message_id, "from": sender, "time": time, "headers": publish.headers or {}}
    if publish.reply_to is not None:
        head["reply_to"] = publish.reply_to
    return b'%b,"data":%b}' % (_encode(head)[:-1], publish.data)


def id_text(id: str) -> bytes:
    """Return an id as JSON. Ids of an older system may contain quotes and backslashes, so they are escaped."""
    return _encode(id)


def message_frame(channel: bytes, seq: int, prev: int | None, envelope: bytes) -> bytes:
    """Return the frame of a stored message, without parsing the envelope. `channel` is its `id_text`."""
    before = b"null" if prev is None else b"%d" % prev
    return b'{"message":{"channel":%b,"seq":%d,"prev":%b,%b}' % (channel, seq, before, envelope[1:])


def live_frame(channel: bytes, envelope: bytes) -> bytes:
    """Return the frame of a message of a `live` channel, without a sequence. `channel` is its `id_text`."""
    return b'{"message":{"channel":%b,"seq":null,"prev":null,%b}' % (channel, envelope[1:])


def message_text(channel: str, seq: int, envelope: bytes) -> bytes:
    """Return a stored message as an entry of history: a JSON object, made without parsing the envelope."""
    return b'{"channel":%b,"seq":%d,%b' % (id_text(channel), seq, envelope[1:])


class Envelope(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    """A parsed envelope. Only comparing or showing a stored message needs one."""

    message_id: str
    sender: str
    time: str
    data: msgspec.Raw
    headers: Mapping[str, str] = {}
    reply_to: str | None = None


_envelope = msgspec.json.Decoder(Envelope)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def parse_envelope(stored: bytes) -> Envelope:
    """Parse a stored message. Raises `msgspec.DecodeError` for bytes not written by `envelope`."""
    return _envelope.decode(stored)


def sent_by(stored: bytes, sender: str) -> bytes:
    """Return a stored message with another sender and no other change. Raises as `parse_envelope` does."""
    fields = _fields.decode(stored)
    parse_envelope(stored)
    return _encode({**fields, "from": sender})
