"""The origin of the request that a task serves."""

from __future__ import annotations

from typing import NamedTuple

import structlog


class Origin(NamedTuple):
    """A request's origin: the observed address, and the request's id; both None outside a request."""

    address: str | None
    request_id: str | None


def origin() -> Origin:
    """Return the origin of the current task's request, as its listener has bound it."""
    bound = structlog.contextvars.get_contextvars()
    return Origin(bound.get("address"), bound.get("request_id"))


def bind_origin(address: str | None) -> None:
    """Bind the address to the current task and its log events. Tasks that it starts inherit it."""
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(address=address)
