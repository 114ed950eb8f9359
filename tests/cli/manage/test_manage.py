"""The commands of `cli.manage` against a running platform: a whole session, output formats, mistakes, credentials and prompts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from artcafe.cli.commands import artcafe
from artcafe.data_dir import read_secret
from artcafe.identity.local import LocalIdentity
from artcafe.observe.clock import now
from artcafe.rules.secrets import derive
from artcafe.sdk.client import Client
from artcafe.sdk.keys import load_signer
from tests import ssh_keygen
from tests.casts import recast
from tests.platform import Cast, Platform

WAIT_S = 30
"""Timeout of a process, on a machine that runs other tests at the same time."""
SECONDS_PER_TRY = 5


@dataclass(frozen=True)
class Done:
    """Exit code and output of a command."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.stderr
        return json.loads(self.stdout)

    @property
    def fields(self) -> dict[str, str]:
        """Return the fields printed by `show` and similar commands."""
        assert self.code == 0, self.stderr
        return {name: text.strip() for name, _, text in (line.partition(" ") for line in self.stdout.splitlines())}

    @property
    def error(self) -> dict[str, str]:
        """Return the error of a failed command with --json."""
        assert self.stdout == ""
        error: dict[str, str] = json.loads(self.stderr)["error"]
        return error


@dataclass(frozen=True)
class Person:
    """A user of the command line. `environ` has their ARTCAFE_ variables, without the prefix."""

    environ: dict[str, str]

    def variables(self) -> dict[str, str]:
        return {f"ARTCAFE_{name}": value for name, value in self.environ.items()}

    def surroundings(self) -> dict[str, str]:
        """Return the environment of the user's processes."""
        return {name: value for name, value in os.environ.items() if not name.startswith("ARTCAFE_")} | self.variables()

    def run(self, *arguments: str, stdin: str | bytes = "") -> Done:
        others = dict.fromkeys(name for name in os.environ if name.startswith("ARTCAFE_"))
        result = CliRunner().invoke(artcafe, arguments, input=stdin, env=others | self.variables())
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    def but(self, **changed: str) -> Person:
        return Person(self.environ | changed)

    def without(self, *names: str) -> Person:
        return Person({name: value for name, value in self.environ.items() if name not in names})


@pytest.fixture(scope="module")
def home(platform: Platform) -> Cast:
    return asyncio.run(platform.tenant_with(agents=0, channels=0))


@pytest.fixture
def owner(home: Cast, tmp_path: Path) -> Person:
    """Return the owner of one tenant, with a token and without a local server."""
    return Person({"URL": home.url, "TOKEN": home.token, "DATA_DIR": str(tmp_path / "nowhere")})


@pytest.fixture(scope="module")
def populated(platform: Platform) -> Cast:
    """Return a tenant with an agent subscribed to one channel, with 60 stored messages."""
    cast = asyncio.run(platform.tenant_with())

    async def publish() -> None:
        async with cast.rest() as rest:
            for number in range(60):
                await rest.publish(cast.tenant, cast.channels[0], {"number": number})

    asyncio.run(publish())
    return cast


@pytest.fixture
def member(populated: Cast, tmp_path: Path) -> Person:
    return Person({"URL": populated.url, "TOKEN": populated.token, "DATA_DIR": str(tmp_path / "nowhere")})


def public_key(folder: Path, name: str = "key") -> str:
    return f"{ssh_keygen.make_key(folder / name)}.pub"


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
        name = "Acme Ltd" if kind == "tenant" else thing["name"]
        assert alice.run(kind, "delete", thing["id"], "--yes").stdout == f"Deleted {kind} {thing['id']} ({name}).\n"
        assert alice.run(kind, "show", thing["id"], "--json").code != 0
    assert alice.run("tenant", "list", "--json").json == []


def test_lists_print_tables_or_json_arrays(owner: Person, home: Cast, tmp_path: Path) -> None:
    cast = asyncio.run(recast_empty(home, tmp_path))
    for kind, head in (("tenant", "ID NAME ROLE PLAN CREATED"), ("agent", "ID NAME STATUS"), ("channel", "ID NAME TYPE ACCESS")):
        found = owner.run(kind, "list", "--json").json
        lines = owner.run(kind, "list").stdout.splitlines()
        assert " ".join(lines[0].split()).startswith(head)
        assert [line.split()[0] for line in lines[1:]] == [each["id"] for each in found]
        assert all(line.index(each["name"]) == lines[0].index("NAME") for line, each in zip(lines[1:], found, strict=True))
    by_channel = owner.run("subscription", "list", "--channel", cast.channels[0], "--json").json
    by_agent = owner.run("subscription", "list", "--agent", cast.agents[0], "--json").json
    assert [each["id"] for each in by_channel] == [each["id"] for each in by_agent] == [f"{cast.channels[0]}#{cast.agents[0]}"]
    assert owner.run("subscription", "list", "--channel", cast.channels[0]).stdout.splitlines()[1].split() == [
        cast.channels[0],
        cast.agents[0],
        "active",
        "receive",
        "#0",
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
    assert (refused.code, refused.error["message"].startswith("retention_s: must be from 1 to ")) == (3, True)


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
                group.create_task(rest.create_channel(home.tenant, f"channel {number}"))

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


# --- mistakes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tenant", "show", "ten_1"], "no tenant 'ten_1' among yours; list them with 'artcafe tenant list'"),
        (["agent", "list", "--tenant", "ten_1"], "no tenant 'ten_1' among yours; list them with 'artcafe tenant list'"),
        (["agent", "show", "scout"], "no agent 'scout' in this tenant; list them with 'artcafe agent list'"),
        (["channel", "delete", "news", "--yes"], "no channel 'news' in this tenant; use its id (chn_…)"),
        (["channel", "publish", "news", "1"], "no channel 'news' in this tenant"),
        (["channel", "history", "news"], "no channel 'news' in this tenant"),
        (
            ["subscription", "pause", "--channel", "c", "--agent", "a"],
            "agent 'a' is not subscribed to channel 'c'; subscribe it with ",
        ),
        (["agent", "delete", "..", "--yes"], "no agent '..' in this tenant; list them with 'artcafe agent list'"),
        (["member", "remove", "..", "--yes"], "no such member in this tenant"),
        (["channel", "show", ""], "id: must be Unicode text of at least one character"),
        (["channel", "create", "x" * 65], "name: must have 1 to 64 characters; this has 65"),
        (["tenant", "create", " "], "name: must not consist of spaces only"),
        (["agent", "create", "a", "--public-key", "ssh-ed25519 AAAA"], "public_key: "),
    ],
)
def test_refused_request_exits_with_3_and_prints_the_reason(owner: Person, arguments: list[str], words: str) -> None:
    done = owner.run(*arguments)
    assert (done.code, done.stdout) == (3, "")
    assert f"artcafe: {words}" in done.stderr
    with_json = owner.run(*arguments, "--json")
    assert (with_json.code, words in with_json.error["message"]) == (3, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tenant", "create"], "Missing argument 'NAME'"),
        (["tenant", "frobnicate"], "No such command"),
        (["agent", "create", "a"], "Missing option '--public-key'"),
        (["agent", "create", "a", "--public-key", "nowhere.pub"], "'nowhere.pub' cannot be read: no such file or directory"),
        (["agent", "update", "agt_1"], "nothing to change: give --name, --public-key"),
        (["agent", "update", "agt_1", "--capability", "x", "--no-capabilities"], "exclude each other"),
        (["channel", "update", "chn_1"], "nothing to change: give --name, --access, --retention or --description"),
        (["channel", "create", "c", "--type", "carrier-pigeon"], "'carrier-pigeon' is not one of 'broadcast', 'live'"),
        (["channel", "create", "c", "--retention", "forever"], "neither a duration such as 90s, 15m, 12h or 30d nor 'plan'"),
        (["channel", "list", "--limit", "0"], "--limit"),
        (["channel", "publish", "chn_1", "{bad"], "DATA is not JSON"),
        (["channel", "publish", "chn_1", "1", "--header", "trace"], "'trace' is not NAME=VALUE"),
        (["channel", "create", "c", "--idempotency-key", "é"], "must be printable ASCII characters"),
        (["channel", "show", "\udcff"], "is not UTF-8 text"),
        (["subscription", "list"], "give either --channel or --agent"),
        (["subscription", "list", "--channel", "c", "--agent", "a"], "artcafe subscription show"),
        (["subscription", "show", "--channel", "c"], "Missing option '--agent'"),
        (["tenant", "list", "--user", "bob"], "--user cannot be combined with an access token"),
    ],
)
def test_invalid_command_exits_with_2_and_prints_the_reason(owner: Person, arguments: list[str], words: str) -> None:
    done = owner.run(*arguments)
    assert (done.code, done.stdout) == (2, "")
    assert words in done.stderr


def test_private_key_is_never_sent(owner: Person, tmp_path: Path) -> None:
    key = ssh_keygen.make_key(tmp_path / "scout")
    done = owner.without("URL").run("agent", "create", "a", "--public-key", str(key))
    assert done.code == 2
    assert f"'{key}' is a private key, which must stay with the agent; give {key}.pub" in done.stderr


def test_file_without_a_public_key_is_refused_before_sending(owner: Person, tmp_path: Path) -> None:
    for content in (b"", b"\xff\xfe", b"x" * 20_000):
        (tmp_path / "file").write_bytes(content)
        done = owner.run("agent", "create", "a", "--public-key", str(tmp_path / "file"))
        assert (done.code, "is not a public key" in done.stderr) == (2, True)


def test_records_of_a_foreign_tenant_are_not_found(owner: Person, populated: Cast) -> None:
    for arguments in (
        ["agent", "show", populated.agents[0]],
        ["channel", "delete", populated.channels[0], "--yes"],
        ["tenant", "delete", populated.tenant, "--yes"],
        ["channel", "list", "--tenant", populated.tenant],
    ):
        done = owner.run(*arguments, "--json")
        assert (done.code, done.error["code"].endswith("_not_found")) == (3, True)


def test_user_of_several_tenants_must_choose_one(owner: Person, platform: Platform) -> None:
    bob = Person({"DATA_DIR": str(platform.data), "USER": "several@example.com"})
    ids = [bob.run("tenant", "create", f"Tenant {number}", "--json").json["id"] for number in range(12)]
    done = bob.run("channel", "list")
    assert (done.code, done.stdout) == (2, "")
    assert "several@example.com is in several tenants; choose with --tenant or ARTCAFE_TENANT:" in done.stderr
    assert f"  {ids[0]}  Tenant 0\n" in done.stderr
    assert "  and 2 more: artcafe tenant list\n" in done.stderr
    assert bob.run("channel", "list", "--json").error["code"] == "usage"
    assert bob.run("channel", "list", "--tenant", ids[3], "--json").json == []
    assert bob.but(TENANT=ids[3]).run("channel", "create", "here", "--json").json["tenant_id"] == ids[3]
    assert bob.but(TENANT=ids[3]).run("tenant", "show").fields["id"] == ids[3]


def test_user_without_a_tenant_gets_the_command_to_create_one(platform: Platform) -> None:
    done = Person({"DATA_DIR": str(platform.data), "USER": "nobody@example.com"}).run("agent", "list")
    assert done.code == 2
    assert "nobody@example.com is in no tenant yet; create one: artcafe tenant create NAME" in done.stderr


# --- credentials and server -----------------------------------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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


# --- confirmation prompts -------------------------------------------------------------------------------------------------


def test_deletion_without_a_terminal_requires_yes(member: Person, populated: Cast) -> None:
    for arguments in (
        ["tenant", "delete", populated.tenant],
        ["agent", "delete", populated.agents[0]],
        ["channel", "delete", populated.channels[0]],
        ["subscription", "delete", "--channel", populated.channels[0], "--agent", populated.agents[0]],
    ):
        done = member.run(*arguments)
        assert (done.code, done.stdout) == (2, "")
        assert "this would delete" in done.stderr
        assert "standard input is not a terminal: confirm with --yes" in done.stderr
    assert member.run("subscription", "list", "--channel", populated.channels[0], "--json").json != []


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Yield both ends of a pseudo-terminal: the test's and the command's."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize(("answer", "code"), [(b"\n", 1), (None, 1), (b"y\n", 0)], ids=["Enter", "Ctrl-C", "y"])
def test_deletion_at_a_terminal_prompts_for_confirmation(
    owner: Person, terminal: tuple[int, int], answer: bytes | None, code: int
) -> None:
    channel = owner.run("channel", "create", "doomed", "--json").json["id"]
    ours, theirs = terminal
    with subprocess.Popen(
        [sys.executable, "-m", "artcafe", "channel", "delete", channel],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=owner.surroundings(),
        text=True,
    ) as command:
        prompt = read_until(command.stderr, "[y/N]: ")
        assert f"Delete channel {channel} (doomed) with its subscriptions and messages?" in prompt
        if answer is None:
            interrupt(command)
        else:
            os.write(ours, answer)
        assert command.wait(WAIT_S) == code
    assert owner.run("channel", "show", channel).code == (0 if code else 3)


def interrupt(command: subprocess.Popen[str]) -> None:
    """Send Ctrl-C until the process ends: a signal just before a blocking read is handled only after the next key or signal."""
    for _ in range(WAIT_S // SECONDS_PER_TRY):
        command.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            command.wait(SECONDS_PER_TRY)
            return


def read_until(stream: Any, end: str) -> str:
    text = ""
    while not text.endswith(end):
        text += stream.read(1) or pytest.fail(f"it ended with {text!r}")
    return text


def test_misspelt_command_gets_a_suggestion(owner: Person) -> None:
    done = owner.run("tenants", "list")
    assert (done.code, "No such command 'tenants'; did you mean 'tenant'?" in done.stderr) == (2, True)
    assert "did you mean" not in owner.run("fly").stderr


# --- help, and installation without the server------------------------------------------------------------------------------


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    for name in group.list_commands(click.Context(group)):
        found = group.get_command(click.Context(group), name)
        if isinstance(found, click.Group):
            yield from commands(found, *path, name)
        else:
            yield (*path, name)


@pytest.mark.parametrize("path", [path for path in commands(artcafe) if len(path) == 2], ids=" ".join)
def test_help_of_every_command_has_an_example(path: tuple[str, ...]) -> None:
    done = CliRunner().invoke(artcafe, [*path, "--help"])
    assert done.exit_code == 0
    assert re.search(rf"Examples?:\n(?:.*\n)*?.*artcafe {' '.join(path)}\b", done.stdout)
    assert "--json" in done.stdout


def test_agent_help_lists_member_and_agent_commands_separately() -> None:
    text = CliRunner().invoke(artcafe, ["agent", "--help"]).stdout
    members, itself = text.split("As the agent itself, with its SSH key:")
    assert all(f"  {name} " in members for name in ("list", "create", "show", "update", "delete", "disable", "enable"))
    assert all(f"  {name} " in itself for name in ("login", "publish", "listen"))


WITHOUT_THE_SERVER = """
import runpy, sys
SERVER = (
    "aiobotocore botocore fastapi joserfc nats picows prometheus_client pydantic starlette structlog ulid uvicorn uvloop"
).split()
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in SERVER:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
sys.argv = ["artcafe", *sys.argv[1:]]
runpy.run_module("artcafe", run_name="__main__", alter_sys=True)
"""


def run_without_the_server(person: Person, *arguments: str) -> Done:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_SERVER, *arguments],
        env=person.surroundings(),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_token_suffices_without_the_servers_libraries(owner: Person, home: Cast, platform: Platform) -> None:
    assert [each["id"] for each in run_without_the_server(owner, "tenant", "list", "--json").json] == [home.tenant]
    listed = run_without_the_server(owner, "--help")
    assert listed.code == 0
    assert re.search(r"  up +Requires the server, which is not installed\.\n", listed.stdout)
    assert "  channel " in listed.stdout
    refused = run_without_the_server(owner, "up", "--help")
    assert refused.code == 3
    assert "'up' requires the server, which is not installed" in refused.stderr
    local = run_without_the_server(Person({"DATA_DIR": str(platform.data)}), "tenant", "list")
    assert local.code == 2
    assert "Working without one requires the server to be installed here" in local.stderr
