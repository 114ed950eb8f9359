"""Credentials and server of a command: access tokens, the local identity, and addresses."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from artcafe.data_dir import read_secret
from artcafe.identity.local import LocalIdentity
from artcafe.observe.clock import now
from artcafe.rules.secrets import derive
from artcafe.sdk.client import Client
from artcafe.sdk.keys import load_signer
from tests.cli.manage.shell_user import Person, closed_port
from tests.platform import Cast, Platform


def test_unreachable_server_exits_with_4_and_prints_the_remedy(owner: Person) -> None:
    done = owner.but(URL=f"http://127.0.0.1:{closed_port()}").run("tenant", "list")
    assert (done.code, done.stdout) == (4, "")
    assert "connection refused" in done.stderr
    assert "is a server running there? Set another address with --url or ARTCAFE_URL" in done.stderr


def test_invalid_token_exits_with_3_or_2(owner: Person) -> None:
    refused = owner.but(TOKEN="eyJhbGciOiJub25lIn0.e30.").run("tenant", "list", "--json")
    assert (refused.code, refused.error["code"]) == (3, "unauthenticated")
    for text in ("two words", "é", "line\nbreak"):
        done = owner.but(TOKEN=text).run("tenant", "list")
        assert (done.code, "is invalid: it contains spaces" in done.stderr) == (2, True)


def test_missing_token_and_server_print_the_remedy(owner: Person, tmp_path: Path) -> None:
    nobody = owner.without("TOKEN", "URL")
    done = nobody.run("tenant", "list")
    assert done.code == 2
    assert "no access token: give --token or ARTCAFE_TOKEN" in done.stderr
    assert "start a server with 'artcafe up'" in done.stderr
    (tmp_path / "stopped").mkdir()
    done = nobody.but(DATA_DIR=str(tmp_path / "stopped")).run("tenant", "list")
    assert done.code == 4
    assert f"no artcafe runs on the data folder {tmp_path / 'stopped'}; start it (artcafe up --data-dir" in done.stderr


def test_local_identity_token_is_sent_only_to_the_local_server(owner: Person, platform: Platform) -> None:
    here = Person({"DATA_DIR": str(platform.data), "USER": "local@example.com"})
    assert here.run("tenant", "list", "--json").json == []
    port = platform.url.rpartition(":")[2]
    assert here.run("tenant", "list", "--json", "--url", f"http://localhost:{port}").json == []
    elsewhere = here.run("tenant", "list", "--url", "https://artcafe.example.com")
    assert elsewhere.code == 2
    assert "no access token for https://artcafe.example.com: give --token or ARTCAFE_TOKEN" in elsewhere.stderr
    assert f"is at {platform.url}; omit --url to use it" in elsewhere.stderr
    assert here.run("tenant", "list", "--url", "ws://127.0.0.1:1").code == 3


def test_empty_variable_counts_as_absent(platform: Platform) -> None:
    empty = dict.fromkeys(("AGENT", "CONFIG", "ID_TOKEN", "KEY", "TENANT", "TOKEN", "URL"), "")
    here = Person({**empty, "DATA_DIR": str(platform.data), "USER": "empty-variables@example.com"})
    assert here.run("tenant", "list", "--json").json == []


def test_token_is_sent_to_the_data_folders_server_by_default(home: Cast, platform: Platform) -> None:
    person = Person({"DATA_DIR": str(platform.data), "TOKEN": f" {home.token}\n", "USER": "ignored@example.com"})
    assert [each["id"] for each in person.run("tenant", "list", "--json").json] == [home.tenant]


def test_default_user_is_the_systems_user(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "carol")
    done = Person({"DATA_DIR": str(platform.data)}).run("tenant", "list")
    assert done.stderr.startswith("artcafe: carol@localhost is in no tenant yet")


def test_unknown_tenant_error_names_the_current_user(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "carol")
    done = Person({"DATA_DIR": str(platform.data)}).run("channel", "list", "--tenant", "ten_1")
    assert done.code == 3
    assert (
        "among yours; list them with 'artcafe tenant list'\n  you are carol@localhost; --user shows another user's tenants"
        in done.stderr
    )


def test_agents_token_selects_its_own_tenant(populated: Cast, member: Person) -> None:
    async def token() -> str:
        async with Client(populated.url) as rest:
            return (await rest.login(populated.tenant, populated.agents[0], load_signer(populated.keys[0]))).access_token

    agent = member.but(TOKEN=asyncio.run(token()))
    (card,) = agent.run("agent", "list", "--json").json
    assert (card["id"], card["public_key"]) == (populated.agents[0], None)
    assert len(agent.run("channel", "history", populated.channels[0], "--json").json) == 20
    refused = agent.run("channel", "create", "not for agents", "--json")
    assert (refused.code, refused.error["code"]) == (3, "forbidden")


def test_expired_token_exits_with_3(platform: Platform, owner: Person) -> None:
    identity = LocalIdentity(derive(read_secret(platform.data / "secret"), "local-identity"))
    done = owner.but(TOKEN=identity.issue("late@example.com", now() - timedelta(days=2))).run("tenant", "list", "--json")
    assert (done.code, done.error["code"]) == (3, "credentials_expired")
