"""The envelope: a message as it is stored, which is the text that goes out; delivering it parses nothing."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from artcafe.wire.frames import Publish

_encode = msgspec.json.Encoder().encode


def envelope(publish: Publish, *, message_id: str, sender: str, time: str) -> bytes:
    """The JSON object that is stored. Delivering it only puts `channel`, `seq` and `prev` in front (`message_frame`)."""
    head: dict[str, object] = {"message_id": message_id, "from": sender, "time": time, "headers": publish.headers or {}}
    if publish.reply_to is not None:
        head["reply_to"] = publish.reply_to
    return b'%b,"data":%b}' % (_encode(head)[:-1], publish.data)


def id_text(id: str) -> bytes:
    """Return an id as JSON. Ours need no escapes, but an id of an older system may have quotes and backslashes."""
    return _encode(id)


def message_frame(channel: bytes, seq: int, prev: int | None, envelope: bytes) -> bytes:
    """Return the frame of a stored message: text around the stored text, nothing parsed. `channel` is its `id_text`."""
    before = b"null" if prev is None else b"%d" % prev
    return b'{"message":{"channel":%b,"seq":%d,"prev":%b,%b}' % (channel, seq, before, envelope[1:])


def live_frame(channel: bytes, envelope: bytes) -> bytes:
    """Return the frame of a message of a `live` channel, which stands nowhere. `channel` is its `id_text`."""
    return b'{"message":{"channel":%b,"seq":null,"prev":null,%b}' % (channel, envelope[1:])


def message_text(channel: str, seq: int, envelope: bytes) -> bytes:
    """A stored message as history shows it: a JSON object, nothing of it parsed."""
    return b'{"channel":%b,"seq":%d,%b' % (id_text(channel), seq, envelope[1:])


class Envelope(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    """A stored message, read again only where its content must be compared or shown."""

    message_id: str
    sender: str
    time: str
    data: msgspec.Raw
    headers: Mapping[str, str] = {}
    reply_to: str | None = None


_envelope = msgspec.json.Decoder(Envelope)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def parse_envelope(stored: bytes) -> Envelope:
    """What a stored message says. Raises `msgspec.DecodeError` for bytes that `envelope` did not write."""
    return _envelope.decode(stored)


def sent_by(stored: bytes, sender: str) -> bytes:
    """The envelope of a stored message with another sender and all else as it is. Raises as `parse_envelope`."""
    fields = _fields.decode(stored)
    parse_envelope(stored)
    return _encode({**fields, "from": sender})
