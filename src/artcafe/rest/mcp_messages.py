"""The messages of the Model Context Protocol over HTTP, in both of its eras: parsing, checks and encoding.

A client of 2026-07-28 sends self-contained requests, which name their version, method and tool in headers too. An older one first
sends `initialize`; without a session its other requests need nothing of that. A server with tools only and without sessions
answers each request with one JSON body (modelcontextprotocol.io/specification, "Streamable HTTP"); decision record 57 says why
this is not the protocol's library.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType
from starlette.datastructures import Headers

MODERN_VERSIONS: Final = ("2026-07-28",)
HANDSHAKE_VERSIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
"""Versions that begin with `initialize`."""

VERSION_HEADER: Final = "mcp-protocol-version"
METHOD_HEADER: Final = "mcp-method"
NAME_HEADER: Final = "mcp-name"
VERSION: Final = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
SERVER_INFO: Final = "io.modelcontextprotocol/serverInfo"

MAX_ID_BYTES: Final = 256
"""Longest id of a request: it is repeated in every event about a subscription."""

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
RESOURCE_NOT_FOUND: Final = -32002
"""In versions with `initialize`; since then it is `INVALID_PARAMS`."""
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
HEADER_MISMATCH: Final = -32020
UNSUPPORTED_VERSION: Final = -32022

NO_ID: Final = Raw(b"null")
"""The id in an error about a message whose id is unknown (JSON-RPC 2.0, section 5)."""


class RpcError(Exception):
    """An error of the protocol, which is no error of a tool."""

    def __init__(self, code: int, message: str, data: object = UNSET) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data


class RpcRequest(NamedTuple):
    """A request. `is_modern`: its version has no `initialize`."""

    id: Raw
    method: str
    params: Raw
    is_modern: bool


class _Message(msgspec.Struct, frozen=True):
    jsonrpc: str
    method: str
    id: Raw | UnsetType = UNSET
    params: Raw = Raw(b"{}")


class _Envelope(msgspec.Struct, frozen=True):
    meta: dict[str, Raw] = msgspec.field(name="_meta")


class ToolCall(msgspec.Struct, frozen=True):
    """The parameters of `tools/call`. `arguments` is JSON text."""

    name: str
    arguments: Raw = Raw(b"{}")


class ResourceRead(msgspec.Struct, frozen=True):
    """The parameters of `resources/read`."""

    uri: str


class Initialize(msgspec.Struct, frozen=True):
    """The parameters of `initialize` that matter here."""

    version: str = msgspec.field(name="protocolVersion")

    @property
    def agreed(self) -> str:
        """The version that the server agrees to: the client's, or the newest with `initialize`."""
        return self.version if self.version in HANDSHAKE_VERSIONS else HANDSHAKE_VERSIONS[-1]


Params = TypeVar("Params", bound=msgspec.Struct)
_message: Final = msgspec.json.Decoder(_Message)


def parse(body: bytes, headers: Headers) -> RpcRequest | None:
    """Return the request in a body; None for a notification, which needs no answer.

    Raises `RpcError`. Its headers are not compared with its content yet: `check_headers` does that.
    """
    message = _parse(body)
    version = headers.get(VERSION_HEADER)
    is_modern = version is not None and version not in HANDSHAKE_VERSIONS
    if message.id is UNSET:
        if is_modern and version not in MODERN_VERSIONS:
            raise _unsupported(version)
        return None
    return RpcRequest(message.id, message.method, message.params, is_modern)


def _parse(body: bytes) -> _Message:
    try:
        str(body, "utf-8")  # msgspec does not validate the content of a Raw.
        message = _message.decode(body)
    except msgspec.ValidationError:
        raise RpcError(INVALID_REQUEST, "the body must be one JSON-RPC request or notification") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise RpcError(PARSE_ERROR, f"the body is no JSON: {exc}") from None
    except RecursionError:
        raise RpcError(PARSE_ERROR, "the body is nested too deeply") from None
    if message.jsonrpc != "2.0":
        raise RpcError(INVALID_REQUEST, 'the body must have "jsonrpc":"2.0"')
    if message.id is not UNSET and bytes(message.id)[:1] not in b'"-0123456789':
        raise RpcError(INVALID_REQUEST, "the id of a request must be a string or an integer")
    if message.id is not UNSET and len(bytes(message.id)) > MAX_ID_BYTES:
        raise RpcError(INVALID_REQUEST, f"the id of a request may have at most {MAX_ID_BYTES} bytes")
    return message


def check_headers(request: RpcRequest, headers: Headers) -> None:
    """Check a request of a version without `initialize`: it must name its version, its method, and its tool or
    resource in headers too.

    Raises `RpcError`.
    """
    if any(len(headers.getlist(name)) > 1 for name in (VERSION_HEADER, METHOD_HEADER, NAME_HEADER)):
        raise RpcError(
            HEADER_MISMATCH, f"each of the headers {VERSION_HEADER}, {METHOD_HEADER} and {NAME_HEADER} may be there once"
        )
    try:
        meta = msgspec.json.decode(request.params, type=_Envelope).meta
        version = msgspec.json.decode(meta[VERSION])
        _ = meta[CAPABILITIES]
    except (msgspec.ValidationError, KeyError):
        raise RpcError(INVALID_PARAMS, f"params._meta must be an object with {VERSION} and {CAPABILITIES}") from None
    if headers.get(VERSION_HEADER) != version:
        raise RpcError(HEADER_MISMATCH, f"the header {VERSION_HEADER} is not the version in params._meta")
    if headers.get(METHOD_HEADER) != request.method:
        raise RpcError(HEADER_MISMATCH, f"the header {METHOD_HEADER} is not the request's method")
    name = _name_in(request)
    if name is not None and headers.get(NAME_HEADER) not in (name, _encoded(name)):
        raise RpcError(HEADER_MISMATCH, f"the header {NAME_HEADER} is not the name or uri in params")
    if version not in MODERN_VERSIONS:
        raise _unsupported(version)


def _name_in(request: RpcRequest) -> str | None:
    """Return what a header must name: a request's tool or resource; None for other methods. Raises `RpcError`."""
    match request.method:
        case "tools/call":
            return params_of(request, ToolCall).name
        case "resources/read":
            return params_of(request, ResourceRead).uri
    return None


def params_of(request: RpcRequest, type_: type[Params]) -> Params:
    """Return the parameters of a request. Raises `RpcError`."""
    try:
        return msgspec.json.decode(request.params, type=type_)
    except msgspec.ValidationError as exc:
        raise RpcError(INVALID_PARAMS, f"params: {exc}") from None


def arguments_of(call: ToolCall) -> Raw:
    """Return the arguments of a call as the text of a JSON object. Raises `RpcError` for another value."""
    if bytes(call.arguments).startswith(b"{"):
        return call.arguments
    if bytes(call.arguments) == b"null":
        return Raw(b"{}")
    raise RpcError(INVALID_PARAMS, "params.arguments must be an object")


def result_text(request: RpcRequest, result: Mapping[str, Any], server: Mapping[str, str]) -> bytes:
    """Encode a result. `server`: the name and version that results of versions without `initialize` carry."""
    fields = {**result, "resultType": "complete", "_meta": {SERVER_INFO: server}} if request.is_modern else result
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request.id, "result": fields})


def error_text(error: RpcError, id: Raw = NO_ID) -> bytes:
    """Encode an error."""
    body: dict[str, object] = {"code": error.code, "message": error.message}
    if error.data is not UNSET:
        body["data"] = error.data
    return msgspec.json.encode({"jsonrpc": "2.0", "id": id, "error": body})


def status_of(error: RpcError, request: RpcRequest | None) -> int:
    """Return the HTTP status of an error. An older client takes only 200 as the answer to a request that could be read."""
    if request is not None and not request.is_modern:
        return 200
    return 404 if error.code == METHOD_NOT_FOUND else 400


def _unsupported(version: object) -> RpcError:
    data = {"supported": MODERN_VERSIONS, "requested": version}
    return RpcError(UNSUPPORTED_VERSION, "this version of the protocol is not supported", data)


def _encoded(name: str) -> str:
    """Return the form in a header of a name that is not plain ASCII."""
    return f"=?base64?{base64.b64encode(name.encode()).decode()}?="
