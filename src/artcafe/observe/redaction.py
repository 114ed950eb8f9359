"""Whatever is logged, without what opens anything: tokens, signatures, keys, payloads, known by field or by look."""

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
"""Fields that are replaced by their length, whoever wrote them and however deep they stand."""

_DEEPEST: Final = 8

_Replacement = Callable[[re.Match[str]], str]


def _whole(match: re.Match[str]) -> str:
    return f"<{len(match[0])} characters>"


def _behind(match: re.Match[str]) -> str:
    return f"{match[1]}<{len(match[0]) - len(match[1])} characters>"


_LOOKS: Final[tuple[tuple[re.Pattern[str], _Replacement], ...]] = (
    # Armor of any kind: private keys, certificates, SSH signatures; to the end where its last line is missing.
    (re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL), _whole),
    # JOSE's compact form, and its beginning where something cut it: `{"` in base64 is `eyJ`.
    (re.compile(r"\bey[JKA-Z][A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,4}"), _whole),
    # Seeds of NATS's keys (github.com/nats-io/nkeys): base32, S and the kind first.
    (re.compile(r"\bS[ACNOUX][A-Z2-7]{56}\b"), _whole),
    (re.compile(r"(?i)(\b(?:bearer|basic)\s+)[^\s'\",;]+"), _behind),
    # Without the scheme before it: looking for one from each place of `a.a.a.…` took time by the square of the length.
    (re.compile(r"(://)[^/\s@]+(?=@)"), _behind),
    (
        re.compile(
            r"""(?ix)( \b (?: access_token | id_token | refresh_token | client_secret | authorization | private_key | signature
            | password | secret | token ) ["']? \s* [:=] \s* ["']? ) (?! < \d) [^\s"',;&}\]]+"""
        ),
        _behind,
    ),
)


def redacted(value: object, name: str = "") -> object:
    """The value of a field of this name, without its secrets. What is no text, mapping or list stays, or is shown as text."""
    return _redacted(value, name, _DEEPEST)


def _redacted(value: object, name: str, deepest: int) -> object:
    if value is not None and _is_secret(name):
        return f"<{len(str(value))} characters>"
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if deepest and isinstance(value, Mapping):
        return {_text(str(each)): _redacted(inner, str(each), deepest - 1) for each, inner in value.items()}
    if deepest and isinstance(value, list | tuple | set | frozenset):
        return [_redacted(each, "", deepest - 1) for each in value]
    return _text(repr(value))


@lru_cache
def _is_secret(name: str) -> bool:
    return name.lower().replace("-", "_") in SECRET_FIELDS


_HARMLESS: Final = re.compile(r"(?!.*ey[A-Z])[A-Za-z0-9_.@+-]{0,57}")
"""Text that no pattern above can match, such as most ids and addresses: all but JOSE's form need a space, a colon or an equals
sign in it, or 58 characters."""


def _text(text: str) -> str:
    if _HARMLESS.fullmatch(text):
        return text
    for look, replacement in _LOOKS:
        text = look.sub(replacement, text)
    return text
