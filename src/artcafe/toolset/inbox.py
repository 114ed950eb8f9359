"""The resource `inbox://me` of MCP: what waits for an agent, without its content."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from artcafe.toolset.descriptions import json_text

URI: Final = "inbox://me"
MIME_TYPE: Final = "application/json"
LISTED: Final = {
    "uri": URI,
    "name": "inbox",
    "title": "What waits for you in ArtCafe",
    "description": "How many messages of each subscription wait, and which requests. `inbox_pull` returns them.",
    "mimeType": MIME_TYPE,
}
"""Its entry in a list of resources, as JSON."""


class WaitingIn(NamedTuple):
    """A subscription of the agent, and how many messages wait there; None: unknown, or a queue."""

    channel: str
    status: str
    waiting: int | None


def text_of(subscriptions: Iterable[WaitingIn], requests: Iterable[dict[str, Any]] = ()) -> str:
    """Return the content of the resource, as JSON text."""
    return json_text({"subscriptions": [each._asdict() for each in subscriptions], "requests": list(requests)})
