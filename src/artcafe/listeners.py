"""Settings of the two listeners: addresses, proxies, certificate, and connection limits. An invalid setting stops the start."""

from __future__ import annotations

import contextlib
import ssl
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from cryptography import x509

from artcafe.config import Address, Settings
from artcafe.errors import StartRefused
from artcafe.observe.logs import log
from artcafe.rules.clients import Proxies
from artcafe.rules.open_connections import OpenConnections, capacity
from artcafe.rules.shared_limits import ONE_PROCESS, PeerLimits

if sys.platform != "win32":
    import resource

ALPN: Final = ["http/1.1"]
MAX_DESCRIPTORS: Final = 1 << 16


def allow_descriptors() -> int:
    """Raise the limit of open files as far as the system allows, and return it. Many shells begin with 1,024."""
    if sys.platform == "win32":
        return MAX_DESCRIPTORS  # Windows has no such limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS has a second limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """The settings of both listeners, and the TLS context for NATS. Without `tls`, the listeners are plain."""

    proxies: Proxies
    connections: OpenConnections
    tls: ssl.SSLContext | None
    nats_tls: ssl.SSLContext | None
    limits: PeerLimits = ONE_PROCESS
    """The counters of the limits before authentication."""

    @classmethod
    def of(cls, settings: Settings, now: datetime, descriptors: int, limits: PeerLimits = ONE_PROCESS) -> Self:
        """Derive them from the settings. `descriptors`: the process's limit of open files. Raise `StartRefused` for invalid
        settings and files."""
        _check(settings)
        proxies = Proxies(settings.trusted_proxies)
        connections = OpenConnections(proxies, capacity(descriptors), settings.connections_per_address, limits.by_address)
        return cls(proxies, connections, _tls(settings, now), nats_tls(settings), limits)

    def url(self, scheme: str, address: Address) -> str:
        """Return a listener's URL (`http` or `ws`) for clients on this machine."""
        return local_url(f"{scheme}s" if self.tls else scheme, address)


def local_url(scheme: str, address: Address) -> str:
    """Return a URL for clients on this machine: `0.0.0.0` and `::` are not usable addresses."""
    hosts = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (what is replaced)
    return f"{scheme}://{Address(hosts.get(address.host, address.host), address.port)}"


def _check(settings: Settings) -> None:
    """Raise `StartRefused` if other machines could reach a listener that is not fit for them."""
    if bool(settings.tls_cert) is not bool(settings.tls_key):
        there, missing = ("TLS_CERT", "TLS_KEY") if settings.tls_cert else ("TLS_KEY", "TLS_CERT")
        raise StartRefused(f"{there} is set, but {missing} is not, and TLS needs both", "set both")
    if settings.issuer is None:
        _check_is_local(settings)
    for name, address in (("listen", settings.listen), ("gateway-listen", settings.gateway_listen)):
        if address.is_loopback:
            continue
        if settings.issuer is None:
            raise StartRefused(
                f"--{name} is {address}, but people log in with the local identity, which is for this machine only",
                f"set ISSUER and CLIENT_IDS for your identity provider, or listen on loopback: --{name} 127.0.0.1:{address.port}",
            )
        if settings.tls_cert is None and not settings.trusted_proxies:
            raise StartRefused(
                f"--{name} is {address} without TLS: anyone on the network could read the tokens",
                "set TLS_CERT and TLS_KEY, or TRUSTED_PROXIES to the proxy that terminates TLS, or listen on loopback",
            )


def _check_is_local(settings: Settings) -> None:
    """Raise `StartRefused` if a proxy lets other machines reach the local identity. A proxy on this machine is allowed, for
    trials."""
    public = {"PUBLIC_GATEWAY_URL": settings.public_gateway_url, "PUBLIC_URL": settings.public_url}
    elsewhere = [name for name, url in public.items() if url and not Address(urlsplit(url).hostname or "", 0).is_loopback]
    if elsewhere:
        setting = f"{elsewhere[0]} is {public[elsewhere[0]]}"
    elif not all(proxy.is_loopback for proxy in settings.trusted_proxies):
        setting = f"TRUSTED_PROXIES is {', '.join(map(str, settings.trusted_proxies))}"
    else:
        return
    raise StartRefused(
        f"{setting}, which lets other machines in, but people log in with the local identity, which is for this machine only",
        "set ISSUER and CLIENT_IDS for your identity provider, or remove that setting",
    )


def _tls(settings: Settings, now: datetime) -> ssl.SSLContext | None:
    """Return the TLS context of both listeners, or None for plain ones. Raise `StartRefused` for unusable files."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    _check_key(settings.tls_key)
    _check_certificate(settings.tls_cert, now)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(ALPN)
    try:
        # Refuse a key with a password instead of asking for it: a server has no terminal.
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=lambda: "")
    except (OSError, ssl.SSLError) as exc:
        raise StartRefused(
            f"TLS_CERT {settings.tls_cert} and TLS_KEY {settings.tls_key} do not match: {_reason(exc)}",
            "set TLS_CERT to the certificate with its chain and TLS_KEY to its key, both as PEM and the key without a password",
        ) from exc
    return context


def nats_tls(settings: Settings) -> ssl.SSLContext | None:
    """Return the TLS context for connections to NATS, or None for the system's authorities. Raise `StartRefused`.

    Plain NATS on another machine is only warned about: many run it in a network of its own with encryption below.
    """
    for url in settings.nats_urls:
        if not url.startswith(("tls://", "wss://")) and not _is_here(url):
            log.warning("nats.not_encrypted", url=url, remedy="use tls:// in NATS_URLS, or an encrypted network")
    if settings.nats_ca is None:
        return None
    try:
        return ssl.create_default_context(cafile=settings.nats_ca)
    except (OSError, ssl.SSLError) as exc:
        raise StartRefused(
            f"NATS_CA {settings.nats_ca} cannot be used: {_reason(exc)}", "set it to the authority's certificate as PEM"
        ) from exc


def _is_here(url: str) -> bool:
    host = urlsplit(url if "://" in url else f"nats://{url}").hostname or ""
    return Address(host, 0).is_loopback


def _check_key(file: Path) -> None:
    try:
        mode = file.stat().st_mode
    except OSError as exc:
        raise StartRefused(f"TLS_KEY {file} cannot be read: {exc.strerror}", "correct the path or its permissions") from exc
    if mode & 0o007:
        raise StartRefused(f"TLS_KEY {file} can be read by every user of this machine", f"chmod o= {file}")


def _check_certificate(file: Path, now: datetime) -> None:
    try:
        certificate = x509.load_pem_x509_certificates(file.read_bytes())[0]
    except OSError as exc:
        raise StartRefused(f"TLS_CERT {file} cannot be read: {exc.strerror}", "correct the path or its permissions") from exc
    except ValueError as exc:
        raise StartRefused(
            f"TLS_CERT {file} is not a certificate in PEM", "set it to the certificate, followed by its chain"
        ) from exc
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise StartRefused(
            f"TLS_CERT {file} is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
            f" to {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, not now",
            "renew it, or correct this machine's clock",
        )


def _reason(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLError):
        return (exc.reason or str(exc)).replace("_", " ").lower()
    return exc.strerror or str(exc)
