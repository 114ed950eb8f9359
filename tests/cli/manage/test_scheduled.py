"""`artcafe channel publish --deliver-at`, `scheduled` and `cancel`."""

from __future__ import annotations

import asyncio

from tests.cli.manage.shell_user import Person
from tests.platform import Platform


def test_scheduled_message_is_published_listed_and_cancelled_by_commands(platform: Platform) -> None:
    cast = asyncio.run(platform.tenant_with(agents=0))
    person, (channel,) = Person({"URL": cast.url, "TOKEN": cast.token}), cast.channels
    made = person.run("channel", "publish", channel, '{"remind": 1}', "--deliver-at", "30m", "--expires-at", "1h", "--json").json
    assert (made["seq"], made["duplicate"]) == (None, False)

    (listed,) = person.run("channel", "scheduled", channel, "--json").json
    assert (listed["message_id"], listed["data"]) == (made["message_id"], {"remind": 1})
    assert listed["time"] < listed["deliver_at"] < listed["expires_at"]
    assert '{"remind": 1}' in person.run("channel", "scheduled", channel).stdout

    for _ in range(2):
        cancelled = person.run("channel", "cancel", channel, made["message_id"])
        assert (cancelled.code, made["message_id"] in cancelled.stdout) == (0, True)
    assert "No message is scheduled" in person.run("channel", "scheduled", channel).stderr
    refused = person.run("channel", "publish", channel, "1", "--deliver-at", "2016-11-22")
    assert (refused.code, "which has passed" in refused.stderr) == (3, True)
