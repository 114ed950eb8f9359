from __future__ import annotations

import json

from click.testing import CliRunner

from artcafe.cli.commands import artcafe
from tests.platform import Platform


def test_people_come_in_get_roles_and_go(platform: Platform) -> None:
    def run(user: str, *arguments: str) -> str:
        options = ["--url", platform.url, "--data-dir", str(platform.data), "--user", user]
        environ = {f"ARTCAFE_{name}": None for name in ("TOKEN", "TENANT", "URL", "USER")}
        result = CliRunner().invoke(artcafe, [*arguments, *options], env=environ)
        assert result.exit_code == 0, result.output
        return result.stdout

    owner, bob = "owner.of.this@example.com", "bob.of.this@example.com"
    tenant = json.loads(run(owner, "tenant", "create", "Acme", "--json"))["id"]
    invited = json.loads(run(owner, "member", "invite", bob, "--role", "viewer", "--json"))
    assert invited["id"] in run(owner, "invitation", "list")
    assert json.loads(run(bob, "invitation", "accept", invited["token"], "--json"))["id"] == tenant
    assert "admin" in run(owner, "member", "role", bob, "admin")
    members = json.loads(run(owner, "member", "list", "--json"))
    assert [(each["user_id"], each["role"]) for each in members] == [(bob, "admin"), (owner, "owner")]
    run(bob, "member", "leave", "--yes")
    spare = json.loads(run(owner, "member", "invite", bob, "--json"))
    run(owner, "invitation", "revoke", spare["id"])
    assert json.loads(run(owner, "invitation", "list", "--json")) == []
    assert json.loads(run(owner, "terms", "show", "--json"))["version"] is None
