"""The frames of a client as structs (contract, section 4): text in, structs out, and back.

What a server sends is `wire.replies`', how a message is stored and delivered `wire.envelopes`', and what may follow what
`wire.session`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from operator import attrgetter
from typing import Annotated, Final, Literal, get_args

import msgspec

from artcafe.errors import BadCommand, BadFrame

SUBPROTOCOL: Final = "artcafe.v1"
MAX_FRAME_BYTES: Final = 64 * 1024
MAX_DEPTH: Final = 32
MAX_ID: Final = 2**53
"""The largest integer that every JSON implementation reads exactly (RFC 8259, section 6)."""
MAX_SEQ: Final = MAX_ID


class Frame(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A part of a frame. A field this version does not know is refused, so that a misspelt option is never ignored."""


Name = Annotated[str, msgspec.Meta(max_length=8192)]
"""An id, a status or a time. Longer ones are refused as they come, before they wait behind other commands; how long each may be
exactly, services decide."""

Proof = Annotated[str, msgspec.Meta(max_length=16 * 1024)]

Start = Literal["cursor", "new", "first"] | Annotated[int, msgspec.Meta(ge=1, le=MAX_SEQ)]

MaxUnacked = Annotated[int, msgspec.Meta(ge=1, le=65536)] | None
"""How many messages of a channel may be unacknowledged on this socket before the server waits. None: it does not wait."""


class Challenge(Frame, frozen=True):
    tenant_id: Name
    agent_id: Name


class Connect(Frame, frozen=True):
    """A proof: either the signature of this connection's challenge, or a token and the tenant it is claimed to be for.

    `max_unacked` holds for the subscriptions that start by themselves.
    """

    challenge_id: Name | None = None
    signature: Proof | None = None
    access_token: Proof | None = None
    tenant_id: Name | None = None
    max_unacked: MaxUnacked = None


class Publish(Frame, frozen=True):
    """`data` stays the text it was: checked to be JSON, never parsed again."""

    channel: Name
    data: msgspec.Raw
    key: str | None = None
    headers: Mapping[str, str] | None = None
    reply_to: str | None = None


class Subscribe(Frame, frozen=True, rename={"start": "from"}):
    """`start`, on the wire `from`, is where delivery begins: at the cursor, behind the newest, at the first, or at a sequence."""

    channel: Name
    start: Start = "cursor"
    max_unacked: MaxUnacked = None


class Unsubscribe(Frame, frozen=True):
    channel: Name


class Ack(Frame, frozen=True):
    channel: Name
    seq: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]


class Status(Frame, frozen=True):
    """What the agent says of itself, to be seen in its presence until its last socket ends; null takes it away."""

    status: Name | None


HISTORY_MESSAGES: Final = 200
"""The most that one page of history has."""

HistoryPlace = Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)] | Name
"""A sequence, or an RFC 3339 time."""


class History(Frame, frozen=True):
    """What a channel keeps, without receiving it. With `after` what stands above that sequence or was stored at that time or
    later, oldest first; without it the newest first. Either way only what stands below `before`, where it is given."""

    channel: Name
    after: HistoryPlace | None = None
    before: HistoryPlace | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=HISTORY_MESSAGES)] = 50


class Watch(Frame, frozen=True):
    """What a person looks at: one channel's messages as they come, or the presence of the tenant's agents."""

    channel: Name | None = None
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
_bodies: Final = attrgetter(*KINDS)
_KIND_OF: Final = {body: body.__name__.lower() for body in get_args(Body)}


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
        raise _unread(payload, str(exc)) from None
    id = command.id
    found = [body for body in _bodies(command) if body is not None]
    if len(found) != 1:
        said = " and ".join(kind for kind in KINDS if getattr(command, kind) is not None) or "none"
        raise Refused(id, BadCommand(f"a frame holds exactly one command of {', '.join(KINDS)}; this one has {said}"))
    (body,) = found
    kind = _KIND_OF[type(body)]
    if id is None and kind != "ack":
        raise Refused(None, BadCommand(f"{kind} needs an id, an integer of your choice, that its reply will carry"))
    if id is not None and not 0 <= id <= MAX_ID:
        raise Refused(None, BadCommand(f"id must be from 0 to {MAX_ID}"))
    return id, kind, body


def _unread(payload: bytes, problem: str) -> Refused | BadFrame:
    """What answers a frame that msgspec does not take: half a surrogate pair is JSON by its grammar, but no text.

    Such a frame spoils one command; what is no JSON object ends the connection.
    """
    # Only whether it is a command otherwise, and of which id, is asked: so no escaped backslash need stay one.
    readable = _SURROGATE.sub(b"?", payload.replace(b"\\\\", b"??"))
    try:
        id = _id_of(readable)
    except msgspec.DecodeError:
        return BadFrame(problem)
    return Refused(id, BadCommand("not a command: a text in it has half a surrogate pair, which is no character"))


def _id_of(payload: bytes) -> int | None:
    """The id that an answer can name, of a frame that is no command. Raises `msgspec.DecodeError` where it is no JSON object."""
    found = _object.decode(payload).get("id")
    try:
        return None if found is None else _id.decode(found)
    except msgspec.ValidationError:
        return None


def command(kind: str, body: Body | msgspec.Raw, id: int | None = None) -> bytes:
    """A client's frame. The body may be the JSON text that it is."""
    return _encode({kind: body} if id is None else {"id": id, kind: body})


def is_deep(text: bytes, limit: int = MAX_DEPTH) -> bool:
    """Whether valid JSON nests deeper than `limit`. Counting brackets settles nearly every message."""
    if text.count(b"{") + text.count(b"[") <= limit:
        return False
    # Without strings, and with one kind of bracket, each round takes away the innermost level, at the speed of `replace`: a walk
    # over 64 KiB in Python would keep the loop from everyone else for milliseconds.
    brackets = STRING.sub(b"", text).translate(_AS_SQUARE, delete=_NO_BRACKETS)
    for _ in range(limit):
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
"""A string of JSON, with its quotes."""
_AS_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
