"""An issuer with a login page for public clients: OpenID Connect's code flow with PKCE.

Its people are logged in there already, so the page redirects at once.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from http.server import BaseHTTPRequestHandler
from typing import Final
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.issuer import DISCOVERY_PATH, Issuer, Json, b64

AUTHORIZE_PATH: Final = "/authorize"
TOKEN_PATH: Final = "/token"

Query = dict[str, str]


class LoginIssuer(Issuer):
    """`with LoginIssuer() as issuer: …`. `subject` is who logs in next."""

    def __init__(self) -> None:
        super().__init__(audience="console")
        self.subject = "alice"
        self.scope = "openid email offline_access api://4f0c/access"
        self.overrides: Json = {}
        """Claims of the next ID tokens, and parameters of the next redirects, to replace with wrong values."""
        self.has_refresh_tokens = False
        self.renews_only_with_scope = False
        """Like Entra ID where the client and its API are one application (AADSTS90009)."""
        self._begun: dict[str, Query] = {}
        self._refresh_token = secrets.token_urlsafe()

    def answer(self, path: str) -> tuple[int, bytes]:
        if path == DISCOVERY_PATH:
            self.discovery = {
                "authorization_endpoint": self.url + AUTHORIZE_PATH,
                "token_endpoint": self.url + TOKEN_PATH,
                "authorization_response_iss_parameter_supported": True,
            }
        if urlsplit(path).path == AUTHORIZE_PATH:
            return 302, self._redirect(_flat(urlsplit(path).query)).encode()
        return super().answer(path)

    def _redirect(self, asked: Query) -> str:
        assert (asked["client_id"], asked["response_type"], asked["code_challenge_method"]) == (self.audience, "code", "S256")
        assert asked["scope"] == self.scope
        code = secrets.token_urlsafe()
        self._begun[code] = asked
        parameters = {"code": code, "state": asked["state"], "iss": self.name}
        return f"{asked['redirect_uri']}?{urlencode(parameters | {k: v for k, v in self.overrides.items() if k in parameters})}"

    def exchange(self, form: Query) -> tuple[int, Json]:
        """Return the answer of the token endpoint. A code works once, with the verifier of its challenge."""
        if form["grant_type"] == "refresh_token":
            assert (form["refresh_token"], form["client_id"]) == (self._refresh_token, self.audience)
            if self.renews_only_with_scope and form.get("scope") != self.scope:
                return 400, {"error": "invalid_request", "error_description": "the scope is missing"}
            return 200, self._tokens({})
        begun = self._begun.pop(form["code"], None)
        challenge = b64(hashlib.sha256(form["code_verifier"].encode()).digest())
        if begun is None or (begun["code_challenge"], begun["redirect_uri"]) != (challenge, form["redirect_uri"]):
            return 400, {"error": "invalid_grant", "error_description": "the code is not valid"}
        return 200, self._tokens({"nonce": begun["nonce"]})

    def _tokens(self, claims: Json) -> Json:
        until = int(time.time()) + 3 * 3600  # A browser whose clock a test has set ahead must not refuse them.
        return {
            "access_token": self.token(self.subject, exp=until),
            "id_token": self.id_token(self.subject, **{"exp": until, **claims, **self.overrides}),
            "token_type": "Bearer",
            "expires_in": 3600,
            **({"refresh_token": self._refresh_token} if self.has_refresh_tokens else {}),
        }

    def handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(super().handler()):  # type: ignore[misc]  # The base is made for this issuer.
            def do_POST(self) -> None:  # noqa: N802 (the name that the base class calls)
                form = _flat(self.rfile.read(int(self.headers["Content-Length"])).decode())
                status, answer = issuer.exchange(form)
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def end_headers(self) -> None:
                self.send_header("Access-Control-Allow-Origin", "*")
                super().end_headers()

        return Handler


def _flat(text: str) -> Query:
    return {name: value for name, (value, *_) in parse_qs(text).items()}
