"""The keys of an issuer: discover and fetch them within limits, and cache them by id.

`identity.claims` checks the claims of a token.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import time
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx2
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from joserfc.jwk import RSAKey

from artcafe.errors import StartRefused, Unauthenticated, Unavailable
from artcafe.identity.claims import MAX_LIFETIME_S
from artcafe.observe.logs import log

DISCOVERY: Final = "/.well-known/openid-configuration"
"""OpenID Connect Discovery 1.0, section 4."""
FETCH_S: Final = 5.0
MAX_BYTES: Final = 256 * 1024
MAX_KEYS: Final = 64
"""Issuers publish two to five."""
UNKNOWN_S: Final = 60.0
"""The minimum time between fetches for an unknown key id: anyone can send one."""
RETRY_S: Final = 2.0
"""The retry interval while no key is known."""
REFRESH_S: Final = 3600.0
MIN_BITS: Final = 2048
MIN_EXPONENT: Final = 65537
_KID_CHARS: Final = 256

_MODULUS_CHARS: Final = 1400
"""8192 bits; a longer key would only slow down every verification."""
ALGORITHM: Final = "RS256"

T = TypeVar("T")


class _BadAnswer(Exception):
    """An invalid answer of the issuer; waiting does not help. The message is a clause."""


class _Unreachable(Exception):
    """The issuer does not answer at the moment."""


class _Discovery(msgspec.Struct):
    issuer: str
    jwks_uri: str


class _Jwk(msgspec.Struct):
    kty: str
    kid: str | None = None
    use: str | None = None
    alg: str | None = None
    key_ops: list[str] | None = None
    n: str | None = None
    e: str | None = None


class _JwkSet(msgspec.Struct):
    keys: list[dict[str, Any]]


class IssuerKeys:
    """The RSA keys of one issuer. `jwks_url` is their URL; None uses the discovery document."""

    def __init__(
        self, issuer: str, jwks_url: str | None = None, *, unknown_s: float = UNKNOWN_S, fetch_s: float = FETCH_S
    ) -> None:
        self._issuer, self._jwks_url, self._unknown_s, self._fetch_s = issuer, jwks_url, unknown_s, fetch_s
        self._keys: dict[str, tuple[RSAKey, float]] = {}
        """By key id: the key, and the monotonic time of the last fetch that contained it."""
        self._fetching = asyncio.Lock()
        self._last_fetch = float("-inf")
        self._is_failing = False

    async def begin(self) -> None:
        """Fetch the keys for the first time.

        Raises StartRefused if the issuer's answer shows a wrong setting. An unreachable issuer is logged and retried by `run`:
        agents need no issuer, so the server starts without it and refuses people until it is back.
        """
        try:
            await self._fetch()
        except _BadAnswer as exc:
            raise StartRefused(
                f"people cannot log in: {exc}", "correct ISSUER, set JWKS_URL to the issuer's key set, or repair the issuer"
            ) from exc
        except _Unreachable as exc:
            self._log_failure(exc)

    async def run(self) -> None:
        """Fetch the keys every hour, and every 2 s while none are known, until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_S if self._keys else RETRY_S)
            async with self._fetching:
                await self._try_fetch()

    async def find(self, kid: str) -> RSAKey:
        """Return the key of this id.

        Raises Unauthenticated if the issuer has no such key, Unavailable if it cannot be reached.
        """
        known = self._keys.get(kid)
        if known is None:
            await self._fetch_unknown(kid)
            known = self._keys.get(kid)
        if known is not None:
            return known[0]
        if self._is_failing:
            raise Unavailable("the identity provider, whose keys this token needs,")
        raise Unauthenticated

    async def _fetch_unknown(self, kid: str) -> None:
        """Fetch the keys for an unknown id. One caller fetches; concurrent callers wait for the same answer."""
        async with self._fetching:
            wait_s = self._unknown_s if self._keys else min(self._unknown_s, RETRY_S)
            if kid not in self._keys and time.monotonic() - self._last_fetch >= wait_s:
                await self._try_fetch()

    async def _try_fetch(self) -> None:
        """Fetch the keys; after a failure the cached keys stay valid."""
        try:
            await self._fetch()
        except (_BadAnswer, _Unreachable) as exc:
            self._log_failure(exc)

    def _log_failure(self, exc: Exception) -> None:
        log_event = log.debug if self._is_failing else log.warning  # Once, not every two seconds.
        self._is_failing = True
        log_event("identity.keys_not_fetched", issuer=self._issuer, error=str(exc), known=len(self._keys))

    async def _fetch(self) -> None:
        self._last_fetch = now = time.monotonic()
        try:
            async with asyncio.timeout(self._fetch_s):
                found = await self._fetch_keys()
        except TimeoutError as exc:
            raise _Unreachable(f"{self._issuer} does not answer within {self._fetch_s:g} s") from exc
        # Keep an unpublished key for the maximum lifetime of its tokens: the issuer may have just rotated its keys.
        kept = {kid: each for kid, each in self._keys.items() if now - each[1] < MAX_LIFETIME_S}
        newest_first = {kid: (key, now) for kid, key in found.items()}
        for kid, each in sorted(kept.items(), key=lambda item: -item[1][1]):
            newest_first.setdefault(kid, each)
        self._keys = dict(list(newest_first.items())[:MAX_KEYS])
        if self._is_failing:
            log.info("identity.keys_fetched", issuer=self._issuer, known=len(self._keys))
        self._is_failing = False

    async def _fetch_keys(self) -> dict[str, RSAKey]:
        url = self._jwks_url or await self._discover()
        published = await _get(url, _JwkSet)
        keys = _usable(published)
        if not keys and any(each.get("kty") == "RSA" and not each.get("kid") for each in published.keys):
            raise _BadAnswer(f"{url} has no RSA key with an id ('kid'), and tokens name their key by its id")
        if not keys:
            raise _BadAnswer(f"{url} has no RSA key of {MIN_BITS} bits or more for signatures by RS256")
        return keys

    async def _discover(self) -> str:
        url = self._issuer.rstrip("/") + DISCOVERY
        discovery = await _get(url, _Discovery)
        if discovery.issuer != self._issuer:
            # OpenID Connect Discovery 1.0, section 4.3: they must be identical; otherwise the tokens would not match either.
            raise _BadAnswer(
                f"{url} names the issuer {discovery.issuer!r}, and ISSUER is {self._issuer!r}; they must be the same"
            )
        if not is_safe_url(discovery.jwks_uri):
            raise _BadAnswer(f"{url} names a key set without https: {discovery.jwks_uri!r}")
        return discovery.jwks_uri


def is_safe_url(url: str) -> bool:
    """Return whether a response from this URL is authentic: https, or this machine itself."""
    try:
        parts = urlsplit(url)
        is_whole = bool(parts.hostname) and not parts.username and parts.port != 0
    except ValueError:
        return False
    return is_whole and (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or "")))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _get(url: str, into: type[T]) -> T:
    """Fetch at most `MAX_BYTES` of JSON and decode it. Redirects are not followed."""
    is_here = _is_loopback(urlsplit(url).hostname or "")
    try:
        async with httpx2.AsyncClient(timeout=FETCH_S, trust_env=not is_here) as client, client.stream("GET", url) as answer:
            if answer.status_code == httpx2.codes.TOO_MANY_REQUESTS or answer.is_server_error:
                raise _Unreachable(f"{url} answers HTTP {answer.status_code}")
            if answer.status_code != httpx2.codes.OK:
                raise _BadAnswer(f"{url} answers HTTP {answer.status_code}")
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise _BadAnswer(f"{url} answers with more than {MAX_BYTES} bytes")
    except httpx2.InvalidURL as exc:
        raise _BadAnswer(f"{url!r} is not a URL: {exc}") from exc
    except httpx2.HTTPError as exc:
        raise _Unreachable(f"{url} cannot be reached ({str(exc) or type(exc).__name__})") from exc
    try:
        return msgspec.json.decode(body, type=into)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _BadAnswer(f"{url} does not answer as an OpenID Connect issuer does: {exc}") from exc


def _usable(published: _JwkSet) -> dict[str, RSAKey]:
    """Return the RS256 verification keys by id; other keys are skipped (RFC 7517, section 5)."""
    usable: dict[str, RSAKey] = {}
    for each in published.keys:
        try:
            jwk = msgspec.convert(each, _Jwk)
            if _may_sign(jwk) and jwk.kid not in usable:
                numbers = RSAPublicNumbers(_decode_uint(jwk.e), _decode_uint(jwk.n))
                if numbers.n.bit_length() >= MIN_BITS and numbers.e >= MIN_EXPONENT:
                    usable[jwk.kid or ""] = RSAKey.import_key(numbers.public_key())
        except (msgspec.ValidationError, ValueError):
            continue
    return usable


def _may_sign(jwk: _Jwk) -> bool:
    return (
        jwk.kty == "RSA"
        and 0 < len(jwk.kid or "") <= _KID_CHARS
        and jwk.use in (None, "sig")
        and jwk.alg in (None, ALGORITHM)
        and (jwk.key_ops is None or "verify" in jwk.key_ops)
        and 0 < len(jwk.n or "") <= _MODULUS_CHARS
    )


def _decode_uint(text: str | None) -> int:
    """Decode a Base64urlUInt (RFC 7518, section 2)."""
    text = text or ""
    return int.from_bytes(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True), "big")
