"""The AsyncAPI 3.0 document of the gateway, made from its frames and errors. The page for people is docs/gateway.md."""

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
COMES_BACK_BELOW: Final = 4500
"""Close codes from 4000 to 4499 mean that the client comes back; from there on, not before something was mended (contract, 4)."""


class FrameDoc(NamedTuple):
    """What the frames' types do not say of one kind: a sentence, an example of its body, and for a command, what it is answered
    with and which errors may answer it alone."""

    summary: str
    example: Mapping[str, Any]
    reply: Mapping[str, Any] | None = None
    errors: Kinds = ()


NOWHERE: Final[Kinds] = (errors.ChannelNotFound, errors.Forbidden, errors.Unavailable)

COMMANDS: Final[Mapping[str, FrameDoc]] = {
    "challenge": FrameDoc(
        "Asks for a text to sign, for a login on this connection.",
        {"tenant_id": "ten_01M8", "agent_id": "agt_01M8"},
        {
            "challenge_id": "chl_01M8",
            "challenge": "artcafe login 1 service=artcafe:prod:1c58 tenant=ten_01M8 agent=agt_01M8 challenge=chl_01M8 …",
            "expires_at": "2026-11-22T17:55:10.000Z",
        },
    ),
    "connect": FrameDoc(
        "Logs in by the signature of a challenge or by an access token, which may be renewed so. A failure ends the connection.",
        {"challenge_id": "chl_01M8", "signature": "-----BEGIN SSH SIGNATURE-----\n…\n-----END SSH SIGNATURE-----\n"},
        {
            "session_id": "ses_01M8",
            "agent_id": "agt_01M8",
            "tenant_id": "ten_01M8",
            "ping_s": 25,
            "limits": {"subscriptions": 128},
        },
        (
            errors.BadCredentials,
            errors.NotAMember,
            errors.CredentialsExpired,
            errors.Revoked,
            errors.ConnectionLimit,
            errors.Unavailable,
        ),
    ),
    "publish": FrameDoc(
        "Publishes a message to a channel; the reply comes when it is on disk.",
        {"channel": "chn_01M8", "data": {"task": "summarise"}, "key": "order-42", "headers": {"trace": "7f3a"}},
        {"seq": 59, "message_id": "msg_01M8", "duplicate": False},
        (
            *NOWHERE,
            errors.Invalid,
            errors.TooLarge,
            errors.KeyReused,
            errors.QuotaFull,
            errors.LogRefused,
            errors.NotStored,
            errors.OutcomeUnknown,
        ),
    ),
    "subscribe": FrameDoc(
        "Begins the delivery of a channel, and makes the subscription where there is none.",
        {"channel": "chn_01M8", "from": "cursor", "max_unacked": 64},
        {"epoch": "01M825XBWF4S8NAK4DV9X03YBS", "cursor": 41, "last": 59, "gap": None},
        (*NOWHERE, errors.Conflict, errors.SubscriptionLimit),
    ),
    "unsubscribe": FrameDoc(
        "Ends the delivery of a channel on this connection; the subscription stands.",
        {"channel": "chn_01M8"},
        {"channel": "chn_01M8"},
        (errors.NotSubscribed,),
    ),
    "ack": FrameDoc(
        "Says that a channel's messages up to a sequence have been dealt with. It has no id and no reply; an error is pushed.",
        {"channel": "chn_01M8", "seq": 42},
        None,
        (errors.AckBeyondSent, errors.NotSubscribed),
    ),
    "status": FrameDoc(
        "Says what the agent is doing, to be seen in its presence until its last connection ends; null takes it away.",
        {"status": "busy"},
        {"status": "busy"},
        (errors.Invalid,),
    ),
    "history": FrameDoc(
        "Reads what a channel keeps, without receiving it: from a sequence or a time on, or back from the end.",
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
        (*NOWHERE, errors.Invalid),
    ),
    "watch": FrameDoc(
        "Shows a person a channel's messages as they come, at most once each, or the presence of the tenant's agents.",
        {"channel": "chn_01M8"},
        {"channel": "chn_01M8"},
        (*NOWHERE, errors.SubscriptionLimit),
    ),
    "unwatch": FrameDoc(
        "Ends what a person watches on this connection.",
        {"presence": True},
        {"presence": True},
        (errors.Forbidden, errors.NotSubscribed),
    ),
}
"""Every command of `frames.Command`."""

PUSHES: Final[Mapping[str, FrameDoc]] = {
    "message": FrameDoc(
        "A message of a channel that this connection receives.",
        {
            "channel": "chn_01M8",
            "seq": 42,
            "prev": 41,
            "message_id": "msg_01M8",
            "from": "agt_01M9",
            "time": "2026-11-22T17:50:19.894Z",
            "headers": {"trace": "7f3a"},
            "data": {"task": "summarise"},
        },
    ),
    "gap": FrameDoc(
        "Names messages that will not come. Nothing is skipped without one.",
        {"channel": "chn_01M8", "from": 42, "to": None, "reason": "epoch"},
    ),
    "presence": FrameDoc(
        "How an agent is, to whoever watches: once for each that is connected when it begins, then whenever it changes.",
        {"agent": "agt_01M8", "connected": True, "status": "busy", "since": "2026-11-22T17:50:19.894Z"},
    ),
    "error": FrameDoc(
        "What went wrong with something that has no id.",
        {
            "code": "not_subscribed",
            "message": "this socket does not receive 'chn_01M8'; subscribe to it first",
            "temporary": False,
        },
        errors=(errors.SubscriptionLimit,),
    ),
}
"""Every frame of `replies.Incoming` that answers no command."""

ANY: Final[Kinds] = (errors.BadCommand, errors.Internal)
"""Errors that any command may be answered with."""

DESCRIPTION: Final = """\
How agents speak to ArtCafe over a WebSocket. Operations are the server's: it receives commands and sends pushes. A command
carries an `id`, and its reply the same one; replies come as they are ready. `connect` must succeed within 10 s of opening the
socket, and nothing but `challenge` comes before it. Order, delivery and coming back are told in docs/gateway.md; the routes of
REST are in /openapi.json."""


@router.get("/asyncapi.json", include_in_schema=False)
async def read_asyncapi(request: Request) -> Response:
    """Needs no token."""
    return Response(document(settings_of(request).gateway_url, settings_of(request).version), media_type="application/json")


@lru_cache(maxsize=4)
def document(gateway_url: str, version: str) -> bytes:
    """The document as JSON. `gateway_url` is where agents connect, such as `ws://127.0.0.1:8081/v1/connect`."""
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
    """One message of the document."""

    name: str
    kind: str
    body: type[msgspec.Struct]
    summary: str
    example: Mapping[str, Any]
    has_id: bool
    is_strict: bool = False
    """Whether a field that is not in its schema is refused. The server's may have more in a newer version."""


def _frames() -> list[_Frame]:
    """Every frame: commands, what answers them, and pushes. Raises `KeyError` for one that is not told of above."""
    commands, incoming = _fields(frames.Command), _fields(replies.Incoming)
    error = PUSHES["error"]
    found = [_Frame("error_reply", "error", incoming["error"], "Answers a command that failed.", error.example, has_id=True)]
    for kind, body in commands.items():
        told = COMMANDS[kind]
        has_reply = told.reply is not None
        found.append(_Frame(kind, kind, body, told.summary, told.example, has_id=has_reply, is_strict=True))
        if told.reply is not None:
            found.append(_Frame(f"{kind}_reply", kind, incoming[kind], f"Answers {kind}.", told.reply, has_id=True))
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
        message["correlationId"] = {"location": "$message.payload#/id", "description": "Chosen by the client."}
    return message


def _channel(path: str, messages: Iterable[str]) -> Document:
    offered = {"type": "object", "properties": {"Sec-WebSocket-Protocol": {"type": "string", "const": frames.SUBPROTOCOL}}}
    return {
        "address": path,
        "title": "A connection",
        "description": f"Text frames, each one JSON object of at most {frames.MAX_FRAME_BYTES} bytes from a client.",
        "servers": [{"$ref": "#/servers/gateway"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {"ws": {"method": "GET", "headers": offered, "bindingVersion": "0.1.0"}},
        "x-close-codes": _close_codes(),
    }


def _operations() -> Document:
    found: Document = {}
    for kind, told in COMMANDS.items():
        found[kind] = _operation("receive", kind, told._replace(errors=(*told.errors, *ANY)))
        if told.reply is not None:
            found[kind]["reply"] = {"channel": {"$ref": GATEWAY}, "messages": _named(f"{kind}_reply", "error_reply")}
    for kind, told in PUSHES.items():
        found[f"{kind}_push"] = _operation("send", f"{kind}_push", told)
    return found


def _operation(action: str, message: str, told: FrameDoc) -> Document:
    operation: Document = {"action": action, "channel": {"$ref": GATEWAY}, "summary": told.summary, "messages": _named(message)}
    if told.errors:
        operation["x-errors"] = sorted(each.code for each in told.errors)
    return operation


def _named(*messages: str) -> list[Document]:
    return [{"$ref": f"{GATEWAY}/messages/{name}"} for name in messages]


def _close_codes() -> list[Document]:
    """Every close code of ours, whether to come back, and the errors that end a connection with it."""
    closing = [kind for kind in errors.REGISTRY.values() if kind.close is not None]
    return [
        {
            "code": code,
            "comes_back": code < COMES_BACK_BELOW,
            "errors": sorted(kind.code for kind in closing if kind.close == code),
        }
        for code in sorted({kind.close for kind in closing if kind.close is not None})
    ]


def _errors() -> Document:
    """Every error that this document names. A newer server may have more: the text and `temporary` say what to do."""
    named = {*ANY, *(kind for told in (*COMMANDS.values(), *PUSHES.values()) for kind in told.errors)}
    named |= {kind for kind in errors.REGISTRY.values() if kind.close is not None}
    return {
        kind.code: {"message": re.sub(r"\{[^}]*\}", "…", kind.text), "temporary": kind.temporary}
        for kind in sorted(named, key=lambda kind: kind.code)
    }


def _tidy(name: str, schema: Document) -> Document:
    """The schema with its description as the paragraphs that the docstring is, and with what each of its fields means."""
    if "description" in schema:
        schema["description"] = inspect.cleandoc(schema["description"])
    for field, told in schema.get("properties", {}).items():
        told["description"] = field_docs.of(name, field)
    return schema
