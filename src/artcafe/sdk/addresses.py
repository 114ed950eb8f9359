"""Server addresses: validation, completion, and the errors of failed connections. No I/O."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
from collections.abc import Sequence
from typing import Final
from urllib.parse import SplitResult, urlsplit

from artcafe.errors import ArtcafeError, Invalid, Unavailable

GATEWAY_PATH: Final = "/v1/connect"


def several(urls: str | Sequence[str]) -> list[str]:
    """Split addresses separated by commas or spaces, or copy a sequence. Raises `Invalid` if there are none."""
    found = urls.replace(",", " ").split() if isinstance(urls, str) else list(urls)
    if not found:
        raise Invalid("url", "give the address of at least one server")
    return found


def is_gateway(url: str) -> bool:
    """Return whether the address is a gateway's (ws, wss), and not that of REST (http, https). Raises `Invalid`."""
    return _parse(url).scheme in {"ws", "wss"}


def rest(url: str) -> str:
    """Return the REST address without a trailing slash or `/v1`. Raises `Invalid`."""
    parsed = _parse(url)
    if parsed.scheme not in {"http", "https"}:
        raise Invalid("url", f"must be the REST address (http:// or https://), not {url!r}")
    return url.rstrip("/").removesuffix("/v1")


def gateway(url: str) -> str:
    """Return the gateway's address, with the default path if it has none. Raises `Invalid`."""
    parsed = _parse(url)
    if parsed.scheme not in {"ws", "wss"}:
        raise Invalid("url", f"a gateway's address must begin with ws:// or wss://, not {url!r}")
    return url if parsed.path.strip("/") else parsed._replace(path=GATEWAY_PATH).geturl()


def is_loopback(url: str) -> bool:
    """Return whether the address is on this machine. Such connections ignore the proxies of the environment."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_plain(url: str) -> bool:
    """Return whether connections to the address are unencrypted."""
    return urlsplit(url).scheme in {"http", "ws"}


def failure(url: str, exc: BaseException) -> ArtcafeError:
    """Return the error for a failed connection to `url`: `Invalid` if TLS fails, for example by an untrusted certificate,
    otherwise `Unavailable`."""
    found = _system_error(exc)
    if isinstance(found, ssl.SSLError):
        return Invalid("url", f"no TLS with {url}: {_tls_problem(found)}")
    return Unavailable(f"{url} ({_phrase(found or exc)})")


def failures(failed: Sequence[ArtcafeError]) -> ArtcafeError:
    """Return one error for several failed addresses: all of them if all are unreachable, otherwise a temporary error if any."""
    unreachable = [error.what for error in failed if isinstance(error, Unavailable) and "what" in vars(error)]
    if len(unreachable) == len(failed) > 1:
        return Unavailable(" and ".join(unreachable))
    return next((error for error in failed if error.temporary), failed[-1])


def _tls_problem(error: ssl.SSLError) -> str:
    hint = "; if an authority of your own signed the certificate, name the authority's file in SSL_CERT_FILE"
    return f"{error}{hint if isinstance(error, ssl.SSLCertVerificationError) else ''}"


def _system_error(exc: BaseException) -> OSError | None:
    """Find the operating system's error inside the exceptions of libraries."""
    seen: BaseException | None = exc
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno is not None:
            return seen
        seen = seen.exceptions[0] if isinstance(seen, BaseExceptionGroup) else seen.__cause__ or seen.__context__
    return exc if isinstance(exc, OSError) else None


def _phrase(exc: BaseException) -> str:
    if isinstance(exc, socket.gaierror):
        return "unknown host name"
    if isinstance(exc, OSError) and exc.errno:
        return os.strerror(exc.errno).lower()
    return str(exc) or "timeout"


def _parse(url: str) -> SplitResult:
    try:
        parsed = urlsplit(url)
        is_named = bool(parsed.hostname) and (parsed.port is None or parsed.port > 0)
    except ValueError as exc:
        raise Invalid("url", f"{url!r} is not an address: {exc}") from None
    if parsed.scheme not in {"http", "https", "ws", "wss"} or not is_named:
        raise Invalid("url", f"must be like http://127.0.0.1:8080 or ws://127.0.0.1:8081{GATEWAY_PATH}, not {url!r}")
    if parsed.username is not None or parsed.query or parsed.fragment:
        raise Invalid("url", "must have no user, password, '?' or '#'")
    return parsed
