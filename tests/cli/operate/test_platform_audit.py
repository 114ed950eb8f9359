"""`artcafe platform audit` with a running, a stopped and a restored server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from artcafe.cli.commands import artcafe
from tests.platform import Cast, Platform, running


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(artcafe, [str(each) for each in arguments])


def until(data: Path, *more: str) -> str:
    """Verify an audit, and return its last entry for `--until`."""
    done = run("platform", "audit", "verify", "--data-dir", data, "--json", *more)
    assert done.exit_code == 0, done.output
    return str(json.loads(done.stdout)["until"])


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running(tmp_path_factory.mktemp("platform")) as platform:
        yield platform


def deleted(platform: Platform) -> Cast:
    """Create a tenant with an agent and a channel, and delete it."""
    cast = asyncio.run(platform.tenant_with())

    async def delete() -> None:
        async with cast.rest() as owner:
            await owner.tenant(cast.tenant).delete()

    asyncio.run(delete())
    return cast


def test_audits_of_the_platform_and_of_a_deleted_tenant_are_read(platform: Platform, tmp_path: Path) -> None:
    cast = deleted(platform)
    listed = " ".join(run("platform", "audit", "list", "--data-dir", platform.data).stdout.split())
    assert f"tenant.delete usr:owner-1@example.com done {cast.tenant}" in listed
    assert len(json.loads(run("platform", "audit", "list", "--limit", "1", "--data-dir", platform.data, "--json").stdout)) == 1

    exported = run("platform", "audit", "export", "--tenant", cast.tenant, "--data-dir", platform.data).stdout
    entries = [json.loads(line) for line in exported.splitlines() if line.startswith("{")]
    assert [each["action"] for each in entries if each["outcome"] == "done"] == [
        "tenant.create",
        "agent.create",
        "channel.create",
        "subscription.create",
        "tenant.delete",
    ]
    (tmp_path / "audit.jsonl").write_text("".join(json.dumps(each) + "\n" for each in entries))
    checked = run("audit", "check", tmp_path / "audit.jsonl", "--until", until(platform.data, "--tenant", cast.tenant))
    assert checked.exit_code == 0, checked.output


def test_until_option_detects_a_truncated_audit(platform: Platform) -> None:
    deleted(platform)
    last, _, digest = until(platform.data).partition(":")
    missed = run("platform", "audit", "verify", "--until", f"{int(last) + 1}:{digest}", "--data-dir", platform.data)
    assert (missed.exit_code, f"entry {int(last) + 1} of the audit is missing or differs" in missed.output) == (3, True)


def test_audit_without_entries_is_empty(platform: Platform) -> None:
    listed = run("platform", "audit", "list", "--tenant", "ten_none", "--data-dir", platform.data)
    assert (listed.exit_code, "the audit is empty" in listed.output) == (0, True)
    verified = run("platform", "audit", "verify", "--tenant", "ten_none", "--data-dir", platform.data)
    assert (verified.exit_code, "begins with nothing instead of the tenant's creation" in verified.stderr) == (0, True)
    assert until(platform.data, "--tenant", "ten_none") == "0:"


@pytest.mark.timeout(120)  # Two servers, and a nats-server for each command in between.
def test_chains_stay_valid_and_continue_after_a_restore(tmp_path: Path) -> None:
    with running(tmp_path / "first") as first:
        gone, cast = deleted(first), asyncio.run(first.tenant_with())
        chains: list[tuple[str, ...]] = [(), ("--tenant", gone.tenant), ("--tenant", cast.tenant)]
        ends = [until(first.data, *chain) for chain in chains]
        saved = run("backup", "--data-dir", first.data, tmp_path / "backup.tar", "--json")
        assert saved.exit_code == 0, saved.output
    second = tmp_path / "second" / "data"
    second.parent.mkdir()
    restored = run("restore", tmp_path / "backup.tar", "--data-dir", second, "--json")
    assert restored.exit_code == 0, restored.output
    assert [until(second, *chain) for chain in chains] == ends
    assert run("suspend", cast.tenant, "--data-dir", second).exit_code == 0
    for chain, end in zip(chains, ends, strict=True):
        after = until(second, *chain, "--until", end)
        assert (after == end) is (gone.tenant in chain)
