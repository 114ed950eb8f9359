from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from tests.cli.manage.shell_user import Person
from tests.platform import Cast, Platform


@pytest.fixture
async def cast(platform: Platform) -> Cast:
    """Return a tenant in which two agents have logged in."""
    cast = await platform.tenant_with(agents=2)
    for number in range(2):
        async with cast.agent(number):
            pass
    async with asyncio.timeout(20), cast.rest() as rest:
        while len([entry async for entry in rest.tenant(cast.tenant).audit.list()]) < 2:  # noqa: ASYNC110 (an audit log has no notifications)
            await asyncio.sleep(0.02)
    return cast


@pytest.fixture
def admin(cast: Cast) -> Person:
    return Person({"URL": cast.url, "TOKEN": cast.token})


def exported(admin: Person, folder: Path) -> list[dict[str, object]]:
    (folder / "audit.jsonl").write_text(admin.run("audit", "export").stdout)
    return [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]


def test_admin_lists_logins(cast: Cast, admin: Person) -> None:
    listed = admin.run("audit", "list").stdout
    for agent in cast.agents:
        assert re.search(rf"agent\.login +{agent} +done", listed)
    assert len(admin.run("audit", "list", "--limit", "1", "--json").json) == 1


def test_list_filters_by_agent_action_and_time(cast: Cast, admin: Person) -> None:
    def found(*filters: str) -> list[dict[str, object]]:
        listed: list[dict[str, object]] = admin.run("audit", "list", "--json", *filters).json
        return listed

    logins = found("--agent", cast.agents[0], "--action", "agent.login", "--since", "1h")
    assert {(each["actor"], each["action"]) for each in logins} == {(cast.agents[0], "agent.login")}
    assert {each["target"] for each in found("--agent", cast.agents[1], "--action", "agent.create")} == {cast.agents[1]}
    assert found("--until", "2026-01-01") == []
    assert "no entry matches" in admin.run("audit", "list", "--until", "2026-01-01").stderr


def test_verify_and_check_of_an_export_agree(admin: Person, tmp_path: Path) -> None:
    verified = admin.run("audit", "verify", "--json").json
    entries = exported(admin, tmp_path)
    assert verified == {"entries": len(entries), "until": f"{entries[-1]['number']}:{entries[-1]['digest']}"}
    checked = admin.run("audit", "check", str(tmp_path / "audit.jsonl"), "--until", verified["until"])
    assert checked.stdout == f"{len(entries)} entries, all unchanged. The last one is {verified['until']}\n"
    again = admin.run("audit", "verify", "--until", verified["until"])
    assert (again.code, "audit begins with" in again.stderr) == (0, False)


def test_check_detects_changed_removed_and_truncated_entries(admin: Person, tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    entries = exported(admin, tmp_path)
    until = f"{entries[-1]['number']}:{entries[-1]['digest']}"

    def refused(changed: list[dict[str, object]], *more: str) -> str:
        file.write_text("".join(json.dumps(entry) + "\n" for entry in changed))
        done = admin.run("audit", "check", str(file), *more)
        assert (done.code, done.stdout) == (3, "")
        return done.stderr

    assert "entry 2 of the audit does not contain the digest" in refused([{**entries[0], "actor": "agt_other"}, *entries[1:]])
    assert f"entry {len(entries)} of the audit does not match its digest" in refused(
        [*entries[:-1], {**entries[-1], "actor": "agt_other"}]
    )
    assert "entry 1 of the audit is missing" in refused(entries[1:])
    assert f"entry {len(entries)} of the audit is missing or differs" in refused(entries[:-1], "--until", until)


def test_check_of_a_file_without_audit_entries_exits_with_2(admin: Person, tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").write_text("{}\n")
    done = admin.run("audit", "check", str(tmp_path / "audit.jsonl"))
    assert done.code == 2
    assert "line 1 of" in done.stderr
    assert "NUMBER:DIGEST" in admin.run("audit", "verify", "--until", "x").stderr
