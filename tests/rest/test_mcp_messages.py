"""Messages of MCP over HTTP: any bytes and any headers get an answer of the protocol."""

from __future__ import annotations

import contextlib
from typing import Any, Final

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.inbound import encode_header_value
from starlette.datastructures import Headers

from artcafe.rest import mcp_messages
from artcafe.rest.mcp_messages import (
    CAPABILITIES,
    METHOD_HEADER,
    NAME_HEADER,
    VERSION,
    VERSION_HEADER,
    Initialize,
    RpcError,
    RpcRequest,
    ToolCall,
)

NONE: Final = Headers({})
MODERN: Final = "2026-07-28"
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
names = st.sampled_from(["tools/call", "tools/list", "whoami", "ping", MODERN, "2025-11-25", "é", ""])
metas = st.fixed_dictionaries({}, optional={VERSION: names | values, CAPABILITIES: values})
params = st.fixed_dictionaries(
    {},
    optional={"_meta": metas | values, "name": names | values, "arguments": values, "protocolVersion": names | values},
)
messages = st.fixed_dictionaries(
    {}, optional={"jsonrpc": st.just("2.0") | values, "id": values, "method": names | values, "params": params | values}
)
headers = st.dictionaries(st.sampled_from([VERSION_HEADER, METHOD_HEADER, NAME_HEADER]), names.filter(str.isascii))


def answer(body: bytes, given_headers: Headers) -> bytes | None:
    """Return the text of an answer, as the route makes it; None for a notification."""
    rpc: RpcRequest | None = None
    try:
        rpc = mcp_messages.parse(body, given_headers)
        if rpc is None:
            return None
        if rpc.is_modern:
            mcp_messages.check_headers(rpc, given_headers)
        for kind in (ToolCall, Initialize):
            with contextlib.suppress(RpcError):
                _ = mcp_messages.params_of(rpc, kind)
        arguments = mcp_messages.arguments_of(mcp_messages.params_of(rpc, ToolCall))
        return mcp_messages.result_text(rpc, {"arguments": arguments}, {"name": "artcafe"})
    except RpcError as exc:
        return mcp_messages.error_text(exc) if rpc is None else mcp_messages.error_text(exc, rpc.id)


@given(st.binary(max_size=64) | messages.map(msgspec.json.encode), headers)
def test_any_body_gets_an_answer_of_the_protocol(body: bytes, named: dict[str, str]) -> None:
    text = answer(body, Headers(named))
    if text is not None:
        found = msgspec.json.decode(text)
        assert found["jsonrpc"] == "2.0"
        assert isinstance(found["id"], str | int | float | None)
        assert ("result" in found) is not ("error" in found)


@given(values, st.text(max_size=8) | st.integers(), st.text(min_size=1, max_size=8))
def test_arguments_and_id_are_those_of_the_request(value: Any, id: str | int, name: str) -> None:
    request = {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": name, "arguments": {"data": value}}}
    text = answer(msgspec.json.encode(request), NONE)
    assert text is not None
    assert msgspec.json.decode(text) == {"jsonrpc": "2.0", "id": id, "result": {"arguments": {"data": value}}}


@given(st.text(min_size=1, max_size=20))
def test_name_that_is_not_plain_ascii_is_encoded_in_its_header(name: str) -> None:
    meta = {VERSION: MODERN, CAPABILITIES: {}}
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "_meta": meta}}
    named = {VERSION_HEADER: MODERN, METHOD_HEADER: "tools/call", NAME_HEADER: encode_header_value(name)}
    text = answer(msgspec.json.encode(request), Headers(named))
    assert text is not None
    assert "result" in msgspec.json.decode(text)


def test_id_is_bounded_because_every_event_repeats_it() -> None:
    longest = "x" * (mcp_messages.MAX_ID_BYTES - 2)  # and two quotes
    for id, code in ((longest, None), (f"{longest}x", mcp_messages.INVALID_REQUEST)):
        request = {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "whoami"}}
        text = answer(msgspec.json.encode(request), NONE)
        assert text is not None
        assert msgspec.json.decode(text).get("error", {}).get("code") == code
