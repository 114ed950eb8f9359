"""Errors of commands: refused requests, invalid arguments, unknown records."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import ssh_keygen
from tests.cli.manage.shell_user import Person
from tests.platform import Cast, Platform


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tenant", "show", "ten_1"], "no tenant 'ten_1' among yours; list them with 'artcafe tenant list'"),
        (["agent", "list", "--tenant", "ten_1"], "no tenant 'ten_1' among yours; list them with 'artcafe tenant list'"),
        (["agent", "show", "scout"], "no agent 'scout' in this tenant; list them with 'artcafe agent list'"),
        (["channel", "delete", "news", "--yes"], "no channel 'news' in this tenant; use its handle or id from "),
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
        (["agent", "update", "agt_1"], "nothing to change: give --name, --handle, --public-key"),
        (["agent", "update", "agt_1", "--capability", "x", "--no-capabilities"], "exclude each other"),
        (["channel", "update", "chn_1"], "nothing to change: give --name, --handle, --access, --retention, "),
        (["channel", "create", "c", "--type", "carrier-pigeon"], "'carrier-pigeon' is not one of 'broadcast', 'queue', 'live'"),
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
