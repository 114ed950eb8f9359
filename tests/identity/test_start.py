"""Error messages about the identity provider at server start."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import httpx2
import pytest

from tests.forked import run_artcafe
from tests.issuer import DISCOVERY_PATH, Issuer
from tests.plain_http import NO_AUTHORITIES
from tests.platform import running


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--issuer", "http://example.com", "--client-ids", "a"],
            "ISSUER is 'http://example.com', and anyone on the network path",
        ),
        (["--issuer", "https://example.com"], "ISSUER is set without CLIENT_IDS"),
        (["--issuer", "https://example.com", "--client-ids", ", ,"], "ISSUER is set without CLIENT_IDS"),
        (["--issuer", "https://example.com", "--client-ids", "a", "--jwks-url", "http://b"], "JWKS_URL is 'http://b'"),
        (["--client-ids", "a"], "CLIENT_IDS is set, but ISSUER is not"),
        (["--jwks-url", "https://example.com"], "JWKS_URL is set, but ISSUER is not"),
    ],
)
def test_wrong_setting_stops_the_start_with_a_message(tmp_path: Path, flags: list[str], words: str) -> None:
    done = run_artcafe(
        "up", "--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0", "--gateway-listen", "127.0.0.1:0", *flags
    )
    assert done.returncode == 3
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_issuer_naming_another_one_stops_the_start(tmp_path: Path) -> None:
    with Issuer() as issuer:
        issuer.discovery = {"issuer": "https://example.com"}
        done = run_artcafe("up", "--data-dir", str(tmp_path / "data"), "--issuer", issuer.url, "--client-ids", "a")
        assert done.returncode == 3
        assert f"people cannot log in: {issuer.url}{DISCOVERY_PATH} names the issuer 'https://example.com'" in done.stderr


def test_people_are_refused_until_their_issuer_is_reachable(tmp_path: Path) -> None:
    with Issuer() as issuer:
        issuer.go()
        with running(tmp_path, ["--issuer", issuer.url, "--client-ids", issuer.audience]) as platform:
            me, headers = f"{platform.url}/v1/me", {"Authorization": f"Bearer {issuer.token()}"}
            answer = httpx2.get(me, headers=headers, trust_env=False, verify=NO_AUTHORITIES)
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert answer.headers["retry-after"]
            assert platform.log().count("identity.keys_not_fetched") == 1
            assert f"an access token of {issuer.url}" in platform.log()
            assert "artcafe token" not in platform.log()
            # Agents and the health endpoint need no issuer.
            assert httpx2.get(f"{platform.url}/health/ready", trust_env=False, verify=NO_AUTHORITIES).status_code == 200
            issuer.come()
            until = time.monotonic() + 5
            while answer.status_code == 503 and time.monotonic() < until:
                threading.Event().wait(0.05)
                answer = httpx2.get(me, headers=headers, trust_env=False, verify=NO_AUTHORITIES)
            assert answer.json()["user_id"] == "alice"


def test_local_identity_is_off_with_an_issuer(tmp_path: Path) -> None:
    with running(tmp_path / "local") as platform:
        local = platform.token("alice")
        secret = str(platform.data / "secret")
    with Issuer() as issuer:
        flags = ["--issuer", issuer.url, "--client-ids", issuer.audience, "--secret-file", secret]
        with running(tmp_path / "oidc", flags) as platform:
            answer = httpx2.get(
                f"{platform.url}/v1/me", headers={"Authorization": f"Bearer {local}"}, trust_env=False, verify=NO_AUTHORITIES
            )
            assert answer.json()["code"] == "unauthenticated"
            done = run_artcafe("token", "--user", "alice", "--data-dir", str(platform.data))
            assert done.returncode == 3
            assert f"accepts only tokens of {issuer.url}" in done.stderr
