"""The origin of the request that a task serves."""

from __future__ import annotations

from typing import NamedTuple

import structlog


class Origin(NamedTuple):
    """Whence something is asked: the address that was observed, and the request's id; None where it is not a request."""

    address: str | None
    request_id: str | None


def origin() -> Origin:
    """Of what this task does now, as the door that let it in has bound it to the context of the log."""
    bound = structlog.contextvars.get_contextvars()
    return Origin(bound.get("address"), bound.get("request_id"))


def bind_origin(address: str | None) -> None:
    """Says for the rest of this task, in its log too, from which address it was asked; a task that it starts inherits it."""
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(address=address)
