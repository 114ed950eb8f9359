"""Redaction of log events: tokens, signatures, keys and payloads, recognized by field or by format."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

SECRET_FIELDS: Final = frozenset(
    {
        "access_token", "api_key", "authorization", "client_secret", "cookie", "credentials", "data", "id_token", "jwt", "key",
        "nkey", "password", "payload", "private_key", "proxy_authorization", "public_key", "refresh_token", "seed", "secret",
        "set_cookie", "signature", "token",
    }
)  # fmt: skip
"""Fields whose values are replaced by their length, from any logger and at any depth."""

_MAX_DEPTH: Final = 8

_Replacement = Callable[[re.Match[str]], str]


def _replace_match(match: re.Match[str]) -> str:
    return f"<{len(match[0])} characters>"


def _replace_rest(match: re.Match[str]) -> str:
    return f"{match[1]}<{len(match[0]) - len(match[1])} characters>"


_PATTERNS: Final[tuple[tuple[re.Pattern[str], _Replacement], ...]] = (
    # PEM armor of any kind: private keys, certificates, SSH signatures; to the end of the text if its last line is missing.
    (re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL), _replace_match),
    # JOSE's compact form, or its cut-off beginning: `{"` in base64 is `eyJ`.
    (re.compile(r"\bey[JKA-Z][A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,4}"), _replace_match),
    # Seeds of NATS keys (github.com/nats-io/nkeys): base32, beginning with S and the kind.
    (re.compile(r"\bS[ACNOUX][A-Z2-7]{56}\b"), _replace_match),
    (re.compile(r"(?i)(\b(?:bearer|basic)\s+)[^\s'\",;]+"), _replace_rest),
    # The scheme is not matched: searching for one at each position of `a.a.a.…` took quadratic time.
    (re.compile(r"(://)[^/\s@]+(?=@)"), _replace_rest),
    (
        re.compile(
            r"""(?ix)( \b (?: access_token | id_token | refresh_token | client_secret | authorization | private_key | signature
            | password | secret | token ) ["']? \s* [:=] \s* ["']? ) (?! < \d) [^\s"',;&}\]]+"""
        ),
        _replace_rest,
    ),
)


def redacted(value: object, name: str = "") -> object:
    """Return the value of a field without its secrets. Numbers, booleans and None stay; other objects are shown by their
    `repr`."""
    return _redacted(value, name, _MAX_DEPTH)


def _redacted(value: object, name: str, depth: int) -> object:
    if value is not None and _is_secret(name):
        return f"<{len(str(value))} characters>"
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth and isinstance(value, Mapping):
        return {_text(str(each)): _redacted(inner, str(each), depth - 1) for each, inner in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_redacted(each, "", depth - 1) for each in value]
    return _text(repr(value))


@lru_cache
def _is_secret(name: str) -> bool:
    return name.lower().replace("-", "_") in SECRET_FIELDS


_HARMLESS: Final = re.compile(r"(?!.*ey[A-Z])[A-Za-z0-9_.@+-]{0,57}")
"""Text that matches no pattern above, such as most ids and addresses: all but JOSE's form need a space, a colon or an equals
sign, or 58 characters."""


def _text(text: str) -> str:
    if _HARMLESS.fullmatch(text):
        return text
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text
