"""`artcafe chain …` and `--caused-by` against a running platform."""

from __future__ import annotations

import re

from tests.cli.manage.shell_user import Person
from tests.platform import Cast


def test_chain_of_a_message_is_shown_and_released(member: Person, populated: Cast) -> None:
    (channel,) = populated.channels
    first = member.run("channel", "publish", channel, "1").stdout
    (message_id,) = re.findall(r"msg_\w+", first)
    assert member.run("chain", "show", message_id).code == 3  # nothing has answered it
    assert member.run("channel", "publish", channel, "2", "--caused-by", message_id).code == 0
    assert member.run("chain", "show", message_id, "--json").json == {
        "id": message_id,
        "tenant_id": populated.tenant,
        "status": "active",
        "messages": 2,
        "max_messages": 10_000,
        "max_hops": 100,
        "releases": 0,
    }
    released = member.run("chain", "release", message_id)
    assert released.stdout == f"Chain {message_id} may have 10000 messages and 100 hops; it has 2 messages.\n"
    newest = member.run("channel", "history", channel, "--limit", "1", "--json").json[0]
    assert (newest["caused_by"], newest["hops"], newest["chain"]) == (message_id, 1, message_id)


def test_unknown_cause_is_refused_with_a_remedy(member: Person, populated: Cast) -> None:
    refused = member.run("channel", "publish", populated.channels[0], "1", "--caused-by", "msg_1")
    assert (refused.code, refused.stdout) == (3, "")
    assert "publish without caused_by" in refused.stderr
