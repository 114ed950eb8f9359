"""The two listeners, as strangers and proxies see them: TLS, headers, origins, addresses and rate limits."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from tests.certificates import Authority
from tests.fleet import NatsServers
from tests.forked import run_artcafe
from tests.gateway.raw_client import BOUND_S, PROTOCOL, RawClient
from tests.platform import Cast, Platform, running

LIMITS = ["--trusted-proxies", "127.0.0.1/32,::1/128", "--requests-per-s", "0.8", "--connects-per-s", "0.3"]
LIMITS += ["--challenges-per-min", "12", "--allowed-origins", "https://app.example.com"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def refused(tmp_path: Path, *flags: str) -> str:
    """Return the output of an `artcafe up` that refuses to start."""
    free = ["--listen", "127.0.0.1:0", "--gateway-listen", "127.0.0.1:0"]
    done = run_artcafe("up", "--data-dir", tmp_path / "data", *free, *flags)
    assert done.returncode in (3, 4), done.stderr  # Refused, or something it needs is away.
    assert "Traceback" not in done.stderr
    return done.stderr


# --- allowed addresses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--listen", "--gateway-listen"])
def test_local_identity_is_refused_beyond_loopback(tmp_path: Path, flag: str) -> None:
    said = refused(tmp_path, flag, "0.0.0.0:0")
    assert f"{flag} is 0.0.0.0:0, but people log in with the local identity" in said
    assert "ISSUER and CLIENT_IDS" in said


@pytest.mark.parametrize(
    ("flag", "value", "name"),
    [
        ("--public-gateway-url", "wss://agents.example.com/v1/connect", "PUBLIC_GATEWAY_URL"),
        ("--public-url", "https://api.example.com", "PUBLIC_URL"),
        ("--trusted-proxies", "127.0.0.1/32,10.0.0.0/8", "TRUSTED_PROXIES"),
        ("--trusted-proxies", "0.0.0.0/0", "TRUSTED_PROXIES"),
    ],
)
def test_local_identity_is_refused_behind_a_public_proxy(tmp_path: Path, flag: str, value: str, name: str) -> None:
    said = refused(tmp_path, flag, value)
    assert f"{name} is {value.replace(',', ', ')}, which lets other machines in" in said
    assert "ISSUER and CLIENT_IDS" in said


@pytest.mark.parametrize("flag", ["--listen", "--gateway-listen"])
def test_plain_listener_beyond_loopback_is_refused(tmp_path: Path, flag: str) -> None:
    said = refused(tmp_path, flag, "0.0.0.0:0", "--issuer", "https://example.com", "--client-ids", "a")
    assert f"{flag} is 0.0.0.0:0 without TLS" in said
    assert "TLS_CERT and TLS_KEY, or TRUSTED_PROXIES" in said


@pytest.mark.parametrize("fault", ["no key", "no certificate", "missing", "readable", "another's", "no PEM", "expired"])
def test_unusable_certificate_stops_the_start_with_an_explanation(tmp_path: Path, authority: Authority, fault: str) -> None:
    made = authority.sign(fault, datetime.now(UTC) - timedelta(minutes=1) if fault == "expired" else None)
    flags = ["--tls-cert", str(made.cert), "--tls-key", str(made.key)]
    said = {
        "no key": "TLS_CERT is set, but TLS_KEY is not",
        "no certificate": "TLS_KEY is set, but TLS_CERT is not",
        "missing": "cannot be read: No such file or directory",
        "readable": "can be read by every user of this machine",
        "another's": "do not match: key values mismatch",
        "no PEM": "is not a certificate in PEM",
        "expired": "UTC, not now",
    }
    match fault:
        case "no key":
            flags = flags[:2]
        case "no certificate":
            flags = flags[2:]
        case "missing":
            made.cert.unlink()
        case "readable":
            made.key.chmod(0o604)
        case "another's":
            shutil.copy(authority.sign("another").key, made.key)
        case "no PEM":
            made.cert.write_text("certificate")
    assert said[fault] in refused(tmp_path, *flags)


# --- TLS -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Platform]:
    made = authority.sign("server")
    with running(tmp_path_factory.mktemp("secure"), ["--tls-cert", str(made.cert), "--tls-key", str(made.key)]) as platform:
        yield platform


def test_rest_serves_tls_with_strict_transport_security(secure: Platform, authority: Authority) -> None:
    assert secure.url.startswith("https://")
    answer = httpx2.get(f"{secure.url}/v1", verify=authority.client(), trust_env=False)
    assert answer.json()["gateway_url"] == secure.gateway_url
    assert answer.headers["strict-transport-security"] == "max-age=31536000"


def test_plain_request_to_a_tls_listener_gets_no_answer(secure: Platform) -> None:
    with pytest.raises(httpx2.HTTPError):
        httpx2.get(secure.url.replace("https", "http"), trust_env=False)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("address", ["url", "gateway_url"])
def test_tls_before_1_2_is_refused(secure: Platform, authority: Authority, address: str) -> None:
    old = authority.client()
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    port = int(getattr(secure, address).split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port), BOUND_S) as plain, pytest.raises(ssl.SSLError):
        old.wrap_socket(plain, server_hostname="localhost")


async def test_an_agent_publishes_and_receives_over_tls(
    secure: Platform, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    assert secure.gateway_url.startswith("wss://")
    cast = await secure.tenant_with(agents=2)
    async with cast.agent(0) as writer, cast.agent(1) as reader:
        await writer.publish(cast.channels[0], {"over": "TLS"})
        async with asyncio.timeout(BOUND_S):
            message = await anext(reader.messages())
    assert message.data == {"over": "TLS"}


async def test_server_uses_tls_to_nats_and_verifies_its_certificate(tmp_path: Path, authority: Authority) -> None:
    made = authority.sign("nats")
    tls = ["--tls-cert", str(made.cert), "--tls-key", str(made.key), "--tls-ca", str(authority.file)]
    nats = NatsServers(tmp_path / "nats", 1, tls)
    flags = ["--nats-urls", nats.urls, "--secret-file", str(nats.secret), "--nats-ca"]
    platform = Platform(tmp_path / "up", [*flags, str(authority.file)], secret=nats.secret)
    nats.start()
    try:
        platform.start()
        cast = await platform.tenant_with(agents=1)
        async with cast.agent() as agent:
            await agent.publish(cast.channels[0], {"over": "TLS"})
        platform.stop()
        stranger = Authority(tmp_path)
        assert "CERTIFICATE_VERIFY_FAILED" in refused(tmp_path, *flags, str(stranger.file))
        assert "NATS_CA" in refused(tmp_path, *flags, str(nats.secret))
    finally:
        nats.end()


# --- from where, and how often -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running(tmp_path_factory.mktemp("limited"), LIMITS) as platform:
        yield platform


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory, limited: Platform) -> Cast:
    return asyncio.run(limited.tenant_with(agents=2))


@pytest.fixture(scope="module")
def web(limited: Platform) -> Iterator[httpx2.Client]:
    """A client that is fast enough for no limit to recover between two calls."""
    with httpx2.Client(base_url=limited.url, trust_env=False) as web:
        yield web


def behind(address: str) -> dict[str, str]:
    """Return the header of a proxy for a client at this address, which sent another address itself."""
    return {"X-Forwarded-For": f"203.0.113.1, {address}"}


def ask(web: httpx2.Client, address: str) -> httpx2.Response:
    return web.get("/health/live", headers=behind(address))


def test_rate_limit_of_an_address_applies_before_authentication_and_to_no_other(web: httpx2.Client) -> None:
    answers = [ask(web, "192.0.2.1") for _ in range(16)]
    assert [answer.status_code for answer in answers[:8]] == [200] * 8
    last = answers[-1]
    assert (last.status_code, last.json()["code"]) == (429, "too_fast")
    assert int(last.headers["retry-after"]) >= 1
    assert "requests from this address; wait" in last.json()["detail"]
    assert ask(web, "192.0.2.2").status_code == 200


def test_addresses_of_one_ipv6_site_share_a_limit(web: httpx2.Client) -> None:
    codes = [ask(web, f"2001:db8::{number:x}").status_code for number in range(16)]
    assert codes[-1] == 429
    assert ask(web, "2001:db8:0:1::1").status_code == 200


def test_claimed_address_is_ignored(web: httpx2.Client) -> None:
    claims = [{"X-Forwarded-For": f"198.51.100.{number}, 192.0.2.3"} for number in range(16)]
    codes = [web.get("/v1", headers=claim).status_code for claim in claims]
    assert codes[-1] == 429


def challenge(web: httpx2.Client, tenant: str, agent: str, address: str) -> httpx2.Response:
    body = {"tenant_id": tenant, "agent_id": agent}
    return web.post("/v1/auth/challenges", json=body, headers=behind(address))


def test_login_flood_locks_out_its_own_address_only(web: httpx2.Client, cast: Cast) -> None:
    flood = [challenge(web, cast.tenant, cast.agents[0], "192.0.2.10") for _ in range(3)]
    spoilt = {"challenge_id": flood[0].json()["challenge_id"], "signature": "-----BEGIN SSH SIGNATURE-----"}
    answer = web.post("/v1/auth/tokens", json=spoilt, headers=behind("192.0.2.10"))
    assert answer.status_code == 401
    last = challenge(web, cast.tenant, cast.agents[0], "192.0.2.10")
    assert (last.status_code, last.json()["code"]) == (429, "too_fast")  # Three, and one failure that counts as ten: thirteen.
    assert int(last.headers["retry-after"]) >= 1
    # The agent itself logs in from elsewhere, another agent from the same address, and one that does not exist is counted alike.
    assert challenge(web, cast.tenant, cast.agents[0], "192.0.2.11").status_code == 201
    assert challenge(web, cast.tenant, cast.agents[1], "192.0.2.10").status_code == 201


def test_unknown_agent_is_rate_limited_like_a_known_one(web: httpx2.Client, cast: Cast) -> None:
    codes = {}
    for agent, first in ((cast.agents[1], 20), ("agt_nobody", 30)):
        # Two addresses for the requests, of which each is bounded by itself too: one site, as logins count it.
        answers = [challenge(web, cast.tenant, agent, f"2001:db8:{first}::{number}") for number in range(10)]
        codes[agent] = [answer.status_code for answer in answers]
    assert codes[cast.agents[1]] == codes["agt_nobody"]


async def socket_from(limited: Platform, address: str, **headers: str) -> RawClient:
    more = {**behind(address), **headers}
    url = limited.gateway_url
    return RawClient(await connect(url, subprotocols=[PROTOCOL], compression=None, proxy=None, additional_headers=more))


async def test_socket_limit_of_an_address_does_not_affect_others(limited: Platform) -> None:
    opened = [await socket_from(limited, "192.0.2.40") for _ in range(4)]
    with pytest.raises(ConnectionClosedError) as closed:
        await opened[3].next()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4029
    assert "too many connections from this address" in closed.value.rcvd.reason
    other = await socket_from(limited, "192.0.2.41")
    assert "challenge" in (await other.ask("challenge", tenant_id="ten_a", agent_id="agt_a"))
    for raw in (*opened, other):
        await raw.socket.close()


async def test_challenges_on_sockets_are_rate_limited_like_those_of_rest(limited: Platform, web: httpx2.Client) -> None:
    replies = []
    for _ in range(3):
        raw = await socket_from(limited, "192.0.2.50")
        replies += [await raw.ask("challenge", tenant_id="ten_a", agent_id="agt_flooded") for _ in range(4)]
        await raw.socket.close()
    assert all("challenge_id" in reply for reply in replies)
    posed = challenge(web, "ten_a", "agt_flooded", "192.0.2.50")
    assert posed.json()["code"] == "too_fast"
    raw = await socket_from(limited, "192.0.2.51")
    assert "challenge_id" in await raw.ask("challenge", tenant_id="ten_a", agent_id="agt_flooded")
    await raw.socket.close()


# --- pages of a browser --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["https://app.example.com", "http://127.0.0.1:3000", "https://127.0.0.1"])
async def test_pages_of_allowed_origins_and_of_the_same_host_connect(limited: Platform, origin: str) -> None:
    raw = await socket_from(limited, "192.0.2.60", Origin=origin)
    await raw.socket.close()


@pytest.mark.parametrize(
    "origin", ["https://example.com", "http://app.example.com", "https://app.example.com.evil.example", "null", "https://[", ""]
)
async def test_pages_of_other_origins_do_not_connect(limited: Platform, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        await socket_from(limited, "192.0.2.70", Origin=origin)
    assert refusal.value.response.status_code == 403
    assert refusal.value.response.headers["X-Content-Type-Options"] == "nosniff"


def test_pages_of_other_origins_cannot_read_answers(web: httpx2.Client) -> None:
    asked = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "POST", **behind("192.0.2.80")}
    preflight = web.options("/v1/tenants", headers=asked)
    assert preflight.status_code == 405
    answer = web.get("/v1", headers=asked)
    for each in (preflight, answer):
        assert not [name for name in each.headers if name.startswith("access-control-")]
        assert each.headers["cache-control"] == "no-store"
        assert each.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
