from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from artcafe.errors import CredentialsExpired, StartRefused, Unauthenticated, Unavailable
from artcafe.identity.issuer_keys import FETCH_S, MAX_BYTES, IssuerKeys, is_safe_url
from artcafe.identity.oidc import OidcIdentity
from artcafe.observe.clock import now
from tests.issuer import DISCOVERY_PATH, KEYS_PATH, Issuer, Json, jwk, make_key


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


async def begun(issuer: Issuer, unknown_s: float = 60) -> IssuerKeys:
    keys = IssuerKeys(issuer.name, unknown_s=unknown_s)
    await keys.begin()
    return keys


async def test_keys_are_discovered_and_fetched_once(issuer: Issuer) -> None:
    keys = await begun(issuer)
    for _ in range(3):
        assert (await keys.find("first")).public_key.public_numbers() == issuer.keys["first"].public_key().public_numbers()
    assert issuer.fetches == 1


async def test_new_key_is_fetched_on_first_use_and_the_old_one_stays(issuer: Issuer) -> None:
    keys = await begun(issuer, unknown_s=0)
    issuer.rotate("second")
    await keys.find("second")
    await keys.find("first")
    assert issuer.fetches == 2


async def test_unknown_keys_ask_the_issuer_at_most_once_a_minute(issuer: Issuer) -> None:
    keys = await begun(issuer)
    for number in range(100):
        with pytest.raises(Unauthenticated):
            await keys.find(f"unknown-{number}")
    assert issuer.fetches == 1


async def test_concurrent_callers_share_one_fetch(issuer: Issuer) -> None:
    keys = await begun(issuer, unknown_s=0)
    issuer.rotate("second")
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(keys.find("second")) for _ in range(20)]
    assert len({id(task.result()) for task in tasks}) == 1
    assert issuer.fetches == 2


@pytest.mark.parametrize("fault", ["gone", "HTTP 500", "HTTP 404", "no JSON", "no keys"])
async def test_failing_issuer_leaves_known_keys_valid(issuer: Issuer, fault: str) -> None:
    keys = await begun(issuer, unknown_s=0)
    if fault == "gone":
        issuer.go()
    else:
        answers = {"HTTP 500": (500, b""), "HTTP 404": (404, b""), "no JSON": (200, b"<html>"), "no keys": (200, b'{"keys":[]}')}
        issuer.answers[KEYS_PATH] = answers[fault]
    with pytest.raises(Unavailable, match="identity provider"):
        await keys.find("second")
    await keys.find("first")
    issuer.answers.clear()
    if fault == "gone":
        issuer.come()
    with pytest.raises(Unauthenticated):
        await keys.find("second")


async def test_issuer_unreachable_at_start_is_logged_and_people_are_refused_until_it_is_back(issuer: Issuer) -> None:
    issuer.go()
    with capture_logs() as logs:
        keys = await begun(issuer, unknown_s=0)
    assert [(each["event"], each["log_level"]) for each in logs] == [("identity.keys_not_fetched", "warning")]
    with pytest.raises(Unavailable):
        await keys.find("first")
    issuer.come()
    await keys.find("first")


async def test_configured_key_set_url_needs_no_discovery(issuer: Issuer) -> None:
    issuer.answers[DISCOVERY_PATH] = (404, b"")
    keys = IssuerKeys("https://elsewhere.example.com", issuer.keys_url)
    await keys.begin()
    await keys.find("first")


SMALL = make_key(1024)
CUBIC = make_key(exponent=3)


@pytest.mark.parametrize(
    "published",
    [
        [],
        [{**jwk("a", SMALL)}],
        [{**jwk("a", CUBIC)}],
        [{**jwk("a", SMALL), "kty": "EC"}, {"kty": "oct", "kid": "b", "k": "AAAA"}, {"kty": "OKP"}],
        [{"kty": "RSA", "kid": "a"}, {"kty": "RSA", "kid": "a", "n": "!", "e": "AQAB"}, {"kid": 1, "kty": "RSA"}],
    ],
)
async def test_key_set_without_a_usable_key_stops_the_start(issuer: Issuer, published: list[object]) -> None:
    issuer.answers[KEYS_PATH] = (200, json.dumps({"keys": published}).encode())
    with pytest.raises(StartRefused, match=r"has no RSA key of 2048 bits or more"):
        await begun(issuer)


async def test_key_set_with_keys_lacking_an_id_is_refused_with_that_reason(issuer: Issuer) -> None:
    nameless = {name: value for name, value in jwk("a", issuer.keys["first"]).items() if name != "kid"}
    for published in ([nameless], [{**nameless, "kid": ""}], [jwk("b", SMALL), nameless]):
        issuer.answers[KEYS_PATH] = (200, json.dumps({"keys": published}).encode())
        with pytest.raises(StartRefused, match=r"has no RSA key with an id \('kid'\)"):
            await begun(issuer)


@pytest.mark.parametrize("change", [{"use": "enc"}, {"alg": "RS512"}, {"key_ops": ["encrypt"]}, {"kid": ""}, {"kid": None}])
async def test_key_for_another_purpose_is_skipped(issuer: Issuer, change: dict[str, object]) -> None:
    issuer.published.insert(0, {**jwk("other", make_key()), **change})
    keys = await begun(issuer)
    await keys.find("first")
    with pytest.raises(Unauthenticated):
        await keys.find("other")


@pytest.mark.parametrize(
    ("path", "answer", "words"),
    [
        (DISCOVERY_PATH, (404, b"{}"), "answers HTTP 404"),
        (DISCOVERY_PATH, (302, b"https://example.com/"), "answers HTTP 302"),
        (DISCOVERY_PATH, (200, b"<html>"), "does not answer as an OpenID Connect issuer does"),
        (DISCOVERY_PATH, (200, b"[" * 5000), "does not answer as an OpenID Connect issuer does"),
        (KEYS_PATH, (200, b'{"keys": 1}'), "does not answer as an OpenID Connect issuer does"),
        (KEYS_PATH, (200, b" " * (MAX_BYTES + 1)), f"more than {MAX_BYTES} bytes"),
    ],
)
async def test_answer_other_than_an_issuers_stops_the_start(
    issuer: Issuer, path: str, answer: tuple[int, bytes], words: str
) -> None:
    issuer.answers[path] = answer
    with pytest.raises(StartRefused, match=words) as refused:
        await begun(issuer)
    assert "correct ISSUER" in str(refused.value)


async def test_discovery_document_of_another_issuer_stops_the_start(issuer: Issuer) -> None:
    issuer.discovery = {"issuer": issuer.url + "/"}
    with pytest.raises(StartRefused, match="they must be the same"):
        await begun(issuer)


async def test_key_set_without_https_stops_the_start(issuer: Issuer) -> None:
    issuer.discovery = {"jwks_uri": "http://keys.example.com/"}
    with pytest.raises(StartRefused, match="without https"):
        await begun(issuer)


async def test_invalid_key_set_url_stops_the_start_and_later_only_the_fetch(issuer: Issuer) -> None:
    keys = await begun(issuer, unknown_s=0)
    issuer.discovery = {"jwks_uri": "https://keys.example.com/\x7f"}
    with capture_logs() as logs, pytest.raises(Unavailable):
        await keys.find("second")
    assert "is not a URL" in logs[-1]["error"]
    await keys.find("first")
    with pytest.raises(StartRefused, match="is not a URL"):
        await begun(issuer)


@pytest.mark.parametrize("name", ["ISSUER", "JWKS_URL"])
@pytest.mark.parametrize(
    "url", ["http://example.com", "example.com", "ftp://127.0.0.1", "https://", "https://a@b", "http://[::1"]
)
async def test_issuer_address_without_https_stops_the_start(name: str, url: str) -> None:
    issuer, jwks_url = (url, None) if name == "ISSUER" else ("https://example.com", url)
    with pytest.raises(StartRefused, match=f"(?s){name} is .*use the https:// address"):
        await OidcIdentity.open(issuer, ["a"], jwks_url)


@pytest.mark.parametrize(
    "url", ["https://a", "https://a.example:444/x", "http://localhost:1", "http://127.0.0.9/", "http://[::1]:2"]
)
def test_https_and_this_machine_are_safe(url: str) -> None:
    assert is_safe_url(url)


async def test_issuer_without_client_ids_stops_the_start(issuer: Issuer) -> None:
    with pytest.raises(StartRefused, match=r"(?s)ISSUER is set without CLIENT_IDS: .*name the audiences of the access tokens"):
        await OidcIdentity.open(issuer.name, [])


async def test_slow_issuer_counts_as_unreachable(issuer: Issuer) -> None:
    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.close()

    gone = asyncio.Event()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        with capture_logs() as logs:
            await IssuerKeys("https://example.com", f"http://127.0.0.1:{port}/keys", fetch_s=FETCH_S / 50).begin()
    finally:
        gone.set()
        server.close()
        await server.wait_closed()
    assert "does not answer within" in logs[0]["error"]


async def test_id_token_proves_an_address_and_grants_no_access(issuer: Issuer) -> None:
    identity = await OidcIdentity.open(issuer.name, [issuer.audience])
    address = await identity.verify_id_token(issuer.id_token(), now())
    assert (address.user_id, address.email, address.is_verified) == ("alice", "alice@example.com", True)
    with pytest.raises(Unauthenticated):
        await identity.verify(issuer.id_token(), now())
    with pytest.raises(Unauthenticated):
        await identity.verify_id_token(issuer.token(email="alice@example.com", email_verified=True), now())


@pytest.mark.parametrize("said", [None, False, "false", "yes", 1, ["true"]])
async def test_only_true_verifies_an_address(issuer: Issuer, said: object) -> None:
    identity = await OidcIdentity.open(issuer.name, [issuer.audience])
    assert not (await identity.verify_id_token(issuer.id_token(email_verified=said), now())).is_verified
    assert (await identity.verify_id_token(issuer.id_token(email_verified="true"), now())).is_verified


@pytest.mark.parametrize("claims", [{"aud": "else"}, {"iss": "https://example.com"}, {"exp": 1}, {"sub": None}])
async def test_id_token_is_checked_like_an_access_token(issuer: Issuer, claims: Json) -> None:
    identity = await OidcIdentity.open(issuer.name, [issuer.audience])
    with pytest.raises((Unauthenticated, CredentialsExpired)):
        await identity.verify_id_token(issuer.id_token(**claims), now())


@pytest.mark.parametrize("email", [None, "", "a" * 255, 1, "a\nb@example.com"])
async def test_invalid_address_is_ignored(issuer: Issuer, email: object) -> None:
    identity = await OidcIdentity.open(issuer.name, [issuer.audience])
    address = await identity.verify_id_token(issuer.id_token(email=email), now())
    assert (address.email, address.is_verified) == (None, False)
