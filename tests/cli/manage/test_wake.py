"""`artcafe agent wake …` against a running platform."""

from __future__ import annotations

from tests.cli.manage.shell_user import Person
from tests.platform import Cast

URL = "https://hooks.example.com/agents/scout"


def test_webhook_is_set_shown_and_removed(member: Person, populated: Cast) -> None:
    (agent,) = populated.agents
    made = member.run("agent", "wake", "set", agent, URL, "--interval", "300", "--quiet", "22:00-06:00").fields
    assert made["secret"].startswith("whsec_")
    shown = member.run("agent", "wake", "show", agent, "--json").json
    assert (shown["url"], shown["interval_s"], shown["quiet_hours"], shown["secret"]) == (URL, 300, "22:00-06:00", None)
    again = member.run("agent", "wake", "set", agent, URL, "--disabled", "--new-secret", "--json").json
    assert again["secret"] not in (None, made["secret"])
    assert again["enabled"] is False
    assert member.run("agent", "wake", "remove", agent).code == 2  # nobody confirms
    assert member.run("agent", "wake", "remove", agent, "--yes").code == 0
    assert member.run("agent", "wake", "show", agent, "--json").json["url"] is None


def test_address_that_is_not_public_is_refused(member: Person, populated: Cast) -> None:
    refused = member.run("agent", "wake", "set", populated.agents[0], "https://169.254.169.254/")
    assert (refused.code, refused.stdout) == (3, "")
    assert "169.254.169.254, which is not public" in refused.stderr
