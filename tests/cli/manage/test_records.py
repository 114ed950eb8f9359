"""Commands that create, list, change and delete records, and read and publish messages."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from tests import ssh_keygen
from tests.casts import recast
from tests.cli.manage.shell_user import Person, public_key
from tests.platform import Cast, Platform

# --- session ---------------------------------------------------------------------------------------------------------------


def test_session_from_first_tenant_to_last_deletion(platform: Platform, tmp_path: Path) -> None:
    alice = Person({"DATA_DIR": str(platform.data), "USER": "stranger@example.com"})
    assert alice.run("tenant", "list").stderr.startswith("artcafe: stranger@example.com is in no tenant yet; create one: artcafe")
    tenant = alice.run("tenant", "create", "Acme").fields
    assert (tenant["name"], tenant["role"]) == ("Acme", "owner")
    assert alice.run("tenant", "rename", tenant["id"], "Acme Ltd").fields["name"] == "Acme Ltd"
    assert alice.run("tenant", "show").fields["id"] == tenant["id"]

    made = alice.run("agent", "create", "scout", "--public-key", public_key(tmp_path), "--capability", "search")
    assert made.stderr == f"artcafe: in tenant {tenant['id']} (Acme Ltd)\n"
    agent = made.fields
    assert agent["fingerprint"] == ssh_keygen.fingerprint(ssh_keygen.public_line(tmp_path / "key"))
    channel = alice.run("channel", "create", "news", "--description", "What is new").fields
    assert (channel["type"], channel["access"], channel["description"]) == ("broadcast", "open", "What is new")
    subscription = ["--channel", channel["id"], "--agent", agent["id"]]
    assert alice.run("subscription", "create", *subscription).fields["status"] == "active"

    assert re.fullmatch(r"#\d+ msg_\w+\n", alice.run("channel", "publish", channel["id"], '{"hello": "world"}').stdout)
    shown = alice.run("channel", "history", channel["id"]).stdout
    assert re.fullmatch(r'[\d-]+T[\d:]+Z #\d+ usr:stranger@example\.com: {"hello": "world"}\n', shown)

    assert alice.run("subscription", "pause", *subscription).stdout.startswith("Paused: ")
    assert alice.run("subscription", "show", *subscription).fields["status"] == "paused"
    assert alice.run("subscription", "resume", *subscription).stdout.startswith("Resumed: ")
    assert "is disabled" in alice.run("agent", "disable", agent["id"]).stdout
    assert alice.run("agent", "show", agent["id"]).fields["status"] == "disabled"
    assert "is active" in alice.run("agent", "enable", agent["id"]).stdout

    assert alice.run("subscription", "delete", *subscription, "--yes").stdout.startswith("Deleted the subscription of agent")
    for kind, thing in (("agent", agent), ("channel", channel), ("tenant", tenant)):
        name = thing.get("handle", "Acme Ltd")
        assert alice.run(kind, "delete", thing["id"], "--yes").stdout == f"Deleted {kind} {thing['id']} ({name}).\n"
        assert alice.run(kind, "show", thing["id"], "--json").code != 0
    assert alice.run("tenant", "list", "--json").json == []


def test_lists_print_tables_or_json_arrays(owner: Person, home: Cast, tmp_path: Path) -> None:
    cast = asyncio.run(recast_empty(home, tmp_path))
    for kind, head in (
        ("tenant", "ID NAME ROLE PLAN CREATED"),
        ("agent", "HANDLE ID NAME STATUS"),
        ("channel", "HANDLE ID NAME TYPE ACCESS"),
    ):
        found = owner.run(kind, "list", "--json").json
        lines = owner.run(kind, "list").stdout.splitlines()
        assert " ".join(lines[0].split()).startswith(head)
        named = [[each[column.lower()] for column in head.split()[: head.split().index("NAME")]] for each in found]
        assert [line.split()[: len(named[0])] for line in lines[1:]] == named
        at = lines[0].index("NAME")
        assert all(line[at:].startswith(each["name"]) for line, each in zip(lines[1:], found, strict=True))
    by_channel = owner.run("subscription", "list", "--channel", cast.channels[0], "--json").json
    by_agent = owner.run("subscription", "list", "--agent", cast.agents[0], "--json").json
    assert [each["id"] for each in by_channel] == [each["id"] for each in by_agent] == [f"{cast.channels[0]}#{cast.agents[0]}"]
    assert owner.run("subscription", "list", "--channel", cast.channels[0]).stdout.splitlines()[1].split() == [
        by_channel[0]["channel_handle"],
        by_channel[0]["agent_handle"],
        "active",
        "receive",
        "#0",
        "0",
    ]


async def recast_empty(home: Cast, folder: Path) -> Cast:
    """Create an agent and a channel in an empty tenant."""
    key = ssh_keygen.make_key(folder / "first")
    return await recast(Cast(home.tenant, [], [], [key], home.url, home.token))


def test_json_output_equals_the_rest_response(owner: Person, tmp_path: Path) -> None:
    agent = owner.run("agent", "create", "日本 scout", "--public-key", public_key(tmp_path), "--json").json
    assert owner.run("agent", "show", agent["id"], "--json").json["created_at"] == agent["created_at"]
    assert (agent["name"], agent["capabilities"], agent["description"]) == ("日本 scout", [], "")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", agent["created_at"])
    assert owner.run("agent", "delete", agent["id"], "--yes", "--json").json == {"id": agent["id"], "deleted": True}


def test_update_changes_only_the_given_fields(owner: Person, tmp_path: Path) -> None:
    made = owner.run(
        "agent", "create", "a", "--public-key", public_key(tmp_path), "--capability", "x", "--description", "d", "--json"
    ).json
    changed = owner.run("agent", "update", made["id"], "--name", "b", "--json").json
    assert {name for name in made if made[name] != changed[name]} == {"name", "updated_at"}
    line = ssh_keygen.public_line(ssh_keygen.make_key(tmp_path / "other"))
    changed = owner.run(
        "agent", "update", made["id"], "--public-key", line, "--no-capabilities", "--description", "", "--json"
    ).json
    assert (changed["capabilities"], changed["description"]) == ([], "")
    assert changed["fingerprint"] == ssh_keygen.fingerprint(line)
    channel = owner.run("channel", "create", "c", "--access", "managed", "--type", "live", "--json").json
    changed = owner.run("channel", "update", channel["id"], "--access", "open", "--name", "d", "--json").json
    assert {name for name in channel if channel[name] != changed[name]} == {"name", "access", "updated_at"}


def test_retention_option_sets_seconds_or_the_plans_retention(owner: Person) -> None:
    channel = owner.run("channel", "create", "brief", "--retention", "12h", "--json").json
    assert channel["retention_s"] == 12 * 3600
    for text, seconds in (("90", 90), ("90s", 90), ("15m", 900), ("7d", 7 * 86400), ("plan", None)):
        assert owner.run("channel", "update", channel["id"], "--retention", text, "--json").json["retention_s"] == seconds
    refused = owner.run("channel", "update", channel["id"], "--retention", "9999d", "--json")
    assert (refused.code, refused.error["message"].startswith("retention_s would be 863913600, and ")) == (3, True)


def test_limits_show_number_use_and_rest_and_owner_chooses_a_plan_on_offer(owner: Person, home: Cast) -> None:
    shown = owner.run("limits", "--json").json
    agents = next(each for each in shown["items"] if each["name"] == "agents")
    assert (shown["plan"], agents["limit"], agents["left"]) == ("free", 100, 100 - agents["used"])
    lines = owner.run("limits").stdout.splitlines()
    assert (lines[0].split(), lines[1].split()[:3]) == (
        ["LIMIT", "NUMBER", "USED", "LEFT", "RESETS", "AT"],
        ["agents", "100", str(agents["used"])],
    )
    assert owner.run("tenant", "choose-plan", home.tenant, "free", "--json").json["plan"] == "free"
    refused = owner.run("tenant", "choose-plan", home.tenant, "business", "--json")
    assert (refused.code, refused.error["code"]) == (3, "forbidden")
    assert owner.run("tenant", "choose-plan", home.tenant, "gold", "--json").error["code"] == "invalid"


def test_permission_option_sets_permissions_in_a_managed_channel(owner: Person, tmp_path: Path) -> None:
    agent = owner.run("agent", "create", "a", "--public-key", public_key(tmp_path), "--json").json["id"]
    channel = owner.run("channel", "create", "m", "--access", "managed", "--json").json["id"]
    named = ["--channel", channel, "--agent", agent]
    assert owner.run("subscription", "create", *named, "--json").json["permissions"] == ["receive"]
    both = owner.run("subscription", "create", *named, "--permission", "publish", "--permission", "receive", "--json").json
    assert both["permissions"] == ["publish", "receive"]
    assert owner.run("subscription", "create", *named, "--json").json["permissions"] == both["permissions"]


def test_agents_are_filtered_by_capability_status_and_presence(owner: Person, tmp_path: Path) -> None:
    one = owner.run("agent", "create", "one", "--public-key", public_key(tmp_path, "1"), "--capability", "juggle", "--json").json
    two = owner.run("agent", "create", "two", "--public-key", public_key(tmp_path, "2"), "--capability", "juggle", "--json").json
    owner.run("agent", "disable", two["id"])
    found = {
        flags: [each["id"] for each in owner.run("agent", "list", "--capability", "juggle", *flags, "--json").json]
        for flags in ((), ("--status", "active"), ("--status", "disabled"), ("--away",), ("--connected",))
    }
    assert found == {
        (): [one["id"], two["id"]],
        ("--status", "active"): [one["id"]],
        ("--status", "disabled"): [two["id"]],
        ("--away",): [one["id"], two["id"]],
        ("--connected",): [],
    }


def test_idempotency_key_creates_one_channel_for_repeated_commands(owner: Person) -> None:
    first, again = (owner.run("channel", "create", "once", "--idempotency-key", "k-1", "--json").json for _ in range(2))
    assert first == again
    other = owner.run("channel", "create", "twice", "--idempotency-key", "k-1", "--json")
    assert (other.code, other.error["code"]) == (3, "idempotency_mismatch")


def test_keys_are_added_disabled_enabled_revoked_and_expire(owner: Person, tmp_path: Path) -> None:
    agent = owner.run("agent", "create", "scout", "--public-key", public_key(tmp_path)).fields["id"]
    added = owner.run("agent", "key", "add", agent, "--public-key", public_key(tmp_path, "new"), "--json").json
    listed = owner.run("agent", "key", "list", agent).stdout.splitlines()
    assert listed[0].split() == ["ID", "FINGERPRINT", "STATUS", "ADDED", "UNTIL"]
    first = next(line.split()[0] for line in listed if "active (first)" in line)
    assert first != added["id"]
    assert "is disabled" in owner.run("agent", "key", "disable", agent, first).stdout
    assert owner.run("agent", "show", agent).fields["public_key"] == added["public_key"]
    assert "is active" in owner.run("agent", "key", "enable", agent, first).stdout
    assert owner.run("agent", "key", "revoke", agent, first, "--yes").stdout == f"Deleted key {first} of agent {agent}.\n"
    assert owner.run("agent", "key", "revoke", agent, added["id"], "--yes", "--json").error["code"] == "conflict"
    ending = owner.run("agent", "key", "add", agent, "--public-key", public_key(tmp_path, "x"), "--until", "2126-01-01T00:00:00Z")
    assert ending.fields["not_after"] == "2126-01-01T00:00:00Z"
    for wrong in ("tomorrow", "2126-01-01T25:00:00"):
        refused = owner.run("agent", "key", "add", agent, "--public-key", str(tmp_path / "x.pub"), "--until", wrong)
        assert (refused.code, "is not a valid time" in refused.stderr) == (2, True)


# --- pages and history ----------------------------------------------------------------------------------------------------


def test_lists_read_all_pages_unless_limited(owner: Person, home: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fill() -> None:
        async with home.rest() as rest, asyncio.TaskGroup() as group:
            for number in range(60):
                group.create_task(rest.tenant(home.tenant).channels.create(f"channel {number}"))

    asyncio.run(fill())
    all_of_them = [each["id"] for each in owner.run("channel", "list", "--json").json]
    assert len(set(all_of_them)) == len(all_of_them) >= 60
    monkeypatch.setattr("artcafe.sdk.http.PAGE", 7)
    assert [each["id"] for each in owner.run("channel", "list", "--json").json] == all_of_them
    assert [each["id"] for each in owner.run("channel", "list", "--limit", "55", "--json").json] == all_of_them[:55]
    assert len(owner.run("channel", "list", "--limit", "3").stdout.splitlines()) == 1 + 3


def test_history_reads_newest_first_or_forward_from_a_position(
    member: Person, populated: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = populated.channels[0]

    def numbers(*arguments: str) -> list[int]:
        found = member.run("channel", "history", channel, *arguments, "--json").json
        return [each["data"]["number"] for each in found]

    assert numbers() == [*range(59, 39, -1)]
    monkeypatch.setattr("artcafe.sdk.http.PAGE", 7)
    assert numbers("--limit", "1000") == [*range(59, -1, -1)]
    assert numbers("--after", "0", "--limit", "1000") == [*range(60)]
    oldest, *_, newest = member.run("channel", "history", channel, "--after", "0", "--limit", "60", "--json").json
    assert (oldest["from"].startswith("usr:owner-"), oldest["channel"], oldest["headers"]) == (True, channel, {})
    assert numbers("--before", str(newest["seq"]), "--limit", "2") == [58, 57]
    assert numbers("--after", oldest["time"], "--before", newest["time"], "--limit", "1") == [0]
    limited = member.run("channel", "history", channel, "--limit", "2")
    assert len(limited.stdout.splitlines()) == 2
    assert re.search(r"continue with --before \d+\n$", limited.stderr)


def test_publish_reads_argument_or_stdin_and_deduplicates_by_key(owner: Person) -> None:
    channel = owner.run("channel", "create", "published", "--json").json["id"]
    one, other = (
        owner.run("channel", "publish", channel, "--text", "--message-key", "k", "--header", "a=b=c", stdin="two\nlines").stdout
        for _ in range(2)
    )
    assert other == one.replace("\n", " (stored before)\n")
    assert owner.run("channel", "publish", channel, "[1.50]", "--reply-to", "me", "--json").json["duplicate"] is False
    raw = owner.run("channel", "history", channel, "--json").stdout
    assert '"data":[1.50]' in raw
    newest, oldest = json.loads(raw)
    assert (oldest["data"], oldest["headers"], newest["reply_to"]) == ("two\nlines", {"a": "b=c"}, "me")
    live = owner.run("channel", "create", "live", "--type", "live", "--json").json["id"]
    assert owner.run("channel", "publish", live, "1").stdout.startswith("live ")
