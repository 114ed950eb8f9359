"""Encoding of ids as segments of a URL's path. Ids of identity providers and older systems may contain any character.

Percent-encoding alone is not enough (RFC 3986, section 3.3). Clients remove a segment of `.` or `..`, even if it is written
`%2E%2E`, and the request would then reach the tenant itself; proxies decode `%2F` or refuse it. Such an id is encoded as `~` and
the hexadecimal digits of its UTF-8 bytes, because clients and proxies do not change these.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, unquote

ESCAPE: Final = "~"
_ESCAPED: Final = re.compile(r"~((?:[0-9a-f]{2})+)")
_DOT_SEGMENTS: Final = frozenset({".", ".."})
_CHANGED_ON_THE_WAY: Final = frozenset("/\\%")


def is_dot_segment(id: str) -> bool:
    """Return whether clients remove the id from a path, with the segment in front of it."""
    return id in _DOT_SEGMENTS


def segment_of(id: str) -> str:
    """Return the path segment of an id. Raises ValueError for an empty id and for half of a surrogate pair."""
    if not id:
        raise ValueError("an id has at least one character")
    if is_dot_segment(id) or id.startswith(ESCAPE) or not _CHANGED_ON_THE_WAY.isdisjoint(id):
        return ESCAPE + id.encode().hex()
    return quote(id, safe="")


def tenant_path(tenant_id: str, *ids: str) -> str:
    """Return the REST path of a tenant, or of a resource in it given the names and ids below it. Raises as `segment_of` does."""
    return "/".join(("/v1/tenants", *map(segment_of, (tenant_id, *ids))))


def id_of(segment: str) -> str:
    """Decode the id of a path segment in either form. A segment in neither form is the id itself."""
    text = unquote(segment)
    escaped = _ESCAPED.fullmatch(text)
    if escaped is None:
        return text
    try:
        return bytes.fromhex(escaped[1]).decode()
    except UnicodeDecodeError:
        return text


def for_routing(raw_path: str) -> str:
    """Return a received path with each segment decoded except `/` and `%`, so that the number of segments stays.

    The result is equal for all forms of the same ids. `from_routing` decodes them.
    """
    return "/".join(id_of(segment).replace("%", "%25").replace("/", "%2F") for segment in raw_path.split("/"))


def from_routing(segment: str) -> str:
    """Decode the id of one segment of `for_routing`."""
    return segment.replace("%2F", "/").replace("%25", "%")
