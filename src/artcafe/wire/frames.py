"""The gateway's frames as structs (contract, section 4): commands that a client sends, replies and pushes that it gets.

Text in, structs out, and back; what may follow what is `wire.session`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal

import msgspec

from artcafe.errors import ArtcafeError, BadCommand, BadFrame

SUBPROTOCOL: Final = "artcafe.v1"
MAX_FRAME_BYTES: Final = 64 * 1024
MAX_DEPTH: Final = 32
MAX_ID: Final = 2**53
"""The largest integer that every JSON implementation reads exactly (RFC 8259, section 6)."""
MAX_SEQ: Final = MAX_ID


class Frame(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A part of a frame. A field this version does not know is refused, so that a misspelt option is never ignored."""


Start = Literal["cursor", "new", "first"] | Annotated[int, msgspec.Meta(ge=1, le=MAX_SEQ)]

MaxUnacked = Annotated[int, msgspec.Meta(ge=1, le=65536)] | None
"""How many messages of a channel may be unacknowledged on this socket before the server waits. None: it does not wait."""


class Challenge(Frame, frozen=True):
    tenant_id: str
    agent_id: str


class Connect(Frame, frozen=True):
    """A proof: either the signature of this connection's challenge, or a token and the tenant it is claimed to be for.

    `max_unacked` holds for the subscriptions that start by themselves.
    """

    challenge_id: str | None = None
    signature: str | None = None
    access_token: str | None = None
    tenant_id: str | None = None
    max_unacked: MaxUnacked = None


class Publish(Frame, frozen=True):
    """`data` stays the text it was: checked to be JSON, never parsed again."""

    channel: str
    data: msgspec.Raw
    key: str | None = None
    headers: Mapping[str, str] | None = None
    reply_to: str | None = None


class Subscribe(Frame, frozen=True, rename={"start": "from"}):
    """`start`, on the wire `from`, is where delivery begins: at the cursor, behind the newest, at the first, or at a sequence."""

    channel: str
    start: Start = "cursor"
    max_unacked: MaxUnacked = None


class Unsubscribe(Frame, frozen=True):
    channel: str


class Ack(Frame, frozen=True):
    channel: str
    seq: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]


class Status(Frame, frozen=True):
    """What the agent says of itself, to be seen in its presence until its last socket ends; null takes it away."""

    status: str | None


HISTORY_MESSAGES: Final = 200
"""The most that one page of history has."""

HistoryPlace = Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)] | str
"""A sequence, or an RFC 3339 time."""


class History(Frame, frozen=True):
    """What a channel keeps, without receiving it. With `after` what stands above that sequence or was stored at that time or
    later, oldest first; without it the newest first. Either way only what stands below `before`, where it is given."""

    channel: str
    after: HistoryPlace | None = None
    before: HistoryPlace | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=HISTORY_MESSAGES)] = 50


class Watch(Frame, frozen=True):
    """What a person looks at: one channel's messages as they come, or the presence of the tenant's agents."""

    channel: str | None = None
    presence: bool = False


class Unwatch(Watch, frozen=True):
    """As `Watch`, to end it."""


Body = Challenge | Connect | Publish | Subscribe | Unsubscribe | Ack | Status | History | Watch | Unwatch


class Command(Frame, frozen=True):
    """One frame of a client: an `id` unless it is an ack, and exactly one of the rest."""

    id: int | None = None
    publish: Publish | None = None
    ack: Ack | None = None
    subscribe: Subscribe | None = None
    unsubscribe: Unsubscribe | None = None
    challenge: Challenge | None = None
    connect: Connect | None = None
    status: Status | None = None
    history: History | None = None
    watch: Watch | None = None
    unwatch: Unwatch | None = None


KINDS: Final = tuple(field for field in Command.__struct_fields__ if field != "id")


_command = msgspec.json.Decoder(Command)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_id = msgspec.json.Decoder(Annotated[int, msgspec.Meta(ge=0, le=MAX_ID)])
_encode = msgspec.json.Encoder().encode


class Refused(Exception):
    """A frame that was read but is no command: `error` answers the command `id`, or is pushed where there is none."""

    def __init__(self, id: int | None, error: BadCommand) -> None:
        super().__init__(str(error))
        self.id, self.error = id, error


def parse(payload: bytes) -> tuple[int | None, str, Body]:
    """A client's frame as `(id, kind, body)`.

    Raises `Refused` for a JSON object that is no command and `BadFrame` for what is no JSON object: after that the two ends no
    longer agree on where they are.
    """
    try:
        str(payload, "utf-8")  # msgspec does not check the inside of a Raw, and a browser closes on a bad text frame
        try:
            command = _command.decode(payload)
        except msgspec.ValidationError as exc:
            raise Refused(_id_of(payload), BadCommand(f"not a command: {exc}")) from None
    except UnicodeDecodeError:
        raise BadFrame("the text is not UTF-8") from None
    except RecursionError:
        raise BadFrame(f"nested deeper than {MAX_DEPTH}") from None
    except msgspec.DecodeError as exc:
        raise BadFrame(str(exc)) from None
    id = command.id
    found = [(kind, body) for kind in KINDS if (body := getattr(command, kind)) is not None]
    if len(found) != 1:
        said = "none" if not found else " and ".join(kind for kind, _ in found)
        raise Refused(id, BadCommand(f"a frame holds exactly one command of {', '.join(KINDS)}; this one has {said}"))
    kind, body = found[0]
    if id is None and kind != "ack":
        raise Refused(None, BadCommand(f"{kind} needs an id, an integer of your choice, that its reply will carry"))
    if id is not None and not 0 <= id <= MAX_ID:
        raise Refused(None, BadCommand(f"id must be from 0 to {MAX_ID}"))
    return id, kind, body


def _id_of(payload: bytes) -> int | None:
    """The id that an answer can name, of a frame that is no command. Raises `msgspec.DecodeError` where it is no JSON object."""
    found = _object.decode(payload).get("id")
    try:
        return None if found is None else _id.decode(found)
    except msgspec.ValidationError:
        return None


def is_deep(text: bytes, limit: int = MAX_DEPTH) -> bool:
    """Whether valid JSON nests deeper than `limit`. Counting brackets settles nearly every message."""
    if text.count(b"{") + text.count(b"[") <= limit:
        return False
    # Without strings, and with one kind of bracket, each round takes away the innermost level, at the speed of `replace`: a walk
    # over 64 KiB in Python would keep the loop from everyone else for milliseconds.
    brackets = _STRING.sub(b"", text).translate(_AS_SQUARE, delete=_NO_BRACKETS)
    for _ in range(limit):
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_AS_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


# --- what the server sends -------------------------------------------------------------------------------------------


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


class ErrorBody(msgspec.Struct, frozen=True):
    code: str
    message: str
    temporary: bool


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


_incoming = msgspec.json.Decoder(Incoming)


def parse_incoming(payload: bytes | str) -> Incoming:
    """A server's frame. Raises `BadFrame` for what is none."""
    try:
        return _incoming.decode(payload)
    except msgspec.DecodeError as exc:
        raise BadFrame(str(exc), example="a frame of the server") from None


def command(kind: str, body: Body, id: int | None = None) -> bytes:
    """A client's frame."""
    return _encode({kind: body} if id is None else {"id": id, kind: body})


def reply(id: int, kind: str, body: msgspec.Struct) -> bytes:
    """The answer to the command `id`, under the command's own key."""
    return _encode({"id": id, kind: body})


def history_reply(id: int, messages: Iterable[bytes], gap: Gap | None, has_more: bool, epoch: str | None) -> bytes:
    """The answer to the command `id`, from messages as `message_text` has them."""
    told = _encode(gap), _encode(has_more), _encode(epoch)
    return b'{"id":%d,"history":{"messages":[%b],"gap":%b,"more":%b,"epoch":%b}}' % (id, b",".join(messages), *told)


def error(fault: ArtcafeError, id: int | None = None) -> bytes:
    """The answer to a command that failed, or without `id` a push that says what went wrong."""
    body = ErrorBody(code=fault.code, message=str(fault), temporary=fault.temporary)
    return _encode({"error": body} if id is None else {"id": id, "error": body})


def gap(channel: str, gap: Gap, epoch: str | None = None) -> bytes:
    """The push that names what a subscription will not get; `epoch` is that of the log, told where it is another one."""
    known = epoch if gap.to is None else None
    return _encode({"gap": GapPush(channel=channel, from_=gap.from_, to=gap.to, reason=gap.reason, epoch=known)})


def presence(push: PresencePush) -> bytes:
    """The push that says how an agent is now."""
    return _encode({"presence": push})


# --- messages: the envelope is stored as the text that goes out ---------------------------------------------------------


def envelope(publish: Publish, *, message_id: str, sender: str, time: str) -> bytes:
    """The JSON object that is stored. Delivering it only puts `channel`, `seq` and `prev` in front (`message_frame`)."""
    head: dict[str, object] = {"message_id": message_id, "from": sender, "time": time, "headers": publish.headers or {}}
    if publish.reply_to is not None:
        head["reply_to"] = publish.reply_to
    return b'%b,"data":%b}' % (_encode(head)[:-1], bytes(publish.data))


def message_frame(channel: bytes, seq: int, prev: int | None, envelope: bytes) -> bytes:
    """The frame of a stored message: text around the stored text, nothing parsed."""
    before = b"null" if prev is None else b"%d" % prev
    return b'{"message":{"channel":"%b","seq":%d,"prev":%b,%b}' % (channel, seq, before, envelope[1:])


def live_frame(channel: bytes, envelope: bytes) -> bytes:
    """The frame of a message of a `live` channel, which stands nowhere."""
    return b'{"message":{"channel":"%b","seq":null,"prev":null,%b}' % (channel, envelope[1:])


def message_text(channel: str, seq: int, envelope: bytes) -> bytes:
    """A stored message as history shows it: a JSON object, nothing of it parsed."""
    return b'{"channel":"%b","seq":%d,%b' % (channel.encode(), seq, envelope[1:])


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
