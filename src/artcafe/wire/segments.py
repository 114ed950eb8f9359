"""Ids as segments of a URL's path, and back, whatever characters an identity provider or an older system put into them.

Percent-encoding alone is not enough (RFC 3986, section 3.3). Clients remove a segment of `.` or `..`, also one that is written
`%2E%2E`, so that the request would reach the tenant itself; proxies decode `%2F`, or refuse it. Such an id is written as `~` and
the hexadecimal digits of its UTF-8 bytes, which nothing on the way changes.
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
    """Return whether clients remove the id from a path, together with what stands before it."""
    return id in _DOT_SEGMENTS


def segment_of(id: str) -> str:
    """Return the path segment that names `id`. Raises ValueError for an empty id and for half of a surrogate pair."""
    if not id:
        raise ValueError("an id has at least one character")
    if is_dot_segment(id) or id.startswith(ESCAPE) or not _CHANGED_ON_THE_WAY.isdisjoint(id):
        return ESCAPE + id.encode().hex()
    return quote(id, safe="")


def tenant_path(tenant_id: str, *ids: str) -> str:
    """Return the path on REST of a tenant or, with the names and ids behind it, of something in it. Raises as `segment_of`."""
    return "/".join(("/v1/tenants", *map(segment_of, (tenant_id, *ids))))


def id_of(segment: str) -> str:
    """Return the id that a path segment names, in either form. A segment that is neither names itself."""
    text = unquote(segment)
    escaped = _ESCAPED.fullmatch(text)
    if escaped is None:
        return text
    try:
        return bytes.fromhex(escaped[1]).decode()
    except UnicodeDecodeError:
        return text


def for_routing(raw_path: str) -> str:
    """Return a path as it came in, with each segment's id in it, but for `/` and `%`, so that a segment stays one.

    Equal for all forms of the same ids. `from_routing` gives the ids.
    """
    return "/".join(id_of(segment).replace("%", "%25").replace("/", "%2F") for segment in raw_path.split("/"))


def from_routing(segment: str) -> str:
    """Return the id of one segment of `for_routing`."""
    return segment.replace("%2F", "/").replace("%25", "%")
