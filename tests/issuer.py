"""An OpenID Connect issuer for tests: a real HTTP server with real keys, which can rotate them, become unreachable and answer
wrongly."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

KEYS_PATH: Final = "/keys"
DISCOVERY_PATH: Final = "/.well-known/openid-configuration"

Json = dict[str, Any]
Signer = Callable[[bytes], bytes]


def make_key(bits: int = 2048, exponent: int = 65537) -> RSAPrivateKey:
    """Return a new private key."""
    return generate_private_key(exponent, bits)


def b64(data: bytes) -> str:
    """Encode as in JOSE: URL-safe and without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def compact(header: Json | bytes, claims: Json | bytes, sign: Signer) -> str:
    """Return a compact JWS of exactly these parts."""
    parts = (each if isinstance(each, bytes) else json.dumps(each).encode() for each in (header, claims))
    signed = ".".join(map(b64, parts))
    return f"{signed}.{b64(sign(signed.encode()))}"


def rs256(key: RSAPrivateKey) -> Signer:
    """Sign with RS256 (RFC 7518, section 3.3)."""
    return lambda data: key.sign(data, PKCS1v15(), hashes.SHA256())


def jwk(kid: str, key: RSAPrivateKey, **more: object) -> Json:
    """Return the public half, in the form of a key set."""
    numbers = key.public_key().public_numbers()
    n, e = (b64(each.to_bytes((each.bit_length() + 7) // 8, "big")) for each in (numbers.n, numbers.e))
    return {"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": n, "e": e, **more}


class Issuer:
    """`with Issuer() as issuer: …`. Its `url` is its issuer name; `name` overrides it, for an issuer with another public name."""

    def __init__(self, name: str | None = None, audience: str = "artcafe") -> None:
        self._name, self.audience = name, audience
        self.keys = {"first": make_key()}
        self.published: list[Json] = [jwk(kid, key) for kid, key in self.keys.items()]
        self.discovery: Json = {}
        """Fields of the discovery document to add or to replace with wrong values."""
        self.answers: dict[str, tuple[int, bytes]] = {}
        """Answers by path that replace the correct ones."""
        self.fetches = 0
        """The number of requests for the key set."""
        self._port = 0

    def __enter__(self) -> Self:
        self.come()
        return self

    def __exit__(self, *_: object) -> None:
        self.go()

    def come(self) -> None:
        """Listen, on the same port as before."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), self.handler())
        self._port = self._server.server_port
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name="issuer")
        self._thread.start()

    def handler(self) -> type[BaseHTTPRequestHandler]:
        """Return the handler of requests."""
        return _handler(self)

    def go(self) -> None:
        """Stop listening. May be repeated."""
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
        """Sign with a new key from now on, and publish it; also the previous ones if they are kept."""
        self.keys[kid] = make_key()
        self.published = [*(self.published if keep else ()), jwk(kid, self.keys[kid])]

    def claims(self, subject: str = "alice", **more: object) -> Json:
        """Return the claims of a valid access token. A claim given as None is left out."""
        now = int(time.time())
        sound = {"iss": self.name, "sub": subject, "aud": self.audience, "iat": now, "exp": now + 3600, "scope": "openid"}
        return {name: value for name, value in {**sound, **more}.items() if value is not None}

    def header(self, **more: object) -> Json:
        """Return the token's header; None leaves a parameter out."""
        sound = {"alg": "RS256", "typ": "JWT", "kid": [*self.keys][-1]}
        return {name: value for name, value in {**sound, **more}.items() if value is not None}

    def token(self, subject: str = "alice", *, header: Json | None = None, **claims: object) -> str:
        """Return an access token, valid except for the given changes, signed with the key that its header names, or with the
        newest."""
        named = self.header(**(header or {}))
        key = self.keys.get(str(named.get("kid"))) or [*self.keys.values()][-1]
        return compact(named, self.claims(subject, **claims), rs256(key))

    def id_token(self, subject: str = "alice", **claims: object) -> str:
        """Return a valid ID token."""
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
            """Log nothing."""

    return Handler
