"""The frames of a server (contract, section 4): replies, errors and pushes; encoding and parsing.

`wire.envelopes` builds the frames of messages around the stored text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from artcafe.errors import (
    AgentError,
    ArtcafeError,
    BadFrame,
    LimitFault,
    LoopStopped,
    RateLimited,
    RequestFault,
)
from artcafe.wire.envelopes import DeadLetter, Redriven
from artcafe.wire.receipts import MovedPush, ReceiptPush

_encode = msgspec.json.Encoder().encode


class ChallengeReply(msgspec.Struct, frozen=True):
    challenge_id: str
    challenge: str
    expires_at: str


class ConnectReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The authenticated principal: an agent, or a person with a role in the tenant."""

    session_id: str
    agent_id: str | None = None
    user_id: str | None = None
    role: str | None = None
    tenant_id: str
    ping_s: int
    limits: Mapping[str, int]


class PublishReply(msgspec.Struct, frozen=True):
    """The stored message. `seq` is null in a `live` channel, because it stores nothing, and for a scheduled message, which gets
    one when it is due. `message_id` is null for a repeat if the first message was removed since.

    `subscribers` counts the active subscriptions that receive the channel, `connected` those of them whose agent is connected to
    any server. Null: not known at this moment.
    """

    seq: int | None
    message_id: str | None
    duplicate: bool
    subscribers: int | None = None
    connected: int | None = None


class Gap(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """A range of messages that this subscription will not receive: `from` to `to`, both included. A null `to`: their number is
    unknown."""

    from_: int
    to: int | None
    reason: str


class SubscribeReply(msgspec.Struct, frozen=True):
    """The start of a delivery: it continues after `cursor`, and `last` is the newest message's sequence. `epoch` is null
    before the tenant's first message. All three are null for a `live` channel. `channel` is the id of the channel."""

    epoch: str | None
    cursor: int | None
    last: int | None
    gap: Gap | None = None
    channel: str | None = None


class UnsubscribeReply(msgspec.Struct, frozen=True):
    channel: str


class NakReply(msgspec.Struct, frozen=True):
    """The message that was given back."""

    channel: str
    seq: int


class ExtendReply(msgspec.Struct, frozen=True):
    """The message whose deadline begins again: it must be acknowledged within `ack_wait_s` seconds."""

    channel: str
    seq: int
    ack_wait_s: int


class StatusReply(msgspec.Struct, frozen=True):
    """The status that presence shows from now on."""

    status: str | None


class PastMessage(msgspec.Struct, frozen=True, kw_only=True, rename={"sender": "from", "sender_handle": "from_handle"}):
    """A message of history: as delivered, without `prev`."""

    channel: str
    channel_handle: str | None = None
    seq: int
    message_id: str
    sender: str
    sender_handle: str | None = None
    time: str
    caused_by: str | None = None
    hops: int = 0
    chain: str | None = None
    dead_letter: DeadLetter | None = None
    redriven: Redriven | None = None
    headers: Mapping[str, str] = {}
    reply_to: str | None = None
    expires_at: str | None = None
    deliver_at: str | None = None
    data: msgspec.Raw


class HistoryReply(msgspec.Struct, frozen=True):
    """A page of history. `gap` is the known missing part of the requested range. With `more` there is a next page: above the last
    message's sequence, or below it if the newest came first. `epoch` is the log's, null before its first message."""

    messages: list[PastMessage]
    gap: Gap | None
    more: bool
    epoch: str | None


class WatchReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The watched channel or presence, as requested."""

    channel: str | None = None
    presence: bool = False


class UnwatchReply(WatchReply, frozen=True):
    """The channel or presence that is not watched any more."""


class PresencePush(msgspec.Struct, frozen=True, kw_only=True):
    """A changed presence: whether the agent is connected, since when, and its status."""

    agent: str
    connected: bool
    status: str | None
    since: str | None


class RequestPush(msgspec.Struct, frozen=True, kw_only=True, rename={"sender": "from"}):
    """A request of another agent or a person, pushed; or with an `id` an answer to one's own request.

    A push has `headers` and the `deadline`, after which no answer counts. An answer has `more`, whether further answers follow;
    without `data` it only ends the answers.
    """

    request_id: str
    sender: str
    headers: Mapping[str, str] = {}
    deadline: str | None = None
    more: bool = False
    data: msgspec.Raw | UnsetType = UNSET


class ReplyReply(msgspec.Struct, frozen=True):
    """The answer was passed on, at most once: the server of the other side may still lose it."""

    request_id: str


class CancelPush(msgspec.Struct, frozen=True):
    """A request that needs no answer any more."""

    request_id: str
    reason: str


class AcceptReply(msgspec.Struct, frozen=True):
    max_requests: int


class LimitState(msgspec.Struct, frozen=True):
    """One limit of a tenant. A `limit` of null is unlimited; `used` and `left` are null if they are unknown, or the limit is that
    of a size. `resets_at` is the time at which a limit of a period begins again, otherwise null."""

    name: str
    limit: int | None
    used: int | None
    left: int | None
    resets_at: str | None

    @classmethod
    def of(cls, name: str, limit: int | None, used: int | None, resets_at: str | None = None) -> LimitState:
        """Return the state with what is left."""
        left = None if limit is None or used is None else max(0, limit - used)
        return cls(name, limit, used, left, resets_at)


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error. `channels`: in a `subscription_limit` push, the subscriptions that this connection does not deliver. `limit`: the
    limit that refused the command. `chain` and `hops`: in `loop_stopped`, the place of the refused message.
    `retry_after_s`: when the command can succeed, for a limit of a rate. `delivered`: whether the agent was sent the request.
    `agent_code`: the code of the agent's own error."""

    code: str
    message: str
    temporary: bool
    channels: Sequence[str] = ()
    limit: LimitState | None = None
    chain: str | None = None
    hops: int | None = None
    retry_after_s: float | None = None
    delivered: bool | None = None
    agent_code: str | None = None


class LimitsPush(LimitState, frozen=True):
    """A limit of the tenant that is nearly used or used: `percent` is 80 or 100."""

    percent: int


class Message(msgspec.Struct, frozen=True, kw_only=True, rename={"sender": "from", "sender_handle": "from_handle"}):
    """A delivered message. `prev` is the previous sequence in its channel, or null. `seq` is null in a `live` channel. Only a
    message that answers another one has `caused_by`, `hops` and `chain`; only a dead letter has `dead_letter`, and only one that
    was sent back to its queue has `redriven`. Only a message of a `queue` channel that this connection holds has `deliveries`:
    how often it was delivered, this time included. `channel_handle` is the channel's handle now, and `from_handle` that of the
    agent when it published; a row of an older system has none."""

    channel: str
    channel_handle: str | None = None
    seq: int | None
    prev: int | None
    deliveries: int | None = None
    message_id: str
    sender: str
    sender_handle: str | None = None
    time: str
    caused_by: str | None = None
    hops: int = 0
    chain: str | None = None
    dead_letter: DeadLetter | None = None
    redriven: Redriven | None = None
    headers: Mapping[str, str] = {}
    reply_to: str | None = None
    expires_at: str | None = None
    deliver_at: str | None = None
    data: msgspec.Raw


class PulledItem(Message, frozen=True, kw_only=True):
    """A message of a pull. One of a queue has a receipt, and the time until which the agent holds it."""

    receipt: str | None = None
    held_until: str | None = None


class GapPush(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"from_": "from"}):
    """A pushed `Gap`. `epoch` is present only if the log was replaced: the epoch of the new log."""

    channel: str
    from_: int
    to: int | None
    reason: str
    epoch: str | None = None


class Incoming(msgspec.Struct, frozen=True):
    """Any frame of a server, for a client. Unknown fields of a newer server are ignored."""

    id: int | None = None
    message: Message | None = None
    publish: PublishReply | None = None
    error: ErrorBody | None = None
    challenge: ChallengeReply | None = None
    connect: ConnectReply | None = None
    subscribe: SubscribeReply | None = None
    unsubscribe: UnsubscribeReply | None = None
    status: StatusReply | None = None
    nak: NakReply | None = None
    extend: ExtendReply | None = None
    history: HistoryReply | None = None
    watch: WatchReply | None = None
    unwatch: UnwatchReply | None = None
    gap: GapPush | None = None
    presence: PresencePush | None = None
    limits: LimitsPush | None = None
    request: RequestPush | None = None
    reply: ReplyReply | None = None
    cancel: CancelPush | None = None
    accept: AcceptReply | None = None
    moved: MovedPush | None = None
    receipt: ReceiptPush | None = None


KINDS: Final = (
    "error", "message", "gap", "challenge", "connect", "publish", "subscribe", "unsubscribe", "status", "history", "watch",
    "unwatch", "presence", "limits", "nak", "extend", "request", "reply", "cancel", "accept", "moved", "receipt",
)  # fmt: skip
"""The kinds of frames of a server; the first one in a frame counts."""
_REPLIES: Final = frozenset(
    {"publish", "subscribe", "unsubscribe", "status", "history", "watch", "unwatch", "nak", "extend", "reply", "accept"}
)
_incoming = msgspec.json.Decoder(Incoming)


def parse_incoming(payload: bytes | str) -> Incoming:
    """Parse a server's frame. Raises `BadFrame` for invalid JSON and for fields of a wrong type."""
    try:
        return _incoming.decode(payload)
    except msgspec.DecodeError as exc:
        raise BadFrame(str(exc), example="a frame of the server") from None


def kind_of(frame: Incoming) -> str | None:
    """Return the kind of a server's frame; None for a kind of a newer server, and for a reply without an id."""
    kind = next((kind for kind in KINDS if getattr(frame, kind) is not None), None)
    return None if frame.id is None and kind in _REPLIES else kind


def reply(id: int, kind: str, body: msgspec.Struct) -> bytes:
    """Encode the reply to the command `id`. The key is the command's kind."""
    return _encode({"id": id, kind: body})


def history_reply(id: int, messages: Iterable[bytes], gap: Gap | None, has_more: bool, epoch: str | None) -> bytes:
    """Encode the reply to a `history` command, from messages encoded by `message_text`."""
    rest = _encode(gap), _encode(has_more), _encode(epoch)
    return b'{"id":%d,"history":{"messages":[%b],"gap":%b,"more":%b,"epoch":%b}}' % (id, b",".join(messages), *rest)


def error(fault: ArtcafeError, id: int | None = None, channels: Sequence[str] = ()) -> bytes:
    """Encode the error reply to a command, or without `id` an error push. `channels` are the affected ones."""
    limit = limit_of(fault)
    chain, hops = (fault.chain, fault.hops) if isinstance(fault, LoopStopped) else (None, None)
    body = ErrorBody(
        code=fault.code,
        message=str(fault),
        temporary=fault.temporary,
        channels=channels,
        limit=limit,
        chain=chain,
        hops=hops,
        retry_after_s=round(fault.wait_s, 1) if isinstance(fault, RateLimited) else None,
        delivered=fault.was_delivered if isinstance(fault, RequestFault) else None,
        agent_code=fault.agent_code if isinstance(fault, AgentError) else None,
    )
    return _encode({"error": body} if id is None else {"id": id, "error": body})


def limit_of(fault: ArtcafeError) -> LimitState | None:
    """Return the limit that an error is about, or None."""
    if not isinstance(fault, LimitFault) or not fault.limit:
        return None
    return LimitState.of(fault.limit, fault.most, fault.used, fault.resets_at)


def gap(channel: str, gap: Gap, epoch: str | None = None) -> bytes:
    """Encode a gap push. `epoch` is the log's; the frame has it only for a gap without an end."""
    known = epoch if gap.to is None else None
    return _encode({"gap": GapPush(channel=channel, from_=gap.from_, to=gap.to, reason=gap.reason, epoch=known)})


def content(push: bytes) -> bytes:
    """Return the object below the only key of a push, as JSON text."""
    return push[push.index(b":") + 1 : -1]


def limits(push: LimitsPush) -> bytes:
    """Encode a limits push."""
    return _encode({"limits": push})


def presence(push: PresencePush) -> bytes:
    """Encode a presence push."""
    return _encode({"presence": push})
