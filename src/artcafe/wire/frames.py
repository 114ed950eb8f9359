"""The frames of a client (contract, section 4): parsing and encoding.

`wire.replies` has the frames of a server, `wire.envelopes` the stored and delivered message, `wire.session` the order of frames.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import astuple

from artcafe.errors import BadCommand, BadFrame

SUBPROTOCOL: Final = "artcafe.v1"
MAX_FRAME_BYTES: Final = 64 * 1024
MAX_DEPTH: Final = 32
INBOX_PREFIX: Final = "@"
"""The id of an agent's inbox, the channel of its direct messages, is this and the agent's id. To publish, also its handle."""
MAX_ID: Final = 2**53
"""The largest integer that every JSON implementation reads exactly (RFC 8259, section 6)."""
MAX_SEQ: Final = MAX_ID
MAX_DELAY_S: Final = 24 * 3600
"""The longest delay of a `nak`, in seconds."""
MAX_HEADERS: Final = 32
"""Headers of one message."""
MAX_HEADER_CHARS: Final = 1024


class Frame(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of the parts of a frame. Unknown fields are refused, so that a misspelt option is not ignored."""


Name = Annotated[str, msgspec.Meta(max_length=8192)]
"""An id, a status or a time. The parser refuses longer ones before they are queued; services check each field's exact limit."""

Proof = Annotated[str, msgspec.Meta(max_length=16 * 1024)]

Start = Literal["cursor", "new", "first"] | Annotated[int, msgspec.Meta(ge=1, le=MAX_SEQ)]

MaxUnacked = Annotated[int, msgspec.Meta(ge=1, le=65536)] | None
"""Maximum unacknowledged messages of a channel on this socket; the server then waits for an ack. None: it does not wait."""


MAX_REQUESTS: Final = 64
"""Requests that a connection takes at once, unless it says less."""

MaxRequests = Annotated[int, msgspec.Meta(ge=0, le=MAX_REQUESTS)]
"""Maximum requests without an answer that the server pushes to this socket; 0: it takes none."""

MIN_TIMEOUT_S: Final = 1
MAX_TIMEOUT_S: Final = 120
"""The longest time that a request may wait for its answers."""
DEFAULT_TIMEOUT_S: Final = 30.0
TimeoutS = Annotated[float, msgspec.Meta(ge=MIN_TIMEOUT_S, le=MAX_TIMEOUT_S)]
MAX_REPLIES: Final = 1000
"""The most answers to one request."""
AGENT_CODE_CHARS: Final = 64
AGENT_MESSAGE_CHARS: Final = 1024


class Challenge(Frame, frozen=True):
    tenant_id: Name
    agent_id: Name


class Connect(Frame, frozen=True):
    """Credentials: the signature of a challenge of this connection, or a token and the tenant to connect to.

    `max_unacked` applies to the subscriptions that the server starts by itself; `max_requests` as in `Accept`. Without `queues`
    this connection is sent no messages of queues, and holds none: for agents that pull them.
    """

    challenge_id: Name | None = None
    signature: Proof | None = None
    access_token: Proof | None = None
    tenant_id: Name | None = None
    max_unacked: MaxUnacked = None
    max_requests: MaxRequests | None = None
    queues: bool = True


class Cause(Frame, frozen=True):
    """The position of a stored message that is answered. With `message_id`, the message there must have this id: after a restore,
    a sequence may belong to another message."""

    channel: Name
    seq: Annotated[int, msgspec.Meta(ge=1, le=MAX_SEQ)]
    message_id: Name | None = None


CausedBy = Cause | Name
"""The message that a publish answers: its place, or its id."""


ReceiptLevel = Literal["stored", "delivered", "acked"]
"""What a receipt waits for: nothing, the delivery to every recipient, or the ack of every recipient."""

RECEIPT_S: Final = 30.0
MAX_RECEIPT_S: Final = 300.0
"""How long a receipt waits, without and at most with a `receipt_s`."""


class Publish(Frame, frozen=True):
    """A message to publish. `data` is checked to be JSON, and passed on as the same text. Both times are RFC 3339. `receipt`
    requests `receipt` pushes."""

    channel: Name
    data: msgspec.Raw
    key: str | None = None
    headers: Mapping[str, str] | None = None
    reply_to: str | None = None
    caused_by: CausedBy | None = None
    expires_at: Name | None = None
    deliver_at: Name | None = None
    receipt: ReceiptLevel | None = None
    receipt_s: Annotated[float, msgspec.Meta(gt=0, le=MAX_RECEIPT_S)] | None = None


class Subscribe(Frame, frozen=True, rename={"start": "from"}):
    """A channel to receive. `start` (on the wire `from`): at the cursor, after the newest message, at the first message, or
    at a sequence."""

    channel: Name
    start: Start = "cursor"
    max_unacked: MaxUnacked = None


class Unsubscribe(Frame, frozen=True):
    channel: Name


class Ack(Frame, frozen=True):
    channel: Name
    seq: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]


class Nak(Frame, frozen=True):
    """A message of a queue to give back: to be delivered again after `delay_s` seconds, or after the channel's back-off. With
    `dead` it is not delivered again, but moves to the dead-letter channel."""

    channel: Name
    seq: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]
    delay_s: Annotated[float, msgspec.Meta(ge=0, le=MAX_DELAY_S)] | None = None
    dead: bool = False


class Extend(Frame, frozen=True):
    """A message of a queue that needs more time: its ack deadline begins again."""

    channel: Name
    seq: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]


class Status(Frame, frozen=True):
    """The status to show in the agent's presence until its last socket closes; null removes it."""

    status: Name | None


HISTORY_MESSAGES: Final = 200
"""Maximum messages in one page of history."""

HistoryPosition = Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)] | Name
"""A sequence, or an RFC 3339 time."""


class History(Frame, frozen=True):
    """A request for stored messages of a channel, without a subscription.

    With `after` (a sequence, or a time): messages above that sequence, or stored at that time or later, oldest first. Without it:
    the newest first. Both only below `before`, if it is given.
    """

    channel: Name
    after: HistoryPosition | None = None
    before: HistoryPosition | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=HISTORY_MESSAGES)] = 50


class Watch(Frame, frozen=True):
    """A request of a person to receive the new messages of one channel, or the presence of the tenant's agents."""

    channel: Name | None = None
    presence: bool = False


class Unwatch(Watch, frozen=True):
    """The reverse of `Watch`, with the same fields. It inherits from `Watch`, so a `match` must test `Unwatch` first."""


class Request(Frame, frozen=True):
    """A request to an agent. Its answers have the command's id. `data` is passed on as the same text."""

    agent: Name
    data: msgspec.Raw
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S
    headers: Mapping[str, str] | None = None
    max_replies: Annotated[int, msgspec.Meta(ge=1, le=MAX_REPLIES)] = 1


class AgentFault(Frame, frozen=True):
    """The error with which an agent answers a request. Its code is the agent's own, and is not interpreted."""

    code: Annotated[str, msgspec.Meta(min_length=1, max_length=AGENT_CODE_CHARS)]
    message: Annotated[str, msgspec.Meta(max_length=AGENT_MESSAGE_CHARS)] = ""


class Reply(Frame, frozen=True):
    """An answer to a request that this socket was sent: `data`, or an `error`.

    `more`: further answers follow. An answer without both ends the answers, and adds none.
    """

    request_id: Name
    data: msgspec.Raw | UnsetType = UNSET
    error: AgentFault | None = None
    more: bool = False


class Cancel(Frame, frozen=True):
    """Cancel a request of this socket, by the id of its command. It has no id of its own and no reply: the request is answered
    with an error, unless its answer is under way."""

    id: Annotated[int, msgspec.Meta(ge=0, le=MAX_ID)]


class Accept(Frame, frozen=True):
    """Set the number of requests without an answer that this socket takes at once; 0: it takes none."""

    max_requests: MaxRequests


Body = (
    Challenge | Connect | Publish | Subscribe | Unsubscribe | Ack | Nak | Extend | Status | History | Watch | Unwatch | Request
    | Reply | Cancel | Accept
)  # fmt: skip


class Command(Frame, frozen=True):
    """One frame of a client: exactly one kind, and an `id` unless it is an ack or a cancel."""

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
    nak: Nak | None = None
    extend: Extend | None = None
    request: Request | None = None
    reply: Reply | None = None
    cancel: Cancel | None = None
    accept: Accept | None = None


KINDS: Final = tuple(field for field in Command.__struct_fields__ if field != "id")
WITHOUT_ID: Final = frozenset({"ack", "cancel"})
"""Commands without an id and a reply."""
_KIND_OF: Final = {body: body.__name__.lower() for body in get_args(Body)}


_command = msgspec.json.Decoder(Command)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_id = msgspec.json.Decoder(Annotated[int, msgspec.Meta(ge=0, le=MAX_ID)])
_encode = msgspec.json.Encoder().encode


class RefusedCommand(Exception):
    """A readable frame without a valid command. `error` answers the command `id`, or is pushed if the id is None."""

    def __init__(self, id: int | None, error: BadCommand) -> None:
        super().__init__(str(error))
        self.id, self.error = id, error


def parse(payload: bytes) -> tuple[int | None, str, Body]:
    """Parse a client's frame into `(id, kind, body)`.

    Raises `RefusedCommand` for a JSON object that is not a valid command. Raises `BadFrame` for anything else: client and server
    then disagree about the protocol, and the connection ends.
    """
    try:
        if not payload.isascii():
            str(payload, "utf-8")  # msgspec does not check the bytes of a Raw, and a browser closes on invalid UTF-8
        try:
            command = _command.decode(payload)
        except msgspec.ValidationError as exc:
            raise RefusedCommand(_id_of(payload), BadCommand(f"not a command: {exc}")) from None
    except UnicodeDecodeError:
        raise BadFrame("the text is not UTF-8") from None
    except RecursionError:
        raise BadFrame(f"nested deeper than {MAX_DEPTH}") from None
    except msgspec.DecodeError as exc:
        raise _unread(payload, str(exc)) from None
    id, *bodies = astuple(command)  # in the order of the fields, as KINDS
    if bodies.count(None) != len(bodies) - 1:
        said = " and ".join(kind for kind in KINDS if getattr(command, kind) is not None) or "none"
        raise RefusedCommand(id, BadCommand(f"a frame must have exactly one command of {', '.join(KINDS)}; this one has {said}"))
    body = next(filter(None, bodies))
    kind = _KIND_OF[type(body)]
    if id is None and kind not in WITHOUT_ID:
        raise RefusedCommand(None, BadCommand(f"{kind} needs an id, an integer of your choice; its reply has the same id"))
    if id is not None and not 0 <= id <= MAX_ID:
        raise RefusedCommand(None, BadCommand(f"id must be from 0 to {MAX_ID}"))
    return id, kind, body


def _unread(payload: bytes, problem: str) -> RefusedCommand | BadFrame:
    """Return the error for a frame that msgspec cannot decode.

    Half a surrogate pair is valid by JSON's grammar, but is not text: it spoils one command. Anything else that is not a JSON
    object ends the connection.
    """
    # Only the id is needed from the repaired frame, so escaped backslashes may be lost.
    readable = _SURROGATE.sub(b"?", payload.replace(b"\\\\", b"??"))
    try:
        id = _id_of(readable)
    except msgspec.DecodeError:
        return BadFrame(problem)
    return RefusedCommand(id, BadCommand("not a command: a text in it has half a surrogate pair, which is not a character"))


def _id_of(payload: bytes) -> int | None:
    """Return the id of a frame that is not a valid command, if it has a valid one. Raises `msgspec.DecodeError` unless it is a
    JSON object."""
    found = _object.decode(payload).get("id")
    try:
        return None if found is None else _id.decode(found)
    except msgspec.ValidationError:
        return None


def command(kind: str, body: Body | msgspec.Raw, id: int | None = None) -> bytes:
    """Encode a client's frame. The body may be its JSON text."""
    return _encode({kind: body} if id is None else {"id": id, kind: body})


def is_deep(text: bytes, limit: int = MAX_DEPTH) -> bool:
    """Return whether valid JSON nests deeper than `limit`. Counting brackets decides for nearly every message."""
    if text.count(b"{") + text.count(b"[") <= limit:
        return False
    # With strings removed and one kind of bracket, each round removes the innermost level at the speed of `replace`. A loop over
    # 64 KiB in Python would block the event loop for milliseconds.
    brackets = STRING.sub(b"", text).translate(_AS_SQUARE, delete=_NO_BRACKETS)
    for _ in range(limit):
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
"""A string of JSON, with its quotes."""
_AS_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
