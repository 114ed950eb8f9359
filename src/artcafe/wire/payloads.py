"""What a message's data may be, beyond the grammar of JSON: how deep it nests, and that every number in it can be read.

The grammar allows `1e999` and an integer of 400 digits, which no double holds (RFC 8259, section 6): one reader has infinity in
their place, another raises. msgspec does not look into a `Raw`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from artcafe.wire.frames import MAX_DEPTH, STRING, is_deep

_KINDS: Final = {**dict.fromkeys(b"0123456789", b"0"), **dict.fromkeys(b"eE", b"e"), **dict.fromkeys(b"{[", b"{")}
_SHAPE: Final = b"".join(_KINDS.get(char, b"x") for char in range(256))
"""Every message goes through here, so its shape is looked at first: a translation that leaves digits, exponents and brackets."""
_EXPONENT: Final = b"0e000"
"""An exponent of three digits, with its plus sign taken away."""
_LONG: Final = b"0" * 200
"""With fewer digits a number leaves the doubles, which end at 1.8e308, by an exponent of three digits alone."""
_DIGITS_OF_MOST: Final = 309
_RUN: Final = re.compile(rb"[0-9]++")
_INSIDE: Final = (b".", b"e", b"E", b"+", b"e-", b"E-")
"""What stands before the digits of a fraction or an exponent."""

_decode: Final = msgspec.json.Decoder().decode


def problem_of(data: bytes) -> str | None:
    """Return what is wrong with valid JSON as a message's data, as the end of a sentence, or None.

    Nearly every message takes 0.4 µs, and the worst of 64 KiB some 1 ms.
    """
    shape = data.translate(_SHAPE, b"+")
    if shape.count(b"{") > MAX_DEPTH and is_deep(data):
        return f"is nested deeper than {MAX_DEPTH}"
    # `rfind` takes a third of the time of `in`.
    is_long = len(data) > len(_LONG) and shape.rfind(_LONG) >= 0
    if (is_long or shape.rfind(_EXPONENT) >= 0) and _is_unreadable(data, is_long):
        return "has a number beyond 1.8e308, which many readers cannot read; send it as a string"
    return None


def _is_unreadable(data: bytes, is_long: bool) -> bool:
    """Return whether a number is beyond every double; `is_long` says whether one may have 200 digits or more."""
    try:
        _decode(data)  # Exact about all numbers but integers, which it takes up to 4,300 digits.
    except msgspec.DecodeError:
        return True
    return is_long and any(float(digits) == float("inf") for digits in _long_integers(STRING.sub(b'""', data)))


def _long_integers(text: bytes) -> Iterator[bytes]:
    """Yield the digits of each long number of JSON without strings that has neither a fraction nor an exponent."""
    shape = text.translate(_SHAPE)
    at = shape.find(_LONG)
    while at >= 0:
        run = _RUN.match(text, at)
        assert run is not None  # There are digits at `at`.
        is_integer = not text[max(at - 2, 0) : at].endswith(_INSIDE) and text[run.end() : run.end() + 1] not in (b".", b"e", b"E")
        if is_integer and len(run[0]) >= _DIGITS_OF_MOST:
            yield run[0]
        at = shape.find(_LONG, run.end())
