"""Handles: names of agents and channels that may stand where an id stands. Check them, and make them from display names."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from artcafe.errors import Invalid
from artcafe.rules import ids

MAX_CHARS: Final = 64
_FORM: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_OTHERS: Final = re.compile(r"[^a-z0-9._-]+", re.ASCII)
_ID_PREFIXES: Final = tuple(f"{prefix}_" for prefix in ids.PREFIXES)


def is_handle(text: str) -> bool:
    """Return whether text can be a handle. No generated id can; an id of an older system can."""
    return _FORM.fullmatch(text) is not None and not text.startswith(_ID_PREFIXES)


def check(text: str, field: str = "handle") -> str:
    """Return the handle if it is valid. Raises Invalid."""
    if _FORM.fullmatch(text) is None:
        problem = f"must be 1 to {MAX_CHARS} of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit"
        raise Invalid(field, problem)
    prefix = next((each for each in _ID_PREFIXES if text.startswith(each)), None)
    if prefix is not None:
        raise Invalid(field, f"must not begin with {prefix!r}, as an id does")
    return text


def from_name(name: str, otherwise: str) -> str:
    """Return the handle made from a display name: in lower case, without accents, with a hyphen for other characters.

    `otherwise` is the handle for a name without any letter of a-z and digit.
    """
    plain = "".join(char for char in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(char))
    text = _OTHERS.sub("-", plain).lstrip("._-")[:MAX_CHARS].rstrip("._-")
    if text.startswith(_ID_PREFIXES):
        text = text.replace("_", "-", 1)
    return text or otherwise


def numbered(handle: str, number: int) -> str:
    """Return the handle with a number, such as `planner-2`; without one for the number 1."""
    if number == 1:
        return handle
    suffix = f"-{number}"
    return f"{handle[: MAX_CHARS - len(suffix)]}{suffix}"


def for_id(handle: str, id: str) -> str:
    """Return the handle with the end of an id, which no other record has."""
    return f"{handle[: MAX_CHARS - 13]}-{_OTHERS.sub('-', id.lower())[-12:].lstrip('._-')}"


def hashed(handle: str | None) -> tuple[str, ...]:
    """Return what a handle adds to the hash of a creating request: nothing for none, so that repeats of requests that were made
    before there were handles keep their hash."""
    # No other part of a request, such as a capability, begins with a line feed.
    return () if handle is None else (f"\nhandle={handle}",)
