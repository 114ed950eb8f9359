"""Check text from peers: names, descriptions, addresses, ids and headers. Each check raises Invalid."""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final

from artcafe.errors import Invalid
from artcafe.wire import segments
from artcafe.wire.frames import MAX_HEADER_CHARS, MAX_HEADERS

NAME_CHARS: Final = 64
DESCRIPTION_CHARS: Final = 1024
CAPABILITIES: Final = 32
CAPABILITY_CHARS: Final = 64
IDEMPOTENCY_KEY_CHARS: Final = 255
MESSAGE_BYTES: Final = 64 * 1024
"""The maximum size of a message's data. REST and the gateway accept the same; the gateway's frame of 64 KiB holds slightly
less."""
REPLY_TO_CHARS: Final = 255
PARTITION_CHARS: Final = 256
ADDRESS_CHARS: Final = 254
USER_ID_BYTES: Final = 255
"""A `sub` has at most 255 ASCII characters (OpenID Connect Core 1.0, section 2)."""
KEPT_USER_ID_BYTES: Final = 1024
"""The limit of a sort key, used for the id in the members' index."""
_SMALL: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
BIDI_CONTROLS: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Embeddings, overrides and isolates (Unicode Standard Annex 9) display a name as a different one and reorder the text around it.
Right-to-left scripts need none of them in a name; the marks they do use (U+200E, U+200F, U+061C) are allowed."""
RESERVED: Final = "~"
"""The prefix of sort keys for other rows in the tables of members and agents."""


def name(text: str, field: str = "name") -> str:
    """Return a display name in Unicode NFC, so that names with the same look are equal. Raises Invalid."""
    return _one_line(text, field, NAME_CHARS)


def description(text: str) -> str:
    """Return a description in NFC; it may be empty and contain line breaks. Raises Invalid."""
    text = _normal(text, "description")
    if len(text) > DESCRIPTION_CHARS:
        raise Invalid("description", f"must have at most {DESCRIPTION_CHARS} characters; this has {len(text)}")
    if any(unicodedata.category(char) == "Cc" and char not in "\t\n" for char in text):
        raise Invalid("description", "must have no control characters but tabs and line feeds")
    return text


def address(text: str) -> str:
    """Return an e-mail address in stored form: NFC, ASCII letters in lower case. Raises Invalid.

    Refuses only text that cannot be an address (RFC 5321, section 4.5.3.1.3, allows 254 characters). Letters outside ASCII are
    unchanged: Unicode case folding would merge addresses of different owners (`straße` and `strasse` are two domains).
    """
    # For example the Kelvin sign: NFC converts it to the letter K.
    if any(not char.isascii() and unicodedata.normalize("NFC", char).isascii() for char in text):
        raise Invalid("address", "must have no characters that only look like ASCII")
    text = _one_line(text, "address", ADDRESS_CHARS).translate(_SMALL)
    local, _, domain = text.rpartition("@")
    if not local or not domain or any(char.isspace() for char in text):
        raise Invalid("address", "must be an e-mail address, such as bob@example.com")
    return text


def is_same_address(one: str, other: str) -> bool:
    """Return whether two addresses have the same local part and domain. Text other than an address equals nothing."""
    try:
        return _mailbox(address(one)) == _mailbox(address(other))
    except Invalid:
        return False


def _mailbox(address: str) -> tuple[str, ...]:
    """Return the local part and the domain's labels as A-labels, the form DNS compares (RFC 5890, 2.3.2.1)."""
    local, _, domain = address.rpartition("@")
    labels = domain.split(".")
    return (local, *(label if label.isascii() else f"xn--{label.encode('punycode').decode()}" for label in labels))


def user_id(text: str) -> str:
    """Return the identity provider's id of a person joining a tenant. Raises Invalid.

    Refuses a `sub` of `.` or `..`: a client requesting `…/members/..` without a library would address the tenant instead.
    """
    is_printable = text.isprintable() and 0 < len(text.encode()) <= USER_ID_BYTES  # Half a surrogate pair is not printable.
    if not is_printable or text.startswith(RESERVED) or segments.is_dot_segment(text):
        wanted = f"1 to {USER_ID_BYTES} bytes of printable text that is neither '.' nor '..' and does not begin with '{RESERVED}'"
        raise Invalid("sub", f"must be {wanted}")
    return text


def is_user_id(text: str) -> bool:
    """Return whether text from a peer can be the user id of a member, including any member added by an older system."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # Half a surrogate pair.
        return False
    return 0 < size <= KEPT_USER_ID_BYTES


def capabilities(names: Iterable[str]) -> tuple[str, ...]:
    """Return an agent's capabilities without duplicates, in the given order. Raises Invalid."""
    given = tuple(names)
    if len(given) > CAPABILITIES:
        raise Invalid("capabilities", f"must be at most {CAPABILITIES}; these are {len(given)}")
    checked = (_one_line(text, f"capabilities[{at}]", CAPABILITY_CHARS) for at, text in enumerate(given))
    return tuple(dict.fromkeys(checked))


def idempotency_key(key: str, field: str = "Idempotency-Key") -> str:
    """Return the caller's key: 1 to 255 printable ASCII characters, valid in a header. Raises Invalid."""
    if not 0 < len(key) <= IDEMPOTENCY_KEY_CHARS or not (key.isascii() and key.isprintable()):
        raise Invalid(field, f"must be 1 to {IDEMPOTENCY_KEY_CHARS} printable ASCII characters")
    return key


def headers(given: Mapping[str, str]) -> None:
    """Check a message's headers; they are forwarded unchanged. Raises Invalid."""
    if len(given) > MAX_HEADERS:
        raise Invalid("headers", f"must be at most {MAX_HEADERS}; these are {len(given)}")
    for key, value in given.items():
        if not 0 < len(key) <= NAME_CHARS or not key.isprintable():
            raise Invalid("headers", f"must have names of 1 to {NAME_CHARS} printable characters")
        if len(value) > MAX_HEADER_CHARS:
            raise Invalid(f"headers.{key}", f"must have at most {MAX_HEADER_CHARS} characters; this has {len(value)}")


def partition(key: str) -> None:
    """Check the key by which a queue orders a message. Raises Invalid."""
    if len(key) > PARTITION_CHARS:
        what = f"must have at most {PARTITION_CHARS} characters in a channel with key_ordered; this has {len(key)}"
        raise Invalid("headers.partition", what)


def _one_line(text: str, field: str, most: int) -> str:
    text = _normal(text, field)
    if not 0 < len(text) <= most:
        raise Invalid(field, f"must have 1 to {most} characters; this has {len(text)}")
    if any(unicodedata.category(char) in {"Cc", "Zl", "Zp"} for char in text):
        raise Invalid(field, "must have no control characters or line breaks")
    if text.isspace():
        raise Invalid(field, "must not consist of spaces only")
    return text


def _normal(text: str, field: str) -> str:
    # JSON's \\ud800 yields half a surrogate pair, which cannot be stored or sent.
    if any(unicodedata.category(char) == "Cs" for char in text):
        raise Invalid(field, "must be Unicode text; this has half of a surrogate pair")
    if found := BIDI_CONTROLS.intersection(text):
        raise Invalid(field, f"must not change the direction of text; this has U+{ord(min(found)):04X}")
    return unicodedata.normalize("NFC", text)
