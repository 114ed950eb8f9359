"""Forged tokens of people, each valid except for one flaw, sent to a running server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.issuer import Issuer, Json, b64, compact, jwk, make_key, rs256
from tests.plain_http import NO_AUTHORITIES
from tests.platform import running

POOL = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEf123"
CLIENT = "3n4b5urk1ft4fl3mg5e62d9ado"
DAY_S = 24 * 3600


@dataclass
class IssuerServer:
    """A server trusting an issuer, and the claims of a valid token."""

    issuer: Issuer
    url: str
    valid: Json

    def token(self, *, header: Json | None = None, **claims: Any) -> str:
        own: Json = self.valid | claims
        return self.issuer.token(**own, header=header)

    def claims(self, **claims: object) -> Json:
        return self.issuer.claims(**{**self.valid, **claims})

    def ask(self, token: str) -> tuple[int, str]:
        answer = httpx2.get(
            f"{self.url}/v1/me", headers={"Authorization": f"Bearer {token}"}, trust_env=False, verify=NO_AUTHORITIES
        )
        return answer.status_code, answer.json().get("code") or answer.json()["user_id"]


@pytest.fixture(scope="module", params=["Cognito", "another issuer"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IssuerServer]:
    is_cognito = request.param == "Cognito"
    valid: Json = {"token_use": "access", "client_id": CLIENT, "aud": None} if is_cognito else {}
    with Issuer(POOL if is_cognito else None) as issuer:
        flags = ["--issuer", issuer.name, "--client-ids", f"another,{CLIENT if is_cognito else issuer.audience}"]
        flags += ["--jwks-url", issuer.keys_url] if is_cognito else []
        with running(tmp_path_factory.mktemp("server"), flags) as platform:
            yield IssuerServer(issuer, platform.url, valid)


def test_valid_token_is_accepted(server: IssuerServer) -> None:
    assert server.ask(server.token()) == (200, "alice")
    assert server.ask(server.token(header={"typ": None})) == (200, "alice")
    # The signer's clock may be a minute ahead or behind, and an unknown header parameter is ignored (RFC 7515, section 4).
    now = int(time.time())
    assert server.ask(server.token(iat=now + 50, nbf=now + 50)) == (200, "alice")
    assert server.ask(server.token(exp=now - 50)) == (200, "alice")
    assert server.ask(server.token(header={"example.com/tag": 1})) == (200, "alice")


@pytest.mark.parametrize(
    "claims",
    [
        {"azp": "app", "gty": "password"},
        {"azp": "app", "gty": ["authorization_code", "refresh_token"]},
        {"cid": "app", "uid": "00u1"},
        {"appid": "app", "oid": "alice", "idtyp": "user"},
        {"azp": "app", "preferred_username": "alice"},
        {"azp": ["alice"], "gty": 1, "idtyp": None, "preferred_username": 7},
    ],
)
def test_persons_token_is_accepted_with_additional_claims_of_its_issuer(server: IssuerServer, claims: Json) -> None:
    assert server.ask(server.token(**claims)) == (200, "alice")


def test_expired_token_is_answered_as_expired(server: IssuerServer) -> None:
    assert server.ask(server.token(exp=int(time.time()) - 61)) == (401, "credentials_expired")


def changed(**claims: Any) -> Callable[[IssuerServer], str]:
    return lambda server: server.token(**claims)


def headed(**header: object) -> Callable[[IssuerServer], str]:
    return lambda server: server.token(header=header)


def raw(header: Json, sign: Callable[[IssuerServer], Callable[[bytes], bytes]]) -> Callable[[IssuerServer], str]:
    return lambda server: compact(server.issuer.header(**header), server.claims(), sign(server))


def public_pem(server: IssuerServer) -> bytes:
    key = [*server.issuer.keys.values()][-1].public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def hs256(secret: Callable[[IssuerServer], bytes]) -> Callable[[IssuerServer], Callable[[bytes], bytes]]:
    return lambda server: lambda data: hmac.digest(secret(server), data, "sha256")


def by_newest(sign: Callable[..., bytes]) -> Callable[[IssuerServer], Callable[[bytes], bytes]]:
    return lambda server: lambda data: sign([*server.issuer.keys.values()][-1], data)


def es256(_: IssuerServer) -> Callable[[bytes], bytes]:
    def sign(data: bytes) -> bytes:
        r, s = decode_dss_signature(ec.generate_private_key(ec.SECP256R1()).sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    return sign


def twice(claim: str, second: object) -> Callable[[IssuerServer], str]:
    def forge(server: IssuerServer) -> str:
        first = json.dumps({claim: second})[:-1]
        whole = (first + ", " + json.dumps(server.claims())[1:]).encode()
        return compact(server.issuer.header(), whole, rs256([*server.issuer.keys.values()][-1]))

    return forge


def header_twice(server: IssuerServer) -> str:
    header = b'{"alg": "none", ' + json.dumps(server.issuer.header()).encode()[1:]
    return compact(header, server.claims(), rs256([*server.issuer.keys.values()][-1]))


def claims_as(text: bytes) -> Callable[[IssuerServer], str]:
    return lambda server: compact(server.issuer.header(), text, rs256([*server.issuer.keys.values()][-1]))


def swapped_claims(server: IssuerServer) -> str:
    head, _, signature = server.token().split(".")
    return f"{head}.{b64(json.dumps(server.claims(sub='mallory')).encode())}.{signature}"


def cut(count: int) -> Callable[[IssuerServer], str]:
    return lambda server: server.token()[:count]


def of_another_key(server: IssuerServer) -> str:
    return compact(server.issuer.header(), server.claims(), rs256(make_key()))


def embedded_jwk(server: IssuerServer) -> str:
    own = make_key()
    return compact(server.issuer.header(jwk=jwk("first", own)), server.claims(), rs256(own))


ENCRYPTED = b'{"alg":"dir","enc":"A128GCM","kid":"first"}'

FORGERIES: dict[str, Callable[[IssuerServer], str]] = {
    "alg none without a signature": lambda server: compact(server.issuer.header(alg="none"), server.claims(), lambda _: b""),
    "alg None in another case": lambda server: compact(server.issuer.header(alg="nOnE"), server.claims(), lambda _: b""),
    "alg none with a valid signature": headed(alg="none"),
    "no signature under RS256": lambda server: server.token().rpartition(".")[0] + ".",
    "HS256 with the public key's PEM": raw({"alg": "HS256"}, hs256(public_pem)),
    "HS256 with the public key's digest": raw(
        {"alg": "HS256"}, hs256(lambda server: hashlib.sha256(public_pem(server)).digest())
    ),
    "HS256 with the key's id": raw({"alg": "HS256"}, hs256(lambda _: b"first")),
    "HS256 with an empty secret": raw({"alg": "HS256"}, hs256(lambda _: b"")),
    "RS384": raw({"alg": "RS384"}, by_newest(lambda key, data: key.sign(data, PKCS1v15(), hashes.SHA384()))),
    "RS512": raw({"alg": "RS512"}, by_newest(lambda key, data: key.sign(data, PKCS1v15(), hashes.SHA512()))),
    "PS256": raw({"alg": "PS256"}, by_newest(lambda key, data: key.sign(data, PSS(MGF1(hashes.SHA256()), 32), hashes.SHA256()))),
    "RS256 for a SHA-1 signature": raw({}, by_newest(lambda key, data: key.sign(data, PKCS1v15(), hashes.SHA1()))),  # noqa: S303 - An attack that must fail.
    "ES256": raw({"alg": "ES256"}, es256),
    "alg in small letters": headed(alg="rs256"),
    "no alg": headed(alg=None),
    "alg that is a list": headed(alg=["RS256"]),
    "another issuer's key under the same id": of_another_key,
    "an unknown key": headed(kid="unknown"),
    "no key id": headed(kid=None),
    "a key id that is a number": headed(kid=1),
    "a key id that is a path": headed(kid="../../dev/null"),
    "a key of its own in the header": embedded_jwk,
    "the address of a key set in the header": headed(jku="http://127.0.0.1:9/keys"),
    "the address of a certificate in the header": headed(x5u="http://127.0.0.1:9/cert"),
    "a certificate in the header": headed(x5c=["MIIB"]),
    "crit that is unknown": headed(crit=["exp"], exp=1),
    "crit that is empty": headed(crit=[]),
    "an unencoded payload": headed(b64=False, crit=["b64"]),
    "a compressed payload": headed(zip="DEF"),
    "a header with alg twice": header_twice,
    "a header other than an object": lambda server: compact(b"[]", server.claims(), rs256(server.issuer.keys["first"])),
    "a header that is nested deeply": lambda server: f"{b64(b'[' * 700)}.e30.e30",
    "a header that is long": headed(filler="x" * 2000),
    "another issuer": changed(iss="https://example.com"),
    "its issuer with a trailing slash": lambda server: server.token(iss=server.issuer.name + "/"),
    "its issuer in capitals": lambda server: server.token(iss=server.issuer.name.upper()),
    "its issuer among others": lambda server: server.token(iss=[server.issuer.name]),
    "no issuer": changed(iss=None),
    "no subject": changed(sub=None),
    "an empty subject": changed(sub=""),
    "a subject that is a number": changed(sub=1),
    "a subject that is too long": changed(sub="a" * 256),
    "a subject with a line break": changed(sub="alice\nroot"),
    "no expiry": changed(exp=None),
    "an expiry that is text": lambda server: server.token(exp=str(int(time.time()) + 3600)),
    "an expiry that is true": changed(exp=True),
    "an expiry in a year": lambda server: server.token(exp=int(time.time()) + 365 * DAY_S),
    "an expiry out of range": changed(exp=10**30),
    "an expiry in milliseconds": lambda server: server.token(exp=int((time.time() + 3600) * 1000)),
    "a token from the future": lambda server: server.token(iat=int(time.time()) + 120),
    "a token not valid yet": lambda server: server.token(nbf=int(time.time()) + 120),
    "a start time that is text": changed(nbf="0"),
    "the issuer twice": twice("iss", "https://example.com"),
    "the subject twice": twice("sub", "mallory"),
    "the expiry twice": twice("exp", 1),
    "claims that are a list": claims_as(b"[]"),
    "claims that are not JSON": claims_as(b"{"),
    "claims that are nested deeply": claims_as(b'{"a":' + b"[" * 5000),
    "claims of another token": swapped_claims,
    "a program's own token": lambda server: server.token(sub=CLIENT, azp=CLIENT),
    "a program's own token by Auth0": changed(sub="program@clients", azp="program", gty="client-credentials"),
    "a program's own token by Auth0 without its grant": changed(sub="program@clients"),
    "a program's own token by Okta": changed(sub="program", cid="program"),
    "a program's own token by Entra ID": changed(sub="0b1c", oid="0b1c", appid="program", idtyp="app"),
    "a program's own token by Entra ID, where the program is the subject": changed(sub="program", appid="program"),
    "a program's own token by Keycloak": changed(sub="5d0e", azp="program", preferred_username="service-account-program"),
    "a program's own token by FusionAuth": changed(sub="5d0e", gty=["client_credentials"]),
    "a program's own token by ForgeRock": changed(sub="(age!program)", grant_type="client_credentials"),
    "the header alone": lambda server: server.token().split(".")[0],
    "two parts": lambda server: server.token().rpartition(".")[0],
    "four parts": lambda server: server.token() + ".e30",
    "cut in the signature": cut(-10),
    "a signature with padding": lambda server: server.token() + "==",
    "a signature in the other alphabet": lambda server: server.token().replace("-", "+").replace("_", "/") + "+",
    "a signature longer by a byte": lambda server: server.token() + "AA",
    "a token with a blank in it": lambda server: server.token().replace(".", ". ", 1),
    "a token inside a token": lambda server: (
        f"{b64(json.dumps(server.issuer.header(cty='JWT')).encode())}.{b64(server.token().encode())}.AA"
    ),
    "the JSON serialisation": lambda server: base64.b64encode(json.dumps({"payload": server.token()}).encode()).decode(),
    "a token of five parts, encrypted": lambda _: f"{b64(ENCRYPTED)}..AA.AA.AA",
}

OF_COGNITO: dict[str, Callable[[IssuerServer], str]] = {
    "an ID token": changed(token_use="id", aud=CLIENT),
    "an ID token that names the client too": changed(token_use="id", aud=CLIENT, client_id=CLIENT, scope=None),
    "a refresh token": changed(token_use="refresh"),
    "no use": changed(token_use=None),
    "uses in a list": changed(token_use=["access"]),
    "another client": changed(client_id="6h4b5urk1ft4fl3mg5e62d9ado"),
    "no client": changed(client_id=None),
    "our client as the audience alone": changed(client_id="else", aud=CLIENT),
    "the client in capitals": changed(client_id=CLIENT.upper()),
    "a client's own token": changed(sub=CLIENT),
    "another pool of the region": changed(iss=POOL[:-3] + "456"),
}

OF_OTHERS: dict[str, Callable[[IssuerServer], str]] = {
    "an ID token": changed(scope=None, nonce="n"),
    "an ID token with a hash of its access token": changed(at_hash="AAAA"),
    "an ID token of Keycloak": changed(typ="ID"),
    "a refresh token of Keycloak": changed(typ="Refresh"),
    "another audience": changed(aud="https://example.com"),
    "other audiences": changed(aud=["a", "b"]),
    "no audience": changed(aud=None),
    "an audience that is an object": changed(aud={"artcafe": 1}),
    "audiences that are not all text": changed(aud=["artcafe", 1]),
    "our audience as the client alone": changed(aud="else", client_id="artcafe"),
    "a client's own token": changed(sub="program", client_id="program"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forged_token_is_refused(server: IssuerServer, forgery: str) -> None:
    assert server.ask(FORGERIES[forgery](server)) == (401, "unauthenticated")


def test_token_too_long_for_a_request_head_is_refused_unread(server: IssuerServer) -> None:
    assert server.ask(changed(filler="x" * 20000)(server)) == (413, "too_large")


@pytest.mark.parametrize("forgery", OF_COGNITO)
@pytest.mark.parametrize("server", ["Cognito"], indirect=True)
def test_cognito_tokens_for_other_purposes_are_refused(server: IssuerServer, forgery: str) -> None:
    assert server.ask(OF_COGNITO[forgery](server)) == (401, "unauthenticated")


@pytest.mark.parametrize("forgery", OF_OTHERS)
@pytest.mark.parametrize("server", ["another issuer"], indirect=True)
def test_other_issuers_tokens_for_other_purposes_are_refused(server: IssuerServer, forgery: str) -> None:
    assert server.ask(OF_OTHERS[forgery](server)) == (401, "unauthenticated")
