"""`artcafe console`: the address of the web console, with a code that signs the user in."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2

from tests.forked import run_artcafe
from tests.issuer import Issuer
from tests.platform import Platform, running


def test_address_has_a_code_that_signs_the_user_in_once(platform: Platform) -> None:
    done = run_artcafe("console", "--no-open", "--json", "--user", "alice@example.com", "--data-dir", platform.data)
    assert done.returncode == 0, done.stderr
    address, code = json.loads(done.stdout)["url"].split("#code=")
    assert address == f"{platform.url}/console"
    first, second = (httpx2.post(f"{platform.url}/v1/auth/console-tokens", json={"code": code}) for _ in range(2))
    assert (second.status_code, second.json()["code"]) == (401, "bad_code")
    me = httpx2.get(f"{platform.url}/v1/me", headers={"Authorization": f"Bearer {first.json()['access_token']}"})
    assert me.json()["user_id"] == "alice@example.com"


def test_address_at_an_issuer_has_no_code(tmp_path: Path) -> None:
    with Issuer() as issuer, running(tmp_path, ("--issuer", issuer.url, "--client-ids", issuer.audience)) as platform:
        done = run_artcafe("console", "--no-open", "--data-dir", platform.data)
        assert done.stdout == f"{platform.url}/console\n"
