"""The AsyncAPI 3.1 document of the gateway, generated from frames and errors. docs/gateway.md is the page for readers."""

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
from artcafe.rest.dependencies import settings_of
from artcafe.rest.frame_docs import COMMANDS, PUSHES, FrameDoc, Kinds
from artcafe.wire import field_docs, frames, replies

router = APIRouter()

Document = dict[str, Any]

SCHEMA: Final = "#/components/schemas/{name}"
GATEWAY: Final = "#/channels/gateway"
FIRST_FATAL_CODE: Final = 4500
"""From this close code on, a client reconnects only after the cause was fixed; after 4000 to 4499 it reconnects (contract, 4)."""


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
        "asyncapi": "3.1.0",
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
        if kind not in commands or kind in PUSHES:
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
