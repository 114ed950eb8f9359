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

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.issuer import Issuer, Json, b64, compact, jwk, make_key, rs256
from tests.platform import running

POOL = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEf123"
CLIENT = "3n4b5urk1ft4fl3mg5e62d9ado"
DAY_S = 24 * 3600


@dataclass
class Door:
    """A server that believes an issuer, and what a sound token of it says."""

    issuer: Issuer
    url: str
    sound: Json

    def token(self, *, header: Json | None = None, **claims: Any) -> str:
        said: Json = self.sound | claims
        return self.issuer.token(**said, header=header)

    def claims(self, **claims: object) -> Json:
        return self.issuer.claims(**{**self.sound, **claims})

    def ask(self, token: str) -> tuple[int, str]:
        answer = httpx.get(f"{self.url}/v1/me", headers={"Authorization": f"Bearer {token}"}, trust_env=False)
        return answer.status_code, answer.json().get("code") or answer.json()["user_id"]


@pytest.fixture(scope="module", params=["Cognito", "another issuer"])
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    is_cognito = request.param == "Cognito"
    sound: Json = {"token_use": "access", "client_id": CLIENT, "aud": None} if is_cognito else {}
    with Issuer(POOL if is_cognito else None) as issuer:
        flags = ["--issuer", issuer.name, "--client-ids", f"another,{CLIENT if is_cognito else issuer.audience}"]
        flags += ["--jwks-url", issuer.keys_url] if is_cognito else []
        with running(tmp_path_factory.mktemp("door"), flags) as platform:
            yield Door(issuer, platform.url, sound)


def test_valid_token_is_accepted(door: Door) -> None:
    assert door.ask(door.token()) == (200, "alice")
    assert door.ask(door.token(header={"typ": None})) == (200, "alice")
    # The signer's clock may be a minute ahead or behind, and an unknown header parameter is ignored (RFC 7515, section 4).
    now = int(time.time())
    assert door.ask(door.token(iat=now + 50, nbf=now + 50)) == (200, "alice")
    assert door.ask(door.token(exp=now - 50)) == (200, "alice")
    assert door.ask(door.token(header={"example.com/tag": 1})) == (200, "alice")


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
def test_persons_token_is_accepted_with_additional_claims_of_its_issuer(door: Door, claims: Json) -> None:
    assert door.ask(door.token(**claims)) == (200, "alice")


def test_expired_token_is_answered_as_expired(door: Door) -> None:
    assert door.ask(door.token(exp=int(time.time()) - 61)) == (401, "credentials_expired")


def changed(**claims: Any) -> Callable[[Door], str]:
    return lambda door: door.token(**claims)


def headed(**header: object) -> Callable[[Door], str]:
    return lambda door: door.token(header=header)


def raw(header: Json, sign: Callable[[Door], Callable[[bytes], bytes]]) -> Callable[[Door], str]:
    return lambda door: compact(door.issuer.header(**header), door.claims(), sign(door))


def public_pem(door: Door) -> bytes:
    key = [*door.issuer.keys.values()][-1].public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def hs256(secret: Callable[[Door], bytes]) -> Callable[[Door], Callable[[bytes], bytes]]:
    return lambda door: lambda data: hmac.digest(secret(door), data, "sha256")


def by_newest(sign: Callable[..., bytes]) -> Callable[[Door], Callable[[bytes], bytes]]:
    return lambda door: lambda data: sign([*door.issuer.keys.values()][-1], data)


def es256(_: Door) -> Callable[[bytes], bytes]:
    def sign(data: bytes) -> bytes:
        r, s = decode_dss_signature(ec.generate_private_key(ec.SECP256R1()).sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    return sign


def twice(claim: str, second: object) -> Callable[[Door], str]:
    def forge(door: Door) -> str:
        first = json.dumps({claim: second})[:-1]
        whole = (first + ", " + json.dumps(door.claims())[1:]).encode()
        return compact(door.issuer.header(), whole, rs256([*door.issuer.keys.values()][-1]))

    return forge


def header_twice(door: Door) -> str:
    header = b'{"alg": "none", ' + json.dumps(door.issuer.header()).encode()[1:]
    return compact(header, door.claims(), rs256([*door.issuer.keys.values()][-1]))


def claims_as(text: bytes) -> Callable[[Door], str]:
    return lambda door: compact(door.issuer.header(), text, rs256([*door.issuer.keys.values()][-1]))


def swapped_claims(door: Door) -> str:
    head, _, signature = door.token().split(".")
    return f"{head}.{b64(json.dumps(door.claims(sub='mallory')).encode())}.{signature}"


def cut(count: int) -> Callable[[Door], str]:
    return lambda door: door.token()[:count]


def of_another_key(door: Door) -> str:
    return compact(door.issuer.header(), door.claims(), rs256(make_key()))


def embedded_jwk(door: Door) -> str:
    own = make_key()
    return compact(door.issuer.header(jwk=jwk("first", own)), door.claims(), rs256(own))


ENCRYPTED = b'{"alg":"dir","enc":"A128GCM","kid":"first"}'

FORGERIES: dict[str, Callable[[Door], str]] = {
    "alg none without a signature": lambda door: compact(door.issuer.header(alg="none"), door.claims(), lambda _: b""),
    "alg None in another case": lambda door: compact(door.issuer.header(alg="nOnE"), door.claims(), lambda _: b""),
    "alg none with a sound signature": headed(alg="none"),
    "no signature under RS256": lambda door: door.token().rpartition(".")[0] + ".",
    "HS256 with the public key's PEM": raw({"alg": "HS256"}, hs256(public_pem)),
    "HS256 with the public key's digest": raw({"alg": "HS256"}, hs256(lambda door: hashlib.sha256(public_pem(door)).digest())),
    "HS256 with the key's id": raw({"alg": "HS256"}, hs256(lambda _: b"first")),
    "HS256 with an empty secret": raw({"alg": "HS256"}, hs256(lambda _: b"")),
    "RS384": raw({"alg": "RS384"}, by_newest(lambda key, data: key.sign(data, PKCS1v15(), hashes.SHA384()))),
    "RS512": raw({"alg": "RS512"}, by_newest(lambda key, data: key.sign(data, PKCS1v15(), hashes.SHA512()))),
    "PS256": raw({"alg": "PS256"}, by_newest(lambda key, data: key.sign(data, PSS(MGF1(hashes.SHA256()), 32), hashes.SHA256()))),
    "RS256 said of a signature by SHA-1": raw({}, by_newest(lambda key, data: key.sign(data, PKCS1v15(), hashes.SHA1()))),  # noqa: S303
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
    "a header that is no object": lambda door: compact(b"[]", door.claims(), rs256(door.issuer.keys["first"])),
    "a header that is nested deeply": lambda door: f"{b64(b'[' * 700)}.e30.e30",
    "a header that is long": headed(filler="x" * 2000),
    "another issuer": changed(iss="https://example.com"),
    "its issuer with a trailing slash": lambda door: door.token(iss=door.issuer.name + "/"),
    "its issuer in capitals": lambda door: door.token(iss=door.issuer.name.upper()),
    "its issuer among others": lambda door: door.token(iss=[door.issuer.name]),
    "no issuer": changed(iss=None),
    "no subject": changed(sub=None),
    "an empty subject": changed(sub=""),
    "a subject that is a number": changed(sub=1),
    "a subject that is too long": changed(sub="a" * 256),
    "a subject with a line break": changed(sub="alice\nroot"),
    "no expiry": changed(exp=None),
    "an expiry that is text": lambda door: door.token(exp=str(int(time.time()) + 3600)),
    "an expiry that is true": changed(exp=True),
    "an expiry in a year": lambda door: door.token(exp=int(time.time()) + 365 * DAY_S),
    "an expiry beyond all time": changed(exp=10**30),
    "an expiry in milliseconds": lambda door: door.token(exp=int((time.time() + 3600) * 1000)),
    "a token from the future": lambda door: door.token(iat=int(time.time()) + 120),
    "a token that is not good yet": lambda door: door.token(nbf=int(time.time()) + 120),
    "a begin that is text": changed(nbf="0"),
    "the issuer twice": twice("iss", "https://example.com"),
    "the subject twice": twice("sub", "mallory"),
    "the expiry twice": twice("exp", 1),
    "claims that are a list": claims_as(b"[]"),
    "claims that are no JSON": claims_as(b"{"),
    "claims that are nested deeply": claims_as(b'{"a":' + b"[" * 5000),
    "claims of another token": swapped_claims,
    "a program's own token": lambda door: door.token(sub=CLIENT, azp=CLIENT),
    "a program's own token by Auth0": changed(sub="program@clients", azp="program", gty="client-credentials"),
    "a program's own token by Auth0 without its grant": changed(sub="program@clients"),
    "a program's own token by Okta": changed(sub="program", cid="program"),
    "a program's own token by Entra ID": changed(sub="0b1c", oid="0b1c", appid="program", idtyp="app"),
    "a program's own token by Entra ID, where the program is the subject": changed(sub="program", appid="program"),
    "a program's own token by Keycloak": changed(sub="5d0e", azp="program", preferred_username="service-account-program"),
    "a program's own token by FusionAuth": changed(sub="5d0e", gty=["client_credentials"]),
    "a program's own token by ForgeRock": changed(sub="(age!program)", grant_type="client_credentials"),
    "the header alone": lambda door: door.token().split(".")[0],
    "two parts": lambda door: door.token().rpartition(".")[0],
    "four parts": lambda door: door.token() + ".e30",
    "cut in the signature": cut(-10),
    "a signature with padding": lambda door: door.token() + "==",
    "a signature in the other alphabet": lambda door: door.token().replace("-", "+").replace("_", "/") + "+",
    "a signature longer by a byte": lambda door: door.token() + "AA",
    "a token with a blank in it": lambda door: door.token().replace(".", ". ", 1),
    "a token inside a token": lambda door: (
        f"{b64(json.dumps(door.issuer.header(cty='JWT')).encode())}.{b64(door.token().encode())}.AA"
    ),
    "the JSON serialisation": lambda door: base64.b64encode(json.dumps({"payload": door.token()}).encode()).decode(),
    "a token of five parts, encrypted": lambda _: f"{b64(ENCRYPTED)}..AA.AA.AA",
}

OF_COGNITO: dict[str, Callable[[Door], str]] = {
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

OF_OTHERS: dict[str, Callable[[Door], str]] = {
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
def test_forged_token_is_refused(door: Door, forgery: str) -> None:
    assert door.ask(FORGERIES[forgery](door)) == (401, "unauthenticated")


def test_token_too_long_for_a_request_head_is_refused_unread(door: Door) -> None:
    assert door.ask(changed(filler="x" * 20000)(door)) == (413, "too_large")


@pytest.mark.parametrize("forgery", OF_COGNITO)
@pytest.mark.parametrize("door", ["Cognito"], indirect=True)
def test_cognito_tokens_for_other_purposes_are_refused(door: Door, forgery: str) -> None:
    assert door.ask(OF_COGNITO[forgery](door)) == (401, "unauthenticated")


@pytest.mark.parametrize("forgery", OF_OTHERS)
@pytest.mark.parametrize("door", ["another issuer"], indirect=True)
def test_other_issuers_tokens_for_other_purposes_are_refused(door: Door, forgery: str) -> None:
    assert door.ask(OF_OTHERS[forgery](door)) == (401, "unauthenticated")
