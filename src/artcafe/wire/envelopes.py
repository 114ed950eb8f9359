"""The envelope: the JSON text of a stored message. Delivery copies this text into frames without parsing it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from artcafe.wire.frames import Publish

_encode = msgspec.json.Encoder().encode
_COPY_BEGINS: Final = b'{"dead_letter":', b'{"redriven":', b'{"mark":'
_HEADERS: Final = b',"headers":'
"""No id or name before it contains these bytes: in a JSON string, its quotes would be escaped."""
PARTITION: Final = "partition"
"""The header whose value is a message's key in a queue with `key_ordered`."""
_PARTITION: Final = b'"partition":'
"""The header in an envelope: it is written by msgspec, and names have no other form in JSON that it writes."""
EXPIRING: Final = b'{"expires_at":"'
"""The beginning of an envelope with an expiry, and of no other: `startswith` finds it in 0.05 µs, so that the fan-out parses
nothing."""
_EXPIRY: Final = slice(len(EXPIRING), len(EXPIRING) + len("2026-11-22T16:50:57.123Z"))


class ChainLink(NamedTuple):
    """The place of a message in a chain of messages that answer each other. Only the server makes one."""

    caused_by: str
    """The id of the message that it answers."""
    hops: int
    """The number of messages before it, from the first message of the chain along the answers."""
    chain: str
    """The id of the first message, which names the chain."""


_NO_LINK: Final = None, None, None


class _NewMessage(msgspec.Struct, kw_only=True, omit_defaults=True, rename={"sender": "from", "sender_handle": "from_handle"}):
    """The envelope of a published message: the fields in the order in which they are stored.

    The meter reads the sender and the time from the bytes of the head, where one follows the other.
    """

    expires_at: str | None = None
    deliver_at: str | None = None
    message_id: str
    sender: str
    time: str
    sender_handle: str | None = None
    caused_by: str | None = None
    hops: int | None = None
    chain: str | None = None
    headers: Mapping[str, str]
    reply_to: str | None = None
    data: msgspec.Raw


def envelope(
    publish: Publish,
    *,
    message_id: str,
    sender: str,
    time: str,
    link: ChainLink | None = None,
    sender_handle: str | None = None,
) -> bytes:
    """Return the JSON object to store. `message_frame` only adds `channel`, `seq` and `prev` in front of it.

    `sender_handle` is the sender's present handle, which may change later. A message without a `link` begins a chain: its
    envelope has no `caused_by`, `hops` and `chain`. The times of `publish`, if any, are as of `rules.times.to_text`, and come
    first.
    """
    caused_by, hops, chain = _NO_LINK if link is None else link
    message = _NewMessage(
        expires_at=publish.expires_at,
        deliver_at=publish.deliver_at,
        message_id=message_id,
        sender=sender,
        time=time,
        sender_handle=sender_handle,
        caused_by=caused_by,
        hops=hops,
        chain=chain,
        headers=publish.headers or {},
        reply_to=publish.reply_to,
        data=publish.data,
    )
    return _encode(message)


def expires_at(envelope: bytes) -> datetime | None:
    """Return when a stored message expires, or None if it does not."""
    return datetime.fromisoformat(envelope[_EXPIRY].decode()) if envelope.startswith(EXPIRING) else None


def channel_text(id: str, handle: str | None) -> bytes:
    """Return a channel's id as JSON, followed by its handle as the field `channel_handle` if it has one.

    Ids of an older system may contain quotes and backslashes, so they are escaped.
    """
    return _encode(id) if handle is None else b'%b,"channel_handle":%b' % (_encode(id), _encode(handle))


def message_frame(channel: bytes, seq: int, prev: int | None, envelope: bytes) -> bytes:
    """Return the frame of a stored message, without parsing the envelope. `channel` is its `channel_text`."""
    before = b"null" if prev is None else b"%d" % prev
    return b'{"message":{"channel":%b,"seq":%d,"prev":%b,%b}' % (channel, seq, before, envelope[1:])


def queue_frame(channel: bytes, seq: int, deliveries: int, envelope: bytes) -> bytes:
    """Return the frame of a message of a `queue` channel to its holder. `channel` is its `channel_text`; `deliveries` counts this
    delivery too."""
    return b'{"message":{"channel":%b,"seq":%d,"prev":null,"deliveries":%d,%b}' % (channel, seq, deliveries, envelope[1:])


def live_frame(channel: bytes, envelope: bytes) -> bytes:
    """Return the frame of a message of a `live` channel, without a sequence. `channel` is its `channel_text`."""
    return b'{"message":{"channel":%b,"seq":null,"prev":null,%b}' % (channel, envelope[1:])


def message_text(channel: bytes, seq: int, envelope: bytes) -> bytes:
    """Return a stored message as an entry of history: a JSON object, made without parsing the envelope. `channel` is its
    `channel_text`."""
    return b'{"channel":%b,"seq":%d,%b' % (channel, seq, envelope[1:])


def scheduled_text(channel: bytes, envelope: bytes) -> bytes:
    """Return a scheduled message, which has no sequence yet, as an entry of a list. `channel` is its `channel_text`."""
    return b'{"channel":%b,%b' % (channel, envelope[1:])


class DeadLetterReason(StrEnum):
    """Why a message of a queue was moved to the dead-letter channel."""

    MAX_DELIVERIES = "max_deliveries"
    """It was delivered as often as its channel allows, and never acknowledged."""
    EXPIRED = "expired"
    """Its `expires_at` passed before it was acknowledged."""
    REJECTED = "rejected"
    """Its holder rejected it."""


class DeadLetter(msgspec.Struct, frozen=True):
    """The origin of a dead letter: the queue's message, by channel, sequence and id. `time` is that of the move.

    `reason` is a `DeadLetterReason`, or another one of a newer server.
    """

    channel: str
    seq: int
    message_id: str
    reason: str
    deliveries: int
    time: str


class Redriven(msgspec.Struct, frozen=True):
    """The origin of a redriven message: its dead letter, by channel and sequence, and the id of the message that failed.

    `times` counts the redrives of one message, `by` is the person who sent it back, and `time` when.
    """

    channel: str
    seq: int
    message_id: str
    times: int
    by: str
    time: str


class Envelope(msgspec.Struct, frozen=True, rename={"sender": "from", "sender_handle": "from_handle"}):
    """A parsed envelope. Only comparing or showing a stored message needs one."""

    message_id: str
    sender: str
    time: str
    data: msgspec.Raw
    sender_handle: str | None = None
    headers: Mapping[str, str] = {}
    reply_to: str | None = None
    caused_by: str | None = None
    hops: int = 0
    chain: str | None = None
    dead_letter: DeadLetter | None = None
    redriven: Redriven | None = None
    expires_at: str | None = None
    deliver_at: str | None = None


class EnvelopeHead(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    """The part of an envelope that the server wrote, without what it received."""

    message_id: str
    sender: str
    hops: int = 0
    chain: str | None = None


_head = msgspec.json.Decoder(EnvelopeHead)
_envelope = msgspec.json.Decoder(Envelope)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def parse_envelope(stored: bytes) -> Envelope:
    """Parse a stored message. Raises `msgspec.DecodeError` for bytes not written by `envelope`."""
    return _envelope.decode(stored)


def head_text(stored: bytes) -> bytes:
    """Return the fields of an envelope before its headers, as a JSON object: a small copy that keeps no message in memory."""
    return stored[: stored.find(_HEADERS)] + b"}"


def parse_head(text: bytes) -> EnvelopeHead:
    """Parse a whole envelope or its `head_text`. Raises as `parse_envelope` does."""
    return _head.decode(text)


class NewNames(NamedTuple):
    """How a copy of a log names the senders, channels and sequences in its envelopes, given their old names."""

    sender: Callable[[str], str]
    channel: Callable[[str], str]
    seq: Callable[[int], int]


def renamed(stored: bytes, names: NewNames) -> bytes:
    """Return a stored message with another sender, other channels in `reply_to` and in its origins, and no other change.

    Raises as `parse_envelope` does.
    """
    old = parse_envelope(stored)
    new: dict[str, object] = {"from": names.sender(old.sender)}
    if old.reply_to is not None:
        new["reply_to"] = names.channel(old.reply_to)
    for name, origin in (("dead_letter", old.dead_letter), ("redriven", old.redriven)):
        if origin is not None:
            new[name] = msgspec.structs.replace(origin, channel=names.channel(origin.channel), seq=names.seq(origin.seq))
    return _encode({**_fields.decode(stored), **new})


def dead_letter_envelope(stored: bytes, message_id: str, origin: DeadLetter) -> bytes:
    """Return a queue's message as a dead letter: the same sender, time, headers and data, with a new id and its origin.

    Raises as `parse_envelope` does.
    """
    return _copy(stored, message_id, dead_letter=origin)


def redriven_envelope(stored: bytes, message_id: str, origin: Redriven) -> bytes:
    """Return a dead letter as a message of its queue again, as `dead_letter_envelope` does; it does not expire any more."""
    return _copy(stored, message_id, redriven=origin)


def _copy(stored: bytes, message_id: str, **origin: DeadLetter | Redriven) -> bytes:
    fields = _fields.decode(stored)
    fields.pop("dead_letter", None)
    for name in origin:
        fields.pop(name, None)
    if "redriven" in origin:
        fields.pop("expires_at", None)
    return _encode({**origin, **fields, "message_id": message_id})


def mark_envelope(mark: str, message_id: str, sender: str, time: str) -> bytes:
    """Return the text of a mark, stored with a copy of a message: the id of the copy, who made it and when."""
    return _encode({"mark": mark, "message_id": message_id, "from": sender, "time": time, "headers": {}, "data": None})


class EndMark(msgspec.Struct, frozen=True, tag_field="mark", tag="ends"):
    """A mark in a queue channel whose messages are ordered by key.

    `ended`: the sequences of messages that were acknowledged. `unseen`: pairs of a message's sequence and the number of its
    deliveries so far that no subscriber got, because an earlier message of its key had not ended.
    """

    ended: list[int] = []
    unseen: list[tuple[int, int]] = []


_end_mark = msgspec.json.Decoder(EndMark)


def end_mark_text(mark: EndMark) -> bytes:
    """Return the text of a mark to store."""
    return _encode(mark)


def parse_end_mark(stored: bytes) -> EndMark:
    """Parse a stored mark. Raises `msgspec.DecodeError` for bytes not written by `end_mark_text`."""
    return _end_mark.decode(stored)


class _Headers(msgspec.Struct, frozen=True):
    headers: Mapping[str, str] = {}


_headers = msgspec.json.Decoder(_Headers)


def key_of(stored: bytes) -> str | None:
    """Return the key by which a queue orders a message, its header `partition`; None without one. Raises as `parse_envelope`
    does."""
    if stored.find(_PARTITION) < 0:
        return None
    return _headers.decode(stored).headers.get(PARTITION) or None


def is_copy(stored: bytes) -> bool:
    """Return whether the server stored this as a copy of another message, or as a mark of one: such are not metered.

    Every message that is published begins with its id.
    """
    return stored.startswith(_COPY_BEGINS)
