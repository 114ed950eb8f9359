"""Encoding of commands and data as JSON, checked before sending, and decoding of received data."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from artcafe.errors import Invalid, TooLarge
from artcafe.wire import frames

_AT: Final = re.compile(r"(?P<problem>.*) - at `\$\.(?P<field>.*)`", re.DOTALL)
_ARGUMENTS: Final[Mapping[str, str]] = {"from": "start"}
"""Argument names of frame fields with another name."""

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode
_DECODERS: Final[Mapping[type[frames.Body], msgspec.json.Decoder[Any]]] = {
    kind: msgspec.json.Decoder(kind)
    for kind in (
        *(frames.Challenge, frames.Connect, frames.Publish, frames.Subscribe, frames.Status, frames.History),
        *(frames.Request, frames.Reply, frames.Accept, frames.Nak, frames.Extend),
    )
}
"""The decoders that the server uses for a command's body."""
MAX_REQUEST_BYTES: Final = 256 * 1024
"""The most bytes of a publish over REST (contract, section 3)."""
_FRAME_BYTES: Final = len(frames.command("", msgspec.Raw(), frames.MAX_ID))
"""The bytes of a command besides its kind and body."""


def command_text(kind: str, body: frames.Body, max_bytes: int) -> msgspec.Raw:
    """Encode a command's body, and check it with the server's decoder.

    Raises in the caller before the command is sent, because the server closes the connection for some of these errors: `TooLarge`
    for a frame above `max_bytes`, `Invalid` for text that is not Unicode and for values of a wrong type, TypeError for objects.
    """
    try:
        text = _encode(body)
    except UnicodeEncodeError as exc:
        raise Invalid(_field_without_text(body), _no_text(exc)) from None
    if not _is_within(kind, text, max_bytes):
        raise TooLarge("the message" if kind == "publish" else f"the {kind} command", max_bytes)
    try:
        _DECODERS[type(body)].decode(text)
    except msgspec.ValidationError as exc:
        found = _AT.fullmatch(str(exc))
        field, problem = (found["field"], found["problem"]) if found else (kind, str(exc))
        raise Invalid(_ARGUMENTS.get(field, field), problem) from None
    return msgspec.Raw(text)


def fits(kind: str, body: frames.Body, max_bytes: int) -> bool:
    """Return whether a command fits a frame. False for text that is not Unicode."""
    try:
        return _is_within(kind, _encode(body), max_bytes)
    except UnicodeEncodeError:
        return False


def fits_request(body: Mapping[str, object]) -> bool:
    """Return whether a publish fits the body of a REST request. False for text that is not Unicode."""
    try:
        return len(_encode(body)) <= MAX_REQUEST_BYTES
    except UnicodeEncodeError:
        return False


def _is_within(kind: str, text: bytes, max_bytes: int) -> bool:
    return _FRAME_BYTES + len(kind) + len(text) <= max_bytes


def _field_without_text(body: frames.Body) -> str:
    for field, name in zip(body.__struct_fields__, body.__struct_encode_fields__, strict=True):
        try:
            _encode(getattr(body, field))
        except UnicodeEncodeError:
            return _ARGUMENTS.get(name, name)
    raise AssertionError("one of the fields could not be encoded")


def _no_text(exc: UnicodeEncodeError) -> str:
    return f"has {exc.object[exc.start]!a}, half of a surrogate pair, which is not Unicode text"


# --- the data of a message -----------------------------------------------------------------------------------------------


def data_text(data: object, max_depth: int = frames.MAX_DEPTH) -> msgspec.Raw:
    """Return the JSON text of a message's data: `msgspec.Raw` unchanged, anything else encoded by msgspec.

    Raises `Invalid` for text that is not JSON, nan and inf, half a surrogate pair, and data nested deeper than `max_depth`;
    TypeError for sets and bytes, since they would arrive as other types, and for objects unknown to msgspec.
    """
    text = _checked_raw(data) if isinstance(data, msgspec.Raw) else _encoded(data)
    if frames.is_deep(text, max_depth):
        raise Invalid("data", f"is nested deeper than {max_depth}")
    # Decoding and comparing runs in C. Only if that fails, a walk in Python finds the place, or accepts a value of another type.
    if not isinstance(data, msgspec.Raw) and not _reads_back(text, data):
        _check(data, "data")
    return msgspec.Raw(text)


def _checked_raw(raw: msgspec.Raw) -> bytes:
    """Check JSON text as the server does: invalid text would break the whole frame. Numbers may exceed Python's floats."""
    text = bytes(raw)
    try:
        str(text, "utf-8")
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Invalid("data", f"is not JSON: {exc}") from None
    return text


def _encoded(data: object) -> bytes:
    try:
        return _encode(data)
    except UnicodeEncodeError as exc:
        raise Invalid("data", _no_text(exc)) from None
    except RecursionError:
        raise Invalid("data", "is nested too deeply, or contains itself") from None
    except TypeError as exc:
        raise TypeError(f"data: {exc}") from None


def _reads_back(text: bytes, data: object) -> bool:
    try:
        return bool(_decode(text) == data)
    except msgspec.ValidationError:  # a number that only Python's int can hold
        return False


def _check(value: object, path: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise Invalid("data", f"{path} is {value}, which is not in JSON; publish null or text instead")
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"{path} is {type(value).__name__}, which is not in JSON; publish text, such as its base64")
    if isinstance(value, set | frozenset):
        raise TypeError(f"{path} is a {type(value).__name__}, which is not in JSON; publish a sorted list")
    for name, part in _parts(value):
        _check(part, f"{path}{name}")


def _parts(value: object) -> Iterable[tuple[str, object]]:
    """Return the values inside a value, with their paths, for all types that msgspec encodes as an object or array."""
    if isinstance(value, Mapping):
        return [*((" (a key)", key) for key in value), *((f"[{key!r}]", part) for key, part in value.items())]
    if isinstance(value, list | tuple):
        return [(f"[{index}]", part) for index, part in enumerate(value)]
    if isinstance(value, msgspec.Struct):
        return [(f".{name}", getattr(value, name)) for name in value.__struct_fields__]
    if dataclasses.is_dataclass(value):
        return [(f".{field.name}", getattr(value, field.name)) for field in dataclasses.fields(value)]
    return []


def value_of(text: msgspec.Raw) -> Any:
    """Decode JSON text. A number beyond Python's floats becomes inf or -inf, as in `json.loads`."""
    try:
        return _decode(text)
    except msgspec.ValidationError:
        return json.loads(bytes(text), parse_int=_integer)


def _integer(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:  # More digits than sys.get_int_max_str_digits().
        return float(digits)
