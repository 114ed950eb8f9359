"""What a server sends as structs (contract, section 4): replies, errors and pushes; structs in, text out, and back.

Messages are put around the text that is stored (`wire.envelopes`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from artcafe.errors import ArtcafeError, BadFrame

_encode = msgspec.json.Encoder().encode


class ChallengeReply(msgspec.Struct, frozen=True):
    challenge_id: str
    challenge: str
    expires_at: str


class ConnectReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who is there now: an agent, or a person with the role that they have in the tenant."""

    session_id: str
    agent_id: str | None = None
    user_id: str | None = None
    role: str | None = None
    tenant_id: str
    ping_s: int
    limits: Mapping[str, int]


class PublishReply(msgspec.Struct, frozen=True):
    """Where a message stands: nowhere in a `live` channel, which stores nothing (`seq` is null). `message_id` is null for a
    repeat whose first message has been removed since."""

    seq: int | None
    message_id: str | None
    duplicate: bool


class Gap(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """Messages that this subscription will not get: `from` to `to`, both included, and why. No `to`: how many is unknown."""

    from_: int
    to: int | None
    reason: str


class SubscribeReply(msgspec.Struct, frozen=True):
    """Delivery goes on behind `cursor`; `last` is the newest message's sequence. `epoch` is null for a log not yet begun, and all
    three for a `live` channel, which has none."""

    epoch: str | None
    cursor: int | None
    last: int | None
    gap: Gap | None = None


class UnsubscribeReply(msgspec.Struct, frozen=True):
    channel: str


class StatusReply(msgspec.Struct, frozen=True):
    """The status as it is shown from here on."""

    status: str | None


class PastMessage(msgspec.Struct, frozen=True, kw_only=True, rename={"sender": "from"}):
    """A message as history shows it: as it was delivered, without `prev`."""

    channel: str
    seq: int
    message_id: str
    sender: str
    time: str
    headers: Mapping[str, str] = {}
    reply_to: str | None = None
    data: msgspec.Raw


class HistoryReply(msgspec.Struct, frozen=True):
    """A page of history. `gap` names what is known to be gone of what was asked for; with `more` there is a next page, above the
    last message's sequence, or below it where the newest came first. `epoch` is that of the log, null for one not yet begun."""

    messages: list[PastMessage]
    gap: Gap | None
    more: bool
    epoch: str | None


class WatchReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is watched, or not any more: as it was asked for."""

    channel: str | None = None
    presence: bool = False


class UnwatchReply(WatchReply, frozen=True):
    """As `WatchReply`."""


class PresencePush(msgspec.Struct, frozen=True, kw_only=True):
    """An agent whose presence has changed: whether it is connected, since when, and the status that it has set."""

    agent: str
    connected: bool
    status: str | None
    since: str | None


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """What went wrong. `channels` names those that a `subscription_limit` push leaves out of this connection."""

    code: str
    message: str
    temporary: bool
    channels: Sequence[str] = ()


class Message(msgspec.Struct, frozen=True, kw_only=True, rename={"sender": "from"}):
    """A message as a subscriber gets it. `prev` is the sequence before it in its channel, or null where there is none; `seq` is
    null in a `live` channel."""

    channel: str
    seq: int | None
    prev: int | None
    message_id: str
    sender: str
    time: str
    headers: Mapping[str, str] = {}
    reply_to: str | None = None
    data: msgspec.Raw


class GapPush(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"from_": "from"}):
    """As `Gap`. `epoch` stands only in one that is about another log: the epoch of the log that is read from here on."""

    channel: str
    from_: int
    to: int | None
    reason: str
    epoch: str | None = None


class Incoming(msgspec.Struct, frozen=True):
    """Any frame of a server, as a client reads it; fields of a newer server are passed over."""

    id: int | None = None
    message: Message | None = None
    publish: PublishReply | None = None
    error: ErrorBody | None = None
    challenge: ChallengeReply | None = None
    connect: ConnectReply | None = None
    subscribe: SubscribeReply | None = None
    unsubscribe: UnsubscribeReply | None = None
    status: StatusReply | None = None
    history: HistoryReply | None = None
    watch: WatchReply | None = None
    unwatch: UnwatchReply | None = None
    gap: GapPush | None = None
    presence: PresencePush | None = None


KINDS: Final = (
    "error", "message", "gap", "challenge", "connect", "publish", "subscribe", "unsubscribe", "status", "history", "watch",
    "unwatch", "presence",
)  # fmt: skip
"""The kinds of frames of a server; the first one in a frame counts."""
_REPLIES: Final = frozenset({"publish", "subscribe", "unsubscribe", "status", "history", "watch", "unwatch"})
_incoming = msgspec.json.Decoder(Incoming)


def parse_incoming(payload: bytes | str) -> Incoming:
    """A server's frame. Raises `BadFrame` for what is none."""
    try:
        return _incoming.decode(payload)
    except msgspec.DecodeError as exc:
        raise BadFrame(str(exc), example="a frame of the server") from None


def kind_of(frame: Incoming) -> str | None:
    """Return the kind of a server's frame; None for a kind of a newer server, and for a reply without an id."""
    kind = next((kind for kind in KINDS if getattr(frame, kind) is not None), None)
    return None if frame.id is None and kind in _REPLIES else kind


def reply(id: int, kind: str, body: msgspec.Struct) -> bytes:
    """The answer to the command `id`, under the command's own key."""
    return _encode({"id": id, kind: body})


def history_reply(id: int, messages: Iterable[bytes], gap: Gap | None, has_more: bool, epoch: str | None) -> bytes:
    """The answer to the command `id`, from messages as `message_text` has them."""
    told = _encode(gap), _encode(has_more), _encode(epoch)
    return b'{"id":%d,"history":{"messages":[%b],"gap":%b,"more":%b,"epoch":%b}}' % (id, b",".join(messages), *told)


def error(fault: ArtcafeError, id: int | None = None, channels: Sequence[str] = ()) -> bytes:
    """The answer to a command that failed, or without `id` a push that says what went wrong, and for which channels."""
    body = ErrorBody(code=fault.code, message=str(fault), temporary=fault.temporary, channels=channels)
    return _encode({"error": body} if id is None else {"id": id, "error": body})


def gap(channel: str, gap: Gap, epoch: str | None = None) -> bytes:
    """The push that names what a subscription will not get; `epoch` is that of the log, told where it is another one."""
    known = epoch if gap.to is None else None
    return _encode({"gap": GapPush(channel=channel, from_=gap.from_, to=gap.to, reason=gap.reason, epoch=known)})


def presence(push: PresencePush) -> bytes:
    """The push that says how an agent is now."""
    return _encode({"presence": push})
