"""The AsyncAPI 3.0 document of the gateway, generated from frames and errors. docs/gateway.md is the page for readers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import NoneType
from typing import Any, Final, NamedTuple, get_args, get_type_hints
from urllib.parse import urlsplit

import msgspec
from fastapi import APIRouter, Request, Response

from artcafe import errors
from artcafe.errors import ArtcafeError
from artcafe.rest.dependencies import settings_of
from artcafe.wire import field_docs, frames, replies

router = APIRouter()

Document = dict[str, Any]
Kinds = tuple[type[ArtcafeError], ...]

SCHEMA: Final = "#/components/schemas/{name}"
GATEWAY: Final = "#/channels/gateway"
FIRST_FATAL_CODE: Final = 4500
"""From this close code on, a client reconnects only after the cause was fixed; after 4000 to 4499 it reconnects (contract, 4)."""


class FrameDoc(NamedTuple):
    """Documentation of a frame beyond its type: a summary, an example, and for a command an example reply and specific errors."""

    summary: str
    example: Mapping[str, Any]
    reply: Mapping[str, Any] | None = None
    errors: Kinds = ()


CHANNEL_ERRORS: Final[Kinds] = (errors.ChannelNotFound, errors.Forbidden, errors.Unavailable)

COMMANDS: Final[Mapping[str, FrameDoc]] = {
    "challenge": FrameDoc(
        "Request a challenge to sign, for a login on this connection.",
        {"tenant_id": "ten_01M8", "agent_id": "agt_01M8"},
        {
            "challenge_id": "chl_01M8",
            "challenge": "artcafe login 1 service=artcafe:prod:1c58 tenant=ten_01M8 agent=agt_01M8 challenge=chl_01M8 …",
            "expires_at": "2026-11-22T17:55:10.000Z",
        },
        (errors.RateLimited,),
    ),
    "connect": FrameDoc(
        "Log in by the signature of a challenge or by an access token, or renew the token. A failure closes the connection.",
        {"challenge_id": "chl_01M8", "signature": "-----BEGIN SSH SIGNATURE-----\n…\n-----END SSH SIGNATURE-----\n"},
        {
            "session_id": "ses_01M8",
            "agent_id": "agt_01M8",
            "tenant_id": "ten_01M8",
            "ping_s": 25,
            "limits": {"frame_bytes": 65536, "json_depth": 32, "subscriptions": 128},
        },
        (
            errors.BadCredentials,
            errors.NotAMember,
            errors.CredentialsExpired,
            errors.Revoked,
            errors.TenantSuspended,
            errors.TermsRequired,
            errors.Unauthenticated,
            errors.ConnectionLimit,
            errors.Unavailable,
        ),
    ),
    "publish": FrameDoc(
        "Publish a message to a channel. The reply is sent once the message is on disk.",
        {
            "channel": "chn_01M8",
            "data": {"task": "summarise"},
            "key": "order-42",
            "headers": {"trace": "7f3a"},
            "caused_by": {"channel": "chn_01M7", "seq": 41},
        },
        {"seq": 59, "message_id": "msg_01M8", "duplicate": False},
        (
            *CHANNEL_ERRORS,
            errors.Invalid,
            errors.TooLarge,
            errors.LimitReached,
            errors.RateExceeded,
            errors.KeyReused,
            errors.CauseNotFound,
            errors.LoopStopped,
            errors.QuotaFull,
            errors.LogRefused,
            errors.NotStored,
            errors.OutcomeUnknown,
        ),
    ),
    "subscribe": FrameDoc(
        "Start delivery of a channel, and create the subscription if it does not exist.",
        {"channel": "chn_01M8", "from": "cursor", "max_unacked": 64},
        {"epoch": "01M825XBWF4S8NAK4DV9X03YBS", "cursor": 41, "last": 59, "gap": None},
        (*CHANNEL_ERRORS, errors.Conflict, errors.Invalid, errors.LimitReached, errors.SubscriptionLimit),
    ),
    "unsubscribe": FrameDoc(
        "Stop delivery of a channel on this connection. The subscription remains.",
        {"channel": "chn_01M8"},
        {"channel": "chn_01M8"},
        (errors.NotSubscribed,),
    ),
    "ack": FrameDoc(
        "Acknowledge a channel's messages up to a sequence; in a `queue` channel, one message. It has no id and no reply; an"
        " error is pushed.",
        {"channel": "chn_01M8", "seq": 42},
        None,
        (errors.AckBeyondSent, errors.Forbidden, errors.NotHeld, errors.NotSubscribed),
    ),
    "nak": FrameDoc(
        "Give back a message of a `queue` channel that this connection holds, to be delivered again.",
        {"channel": "chn_01M8", "seq": 42, "delay_s": 5},
        {"channel": "chn_01M8", "seq": 42},
        (errors.Forbidden, errors.NotHeld, errors.NotSubscribed),
    ),
    "extend": FrameDoc(
        "Let the ack deadline of a message of a `queue` channel begin again. This connection must hold it.",
        {"channel": "chn_01M8", "seq": 42},
        {"channel": "chn_01M8", "seq": 42, "ack_wait_s": 30},
        (errors.Forbidden, errors.NotHeld, errors.NotSubscribed, errors.Unavailable),
    ),
    "status": FrameDoc(
        "Set the status in the agent's presence until its last connection ends. Null removes it.",
        {"status": "busy"},
        {"status": "busy"},
        (errors.Forbidden, errors.Invalid),
    ),
    "history": FrameDoc(
        "Read the stored messages of a channel without a subscription: from a sequence or a time on, or backward from the end.",
        {"channel": "chn_01M8", "after": 41, "limit": 2},
        {
            "messages": [
                {
                    "channel": "chn_01M8",
                    "seq": 42,
                    "message_id": "msg_01M8",
                    "from": "agt_01M9",
                    "time": "2026-11-22T17:50:19.894Z",
                    "headers": {},
                    "data": {"task": "summarise"},
                }
            ],
            "gap": None,
            "more": False,
            "epoch": "01M825XBWF4S8NAK4DV9X03YBS",
        },
        (*CHANNEL_ERRORS, errors.Invalid),
    ),
    "watch": FrameDoc(
        "For people: receive a channel's new messages, each at most once, or the presence of the tenant's agents.",
        {"channel": "chn_01M8"},
        {"channel": "chn_01M8"},
        (*CHANNEL_ERRORS, errors.SubscriptionLimit),
    ),
    "unwatch": FrameDoc(
        "For people: stop watching on this connection.",
        {"presence": True},
        {"presence": True},
        (errors.Forbidden, errors.NotSubscribed),
    ),
}
"""Documentation of every command of `frames.Command`."""

PUSHES: Final[Mapping[str, FrameDoc]] = {
    "message": FrameDoc(
        "A message of a channel, delivered to this connection.",
        {
            "channel": "chn_01M8",
            "seq": 42,
            "prev": 41,
            "message_id": "msg_01M8",
            "from": "agt_01M9",
            "time": "2026-11-22T17:50:19.894Z",
            "caused_by": "msg_01M7",
            "hops": 2,
            "chain": "msg_01M6",
            "headers": {"trace": "7f3a"},
            "data": {"task": "summarise"},
        },
    ),
    "gap": FrameDoc(
        "A range of messages that will not be delivered. No message is skipped without a gap.",
        {"channel": "chn_01M8", "from": 42, "to": None, "reason": "epoch"},
    ),
    "presence": FrameDoc(
        "The presence of an agent, for people who watch it: once for each agent connected at the start, then after each change.",
        {"agent": "agt_01M8", "connected": True, "status": "busy", "since": "2026-11-22T17:50:19.894Z"},
    ),
    "limits": FrameDoc(
        "A limit of the tenant of which 80 % or 100 % is used, for a connection that uses it: by a publish, or by connecting.",
        {
            "name": "messages_a_minute",
            "limit": 6000,
            "used": 4803,
            "left": 1197,
            "resets_at": "2026-11-22T17:51:03.000Z",
            "percent": 80,
        },
    ),
    "error": FrameDoc(
        "An error that does not answer a command with an id.",
        {
            "code": "not_subscribed",
            "message": "this socket does not receive 'chn_01M8'; subscribe to it first",
            "temporary": False,
        },
        errors=(errors.SubscriptionLimit,),
    ),
}
"""Documentation of every frame of `replies.Incoming` that is not a reply."""

ANY: Final[Kinds] = (errors.BadCommand, errors.Internal)
"""Errors of any command."""

DESCRIPTION: Final = """\
The WebSocket protocol between agents and ArtCafe. Operations are those of the server, which receives commands and sends pushes. A
command has an `id`, repeated in its reply; replies may arrive in any order. `connect` must succeed within 10 s of opening the
socket, and only `challenge` may precede it. docs/gateway.md describes ordering, delivery and reconnecting; /openapi.json has the
REST routes."""


@router.get("/asyncapi.json", include_in_schema=False)
async def read_asyncapi(request: Request) -> Response:
    """Return the AsyncAPI document. No token is required."""
    return Response(document(settings_of(request).gateway_url, settings_of(request).version), media_type="application/json")


@lru_cache(maxsize=4)
def document(gateway_url: str, version: str) -> bytes:
    """Return the document as JSON. `gateway_url` is the agents' address, such as `ws://127.0.0.1:8081/v1/connect`."""
    at = urlsplit(gateway_url)
    all_frames = _frames()
    messages = {frame.name: _message(frame) for frame in all_frames}
    _, schemas = msgspec.json.schema_components([frame.body for frame in all_frames], ref_template=SCHEMA)
    whole: Document = {
        "asyncapi": "3.0.0",
        "info": {"title": "ArtCafe gateway", "version": version, "description": DESCRIPTION, "license": {"name": "Apache-2.0"}},
        "defaultContentType": "application/json",
        "servers": {"gateway": {"host": at.netloc, "protocol": at.scheme, "title": "The gateway"}},
        "channels": {"gateway": _channel(at.path, messages)},
        "operations": _operations(),
        "components": {
            "messages": messages,
            "schemas": {name: _tidy(name, schema) for name, schema in schemas.items()},
        },
        "x-errors": _errors(),
    }
    return msgspec.json.encode(whole)


class _Frame(NamedTuple):
    """One message type of the document."""

    name: str
    kind: str
    body: type[msgspec.Struct]
    summary: str
    example: Mapping[str, Any]
    has_id: bool
    is_strict: bool = False
    """Whether unknown fields are refused. Frames of the server may have more fields in newer versions."""


def _frames() -> list[_Frame]:
    """Return all frames: commands, replies and pushes. Raises KeyError for an undocumented one."""
    commands, incoming = _fields(frames.Command), _fields(replies.Incoming)
    error = PUSHES["error"]
    found = [_Frame("error_reply", "error", incoming["error"], "Reply to a failed command.", error.example, has_id=True)]
    for kind, body in commands.items():
        doc = COMMANDS[kind]
        has_reply = doc.reply is not None
        found.append(_Frame(kind, kind, body, doc.summary, doc.example, has_id=has_reply, is_strict=True))
        if doc.reply is not None:
            found.append(_Frame(f"{kind}_reply", kind, incoming[kind], f"Reply to {kind}.", doc.reply, has_id=True))
    for kind, body in incoming.items():
        if kind not in commands:
            found.append(_Frame(f"{kind}_push", kind, body, PUSHES[kind].summary, PUSHES[kind].example, has_id=False))
    return found


def _fields(frame: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct]]:
    hints = get_type_hints(frame)
    return {name: next(each for each in get_args(hint) if each is not NoneType) for name, hint in hints.items() if name != "id"}


def _message(frame: _Frame) -> Document:
    fields: Document = {"id": {"type": "integer", "minimum": 0, "maximum": frames.MAX_ID}} if frame.has_id else {}
    fields[frame.kind] = {"$ref": SCHEMA.format(name=frame.body.__name__)}
    payload: Document = {"type": "object", "required": [*fields], "properties": fields}
    if frame.is_strict:
        payload["additionalProperties"] = False
    example = {**({"id": 3} if frame.has_id else {}), frame.kind: frame.example}
    message: Document = {"name": frame.kind, "summary": frame.summary, "payload": payload, "examples": [{"payload": example}]}
    if frame.has_id:
        message["correlationId"] = {"location": "$message.payload#/id", "description": "The id chosen by the client."}
    return message


def _channel(path: str, messages: Iterable[str]) -> Document:
    offered = {"type": "object", "properties": {"Sec-WebSocket-Protocol": {"type": "string", "const": frames.SUBPROTOCOL}}}
    return {
        "address": path,
        "title": "A connection",
        "description": f"Text frames with one JSON object each; from a client, at most {frames.MAX_FRAME_BYTES} bytes.",
        "servers": [{"$ref": "#/servers/gateway"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {"ws": {"method": "GET", "headers": offered, "bindingVersion": "0.1.0"}},
        "x-close-codes": _close_codes(),
    }


def _operations() -> Document:
    found: Document = {}
    for kind, doc in COMMANDS.items():
        found[kind] = _operation("receive", kind, doc._replace(errors=(*doc.errors, *ANY)))
        if doc.reply is not None:
            found[kind]["reply"] = {"channel": {"$ref": GATEWAY}, "messages": _named(f"{kind}_reply", "error_reply")}
    for kind, doc in PUSHES.items():
        found[f"{kind}_push"] = _operation("send", f"{kind}_push", doc)
    return found


def _operation(action: str, message: str, doc: FrameDoc) -> Document:
    operation: Document = {"action": action, "channel": {"$ref": GATEWAY}, "summary": doc.summary, "messages": _named(message)}
    if doc.errors:
        operation["x-errors"] = sorted(each.code for each in doc.errors)
    return operation


def _named(*messages: str) -> list[Document]:
    return [{"$ref": f"{GATEWAY}/messages/{name}"} for name in messages]


def _close_codes() -> list[Document]:
    """Return every close code with its errors, and whether a client reconnects after it."""
    closing = [kind for kind in errors.REGISTRY.values() if kind.close is not None]
    return [
        {
            "code": code,
            "comes_back": code < FIRST_FATAL_CODE,
            "errors": sorted(kind.code for kind in closing if kind.close == code),
        }
        for code in sorted({kind.close for kind in closing if kind.close is not None})
    ]


def _errors() -> Document:
    """Return every error named in the document. Newer servers may have more; `message` and `temporary` explain them."""
    named = {*ANY, *(kind for doc in (*COMMANDS.values(), *PUSHES.values()) for kind in doc.errors)}
    named |= {kind for kind in errors.REGISTRY.values() if kind.close is not None}
    return {
        kind.code: {"message": re.sub(r"\{[^}]*\}", "…", kind.text), "temporary": kind.temporary}
        for kind in sorted(named, key=lambda kind: kind.code)
    }


def _tidy(name: str, schema: Document) -> Document:
    """Return the schema with the docstring as its description, unindented, and with descriptions of its fields."""
    if "description" in schema:
        schema["description"] = inspect.cleandoc(schema["description"])
    for field, doc in schema.get("properties", {}).items():
        doc["description"] = field_docs.of(name, field)
    return schema
