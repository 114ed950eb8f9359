"""The commands `member`, `invitation`, `me` and `terms`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from artcafe.cli.commands import artcafe
from tests.aws import Aws
from tests.cognito import Pool
from tests.platform import Platform, running

OWNER, BOB = "owner.of.this@example.com", "bob.of.this@example.com"
UNSET = {f"ARTCAFE_{name}": None for name in ("TOKEN", "ID_TOKEN", "TENANT", "URL", "USER")}


class LocalUser:
    """A user of the command line on the server's machine."""

    def __init__(self, platform: Platform, user: str) -> None:
        self._options = ["--url", platform.url, "--data-dir", str(platform.data), "--user", user]

    def run(self, *arguments: str, code: int = 0, stdin: str = "") -> str:
        """Run a command, and return its output on both streams."""
        ends = arguments.index("--") if "--" in arguments else len(arguments)
        command = [*arguments[:ends], *self._options, *arguments[ends:]]
        result = CliRunner().invoke(artcafe, command, env=UNSET, input=stdin)
        assert result.exit_code == code, result.output
        return result.output

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json"))


@pytest.fixture
def owner(platform: Platform) -> LocalUser:
    return LocalUser(platform, OWNER)


@pytest.fixture
def bob(platform: Platform) -> LocalUser:
    return LocalUser(platform, BOB)


def test_members_are_invited_change_roles_and_leave(owner: LocalUser, bob: LocalUser) -> None:
    tenant = owner.json("tenant", "create", "Acme")["id"]
    here = ("--tenant", tenant)
    invited = owner.json("member", "invite", BOB, "--role", "viewer", *here)
    assert invited["id"] in owner.run("invitation", "list", *here)
    assert bob.json("invitation", "accept", invited["token"])["id"] == tenant
    assert "admin" in owner.run("member", "role", BOB, "admin", *here)
    members = owner.json("member", "list", *here)
    assert [(each["user_id"], each["role"]) for each in members] == [(BOB, "admin"), (OWNER, "owner")]
    bob.run("member", "leave", "--yes", *here)
    spare = owner.json("member", "invite", BOB, *here)
    owner.run("invitation", "revoke", spare["id"], *here)
    assert owner.json("invitation", "list", *here) == []
    assert owner.json("terms", "show")["version"] is None


def test_invitation_token_is_read_from_stdin_or_a_file(owner: LocalUser, bob: LocalUser, tmp_path: Path) -> None:
    tenant = owner.json("tenant", "create", "Acme")["id"]
    file = tmp_path / "invitation.txt"
    for arguments, with_stdin in (((), True), (("-",), True), ((str(file),), False)):
        token = owner.json("member", "invite", BOB, "--tenant", tenant)["token"]
        file.write_text(f"{token}\n")
        joined = bob.run("invitation", "accept", *arguments, stdin=f" {token}\n" if with_stdin else "")
        assert tenant in joined
        bob.run("member", "leave", "--yes", "--tenant", tenant)
    assert "invitation is not valid" in bob.run("invitation", "accept", "artcafe-invitation.x.y.z", code=3)
    for stdin in ("", " \n", "two\nlines", "x" * 5000):
        assert "standard input contains no invitation token" in bob.run("invitation", "accept", code=2, stdin=stdin)
    assert "cannot be read: is a directory" in bob.run("invitation", "accept", str(tmp_path), code=2)


@pytest.mark.parametrize(
    "user", ["samlp|corp|ab/cd==@example.com", "a%2Fb@example.com", "-x@example.com", "https://e.example/?a#b@c"]
)
def test_member_commands_accept_any_user_id_of_the_provider(platform: Platform, owner: LocalUser, user: str) -> None:
    tenant = owner.json("tenant", "create", "Acme")["id"]
    here = ("--tenant", tenant)
    invited = json.loads(owner.run("member", "invite", "--json", *here, "--", user))
    LocalUser(platform, user).run("invitation", "accept", invited["token"])
    assert "admin" in owner.run("member", "role", *here, "--", user, "admin")
    owner.run("member", "remove", "--yes", *here, "--", user)
    assert [each["user_id"] for each in owner.json("member", "list", *here)] == [OWNER]


def test_removed_member_loses_access(owner: LocalUser, bob: LocalUser) -> None:
    tenant = owner.json("tenant", "create", "Acme")["id"]
    here = ("--tenant", tenant)
    bob.run("invitation", "accept", owner.json("member", "invite", BOB, *here)["token"])
    assert tenant in bob.run("me")
    assert "confirm with --yes" in owner.run("member", "remove", BOB, *here, code=2)
    assert owner.run("member", "remove", BOB, "--yes", *here) == f"Deleted the membership of {BOB}.\n"
    assert tenant not in bob.run("me")
    assert f"no tenant '{tenant}' among yours" in bob.run("tenant", "show", tenant, code=3)
    assert "last owner" in owner.run("member", "remove", OWNER, "--yes", *here, code=3)
    for command in (("member", "remove", BOB, "--yes"), ("member", "role", BOB, "viewer")):
        assert "from 'artcafe member list'" in owner.run(*command, *here, code=3)
    assert "list them with 'artcafe invitation list'" in owner.run("invitation", "revoke", "inv_none", *here, code=3)


def test_me_shows_user_id_tenants_and_terms(owner: LocalUser) -> None:
    tenant = owner.json("tenant", "create", "Acme")["id"]
    me = owner.json("me")
    assert me["user_id"] == OWNER
    assert {"tenant_id": tenant, "name": "Acme", "role": "owner"} in me["tenants"]
    assert me["terms_outstanding"] is None
    assert f"user_id      {OWNER}\n" in owner.run("me")


# --- with an issuer, and terms ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pool(aws: Aws) -> Pool:
    return Pool(aws)


def run(platform: Platform, token: str, *arguments: str, code: int = 0, **environ: str) -> str:
    """Run a command with an access token, and return its output."""
    given = {**UNSET, "ARTCAFE_TOKEN": token, "ARTCAFE_URL": platform.url, **environ}
    result = CliRunner().invoke(artcafe, arguments, env=given)
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def platform_with_terms(pool: Pool, tmp_path: Path) -> Iterator[Platform]:
    with running(tmp_path, [*pool.flags, "--terms-version", "2026-11"]) as platform:
        yield platform


def test_terms_are_required_first_and_invitations_require_an_id_token(platform_with_terms: Platform, pool: Pool) -> None:
    server, alice, bob = platform_with_terms, pool.person(), pool.person()
    for command in (("tenant", "list"), ("agent", "list"), ("invitation", "accept", "x")):
        assert "read them with 'artcafe terms show'" in run(server, alice.access_token, *command, code=3)
    assert "terms_outstanding  version 2026-11" in run(server, alice.access_token, "me")
    assert "version  2026-11" in run(server, alice.access_token, "terms", "show")
    refused = run(server, alice.access_token, "terms", "accept", "2025-01", code=3)
    assert "not the current version" in refused
    accepted = json.loads(run(server, alice.access_token, "terms", "accept", "2026-11", "--json"))
    assert (accepted["user_id"], accepted["version"], accepted["ip_address"]) == (alice.user_id, "2026-11", "127.0.0.1")
    assert "terms_outstanding" not in run(server, alice.access_token, "me")

    tenant = json.loads(run(server, alice.access_token, "tenant", "create", "Acme", "--json"))["id"]
    token = json.loads(run(server, alice.access_token, "member", "invite", bob.email, "--json"))["token"]
    run(server, bob.access_token, "terms", "accept", "2026-11")
    assert "--id-token" in run(server, bob.access_token, "invitation", "accept", token, code=3)
    joined = run(server, bob.access_token, "invitation", "accept", token, "--json", ARTCAFE_ID_TOKEN=bob.id_token)
    assert json.loads(joined)["id"] == tenant


def test_terms_in_their_grace_period_are_noted_until_accepted(pool: Pool, tmp_path: Path) -> None:
    alice = pool.person()
    with running(tmp_path, [*pool.flags, "--terms-version", "2026-11"]) as server:
        run(server, alice.access_token, "terms", "accept", "2026-11")
        run(server, alice.access_token, "tenant", "create", "Acme")
    grace = ["--terms-grace-until", "2199-12-31T00:00:00Z"]
    with running(tmp_path, [*pool.flags, "--terms-version", "2027-01", *grace]) as server:
        note = "accept version 2027-01 of the terms by 2199-12-31T00:00:00Z"
        for command in (("tenant", "list"), ("agent", "list")):
            assert note in run(server, alice.access_token, *command)
        run(server, alice.access_token, "terms", "accept", "2027-01")
        assert "terms" not in run(server, alice.access_token, "tenant", "list")
