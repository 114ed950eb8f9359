"""Encoding of the frames of requests between agents: the push of a request, each answer, and the cancel push."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from artcafe.wire.replies import CancelPush

_encode = msgspec.json.Encoder().encode


def push(request_id: str, sender: str, headers: Mapping[str, str] | None, deadline: str, data: msgspec.Raw) -> bytes:
    """Encode the push of a request to the agent asked. `deadline` is RFC 3339."""
    body = {"request_id": request_id, "from": sender, "headers": headers or {}, "deadline": deadline, "data": data}
    return _encode({"request": body})


def answer(id: int, request_id: str, sender: str, data: msgspec.Raw | None, *, has_more: bool) -> bytes:
    """Encode an answer to the request with this command id. Without data it only ends the answers."""
    body: dict[str, object] = {"request_id": request_id, "from": sender, "more": has_more}
    if data is not None:
        body["data"] = data
    return _encode({"id": id, "request": body})


def cancel(push: CancelPush) -> bytes:
    """Encode a cancel push."""
    return _encode({"cancel": push})
