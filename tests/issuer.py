"""An OpenID Connect issuer for tests: a real HTTP server with real keys, which changes them, goes away and lies on demand."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

KEYS_PATH: Final = "/keys"
DISCOVERY_PATH: Final = "/.well-known/openid-configuration"

Json = dict[str, Any]
Signer = Callable[[bytes], bytes]


def make_key(bits: int = 2048, exponent: int = 65537) -> RSAPrivateKey:
    """A new private key."""
    return generate_private_key(exponent, bits)


def b64(data: bytes) -> str:
    """As JOSE has it: URL-safe and without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def compact(header: Json | bytes, claims: Json | bytes, sign: Signer) -> str:
    """A compact JWS of exactly these parts, whatever they are."""
    parts = (each if isinstance(each, bytes) else json.dumps(each).encode() for each in (header, claims))
    signed = ".".join(map(b64, parts))
    return f"{signed}.{b64(sign(signed.encode()))}"


def rs256(key: RSAPrivateKey) -> Signer:
    """Signs as RS256 does (RFC 7518, section 3.3)."""
    return lambda data: key.sign(data, PKCS1v15(), hashes.SHA256())


def jwk(kid: str, key: RSAPrivateKey, **more: object) -> Json:
    """The public half, as a key set has it."""
    numbers = key.public_key().public_numbers()
    n, e = (b64(each.to_bytes((each.bit_length() + 7) // 8, "big")) for each in (numbers.n, numbers.e))
    return {"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": n, "e": e, **more}


class Issuer:
    """`with Issuer() as issuer: …`. Its `url` is its name; `name` overrides it, for one that is known elsewhere by another."""

    def __init__(self, name: str | None = None, audience: str = "artcafe") -> None:
        self._name, self.audience = name, audience
        self.keys = {"first": make_key()}
        self.published: list[Json] = [jwk(kid, key) for kid, key in self.keys.items()]
        self.discovery: Json = {}
        """What the discovery document says beside, or instead of, what is right."""
        self.answers: dict[str, tuple[int, bytes]] = {}
        """What to answer at a path in place of what is right."""
        self.fetches = 0
        """How often the key set was asked for."""
        self._port = 0

    def __enter__(self) -> Issuer:
        self.come()
        return self

    def __exit__(self, *_: object) -> None:
        self.go()

    def come(self) -> None:
        """Listens, at the same port as before."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), _handler(self))
        self._port = self._server.server_port
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name="issuer")
        self._thread.start()

    def go(self) -> None:
        """Is reached by nobody. May be repeated."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def name(self) -> str:
        return self._name or self.url

    @property
    def keys_url(self) -> str:
        return self.url + KEYS_PATH

    def rotate(self, kid: str, *, keep: bool = False) -> None:
        """Signs with a new key from here on, and publishes it; the others too where they are kept."""
        self.keys[kid] = make_key()
        self.published = [*(self.published if keep else ()), jwk(kid, self.keys[kid])]

    def claims(self, subject: str = "alice", **more: object) -> Json:
        """What a sound access token says. A claim that is given as None is left out."""
        now = int(time.time())
        sound = {"iss": self.name, "sub": subject, "aud": self.audience, "iat": now, "exp": now + 3600, "scope": "openid"}
        return {name: value for name, value in {**sound, **more}.items() if value is not None}

    def header(self, **more: object) -> Json:
        """What its header says; None leaves a parameter out."""
        sound = {"alg": "RS256", "typ": "JWT", "kid": [*self.keys][-1]}
        return {name: value for name, value in {**sound, **more}.items() if value is not None}

    def token(self, subject: str = "alice", *, header: Json | None = None, **claims: object) -> str:
        """A sound access token but for what is given, signed by the key that its header names, or by the newest."""
        named = self.header(**(header or {}))
        key = self.keys.get(str(named.get("kid"))) or [*self.keys.values()][-1]
        return compact(named, self.claims(subject, **claims), rs256(key))

    def id_token(self, subject: str = "alice", **claims: object) -> str:
        """A sound ID token."""
        about: Json = {"scope": None, "email": f"{subject}@example.com", "email_verified": True, "nonce": "n"}
        return self.token(subject, **{**about, **claims})

    def answer(self, path: str) -> tuple[int, bytes]:
        if path == KEYS_PATH:
            self.fetches += 1
        if path in self.answers:
            return self.answers[path]
        if path == KEYS_PATH:
            return 200, json.dumps({"keys": self.published}).encode()
        if path == DISCOVERY_PATH:
            return 200, json.dumps({"issuer": self.name, "jwks_uri": self.keys_url, **self.discovery}).encode()
        return 404, b"{}"


def _handler(issuer: Issuer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = issuer.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if 300 <= status < 400:
                self.send_header("Location", body.decode())
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    return Handler
