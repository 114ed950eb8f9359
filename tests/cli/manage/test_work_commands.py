"""The commands of queues, direct messages, pull and receipts against a running platform; test_redrive.py sends letters back."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.cli.manage.shell_user import Person
from tests.cli.manage.test_agent_commands import AgentCommandResult, run
from tests.platform import Cast, Platform


@pytest.fixture(scope="module")
def cast(platform: Platform) -> Cast:
    """Return a tenant with two agents, `agent-0` and `agent-1`, and a channel `channel-0` that the first one receives."""
    cast = asyncio.run(platform.tenant_with(agents=2, channels=1, subscribed=False))

    async def subscribe() -> None:
        async with cast.rest() as rest:
            await rest.tenant(cast.tenant).subscriptions.create(cast.channels[0], cast.agents[0])

    asyncio.run(subscribe())
    return cast


@pytest.fixture
def person(cast: Cast) -> Person:
    return Person({"URL": cast.url, "TOKEN": cast.token, "TENANT": cast.tenant})


def run_second(cast: Cast, *arguments: str) -> AgentCommandResult:
    """Run a command as the second agent."""
    return run(cast, *arguments, AGENT="agent-1", KEY=str(cast.keys[1]))


def pulled(cast: Cast, *arguments: str) -> list[dict[str, Any]]:
    """Return what the second agent pulls."""
    done = run_second(cast, "pull", *arguments, "--json")
    assert done.code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_queue_gets_its_options_at_its_creation_and_by_updates(person: Person) -> None:
    letters = person.run("channel", "create", "letters", "--json").json["id"]
    options = ["--ack-wait", "5m", "--back-off", "1s,10s,1m", "--max-deliveries", "4", "--dead-letter", "letters"]
    made = person.run("channel", "create", "jobs", "--type", "queue", *options, "--json").json
    settings = ("ack_wait_s", "back_off", "max_deliveries", "dead_letter")
    assert [made[name] for name in settings] == [300, [1, 10, 60], 4, letters]
    changed = person.run("channel", "update", "jobs", "--ack-wait", "90s", "--back-off", "none", "--json").json
    assert [changed[name] for name in settings] == [90, [], 4, letters]
    assert person.run("channel", "show", "jobs").fields["ack_wait_s"] == "90"


@pytest.mark.parametrize(
    ("option", "text", "code", "problem"),
    [
        ("--ack-wait", "soon", 2, "no duration such as 90s"),
        ("--ack-wait", "13h", 3, "ack_wait_s"),
        ("--back-off", "1s,later", 2, "neither durations such as 1s,10s,5m nor 'none'"),
        ("--back-off", "2d", 3, "back_off"),
        ("--max-deliveries", "0", 3, "max_deliveries"),
        ("--dead-letter", "nowhere", 3, "no channel 'nowhere'"),
    ],
)
def test_wrong_queue_option_is_named(person: Person, option: str, text: str, code: int, problem: str) -> None:
    refused = person.run("channel", "create", "wrong", "--type", "queue", option, text)
    assert (refused.code, problem in refused.stderr) == (code, True), refused.stderr


def test_missing_channel_of_an_update_may_be_either(person: Person) -> None:
    refused = person.run("channel", "update", "missing", "--dead-letter", "nowhere")
    assert (refused.code, "no channel 'missing' or no channel 'nowhere'" in refused.stderr) == (3, True), refused.stderr


def test_options_of_a_queue_are_refused_for_another_channel(person: Person) -> None:
    refused = person.run("channel", "update", "channel-0", "--ack-wait", "5m")
    assert (refused.code, "ack_wait_s" in refused.stderr) == (3, True), refused.stderr


def test_message_to_an_agent_is_sent_by_handle_and_printed_by_the_receiver(cast: Cast) -> None:
    for to, data in (("agent-1", '{"task": 1}'), ("@agent-1", "2"), (cast.agents[1], "3")):
        sent = run(cast, "send", to, data, "--json")
        assert sent.code == 0, sent.stderr
        assert json.loads(sent.stdout)["subscribers"] in (1, None)
    found = pulled(cast, "--ack")
    assert [each["data"] for each in found] == [{"task": 1}, 2, 3]
    assert {each["channel"] for each in found} == {f"@{cast.agents[1]}"}
    unknown = run(cast, "send", "nobody", "1")
    assert (unknown.code, "no agent 'nobody'" in unknown.stderr) == (3, True), unknown.stderr


def test_queue_message_is_pulled_and_acknowledged_by_its_receipt(cast: Cast, person: Person) -> None:
    assert person.run("channel", "create", "tasks", "--type", "queue").code == 0
    assert person.run("subscription", "create", "--channel", "tasks", "--agent", "agent-1").code == 0
    seq = person.run("channel", "publish", "tasks", '"dig"', "--json").json["seq"]

    def shown() -> tuple[object, ...]:
        (receipt,) = person.run("channel", "receipts", "tasks", str(seq), "--json").json
        return receipt["agent_handle"], receipt["state"], receipt["reason"], receipt["cursor"]

    assert shown() == (None, "pending", None, None)
    (task,) = pulled(cast, "tasks", "--limit", "1", "--for", "20")
    assert shown() == ("agent-1", "delivered", None, None)
    assert (task["data"], task["deliveries"]) == ("dig", 1)
    for _ in range(2):
        refused = run_second(cast, "ack", "tasks", str(task["seq"]), "--receipt", f"{task['receipt']}x")
        assert (refused.code, "receipt" in refused.stderr) == (3, True), refused.stderr
    assert run_second(cast, "ack", "tasks", str(task["seq"]), "--receipt", task["receipt"]).code == 0
    assert shown() == ("agent-1", "acked", None, None)
    again = run_second(cast, "ack", "tasks", str(task["seq"]), "--receipt", task["receipt"])
    assert again.code == 3, again.stderr
    assert pulled(cast, "tasks") == []


def test_position_is_moved_back_and_forth_and_receipts_show_it(cast: Cast, person: Person) -> None:
    assert person.run("subscription", "create", "--channel", "channel-0", "--agent", "agent-1").code == 0
    seqs = [person.run("channel", "publish", "channel-0", str(number), "--json").json["seq"] for number in range(3)]
    where = ["--channel", "channel-0", "--agent", "agent-1"]

    def states(seq: int) -> dict[str, str]:
        shown = person.run("channel", "receipts", "channel-0", str(seq), "--json").json
        return {each["agent_id"]: each["state"] for each in shown}

    assert [each["data"] for each in pulled(cast, "channel-0", "--ack")] == [0, 1, 2]
    assert states(seqs[2]) == {cast.agents[0]: "away", cast.agents[1]: "acked"}
    table = person.run("channel", "receipts", "channel-0", str(seqs[2]), "--limit", "1")
    assert table.stdout.split()[:2] == ["AGENT", "STATE"]

    moved = person.run("subscription", "move", *where, "--to", str(seqs[0]))
    assert moved.stdout.strip() == f"Moved: agent agent-1 continues with channel channel-0 after #{seqs[0]}."
    assert [each["data"] for each in pulled(cast, "channel-0")] == [1, 2]
    assert person.run("subscription", "move", *where, "--to", "first").code == 0
    assert [each["data"] for each in pulled(cast, "channel-0")] == [0, 1, 2]
    assert person.run("subscription", "move", *where, "--to", "last", "--json").json["lag"] == 0
    assert (pulled(cast, "channel-0"), states(seqs[1])[cast.agents[1]]) == ([], "skipped")
    for to, problem in (("99999", "above the newest message"), ("never", "must be a sequence such as 41")):
        refused = person.run("subscription", "move", *where, "--to", to)
        assert (refused.code, problem in refused.stderr) == (3, True), refused.stderr
    missing = person.run("channel", "receipts", "channel-0", "99999")
    assert (missing.code, "messages are named by their sequence" in missing.stderr) == (3, True), missing.stderr


def test_messages_are_acknowledged_up_to_a_sequence(cast: Cast, person: Person) -> None:
    assert person.run("channel", "create", "log").code == 0
    assert person.run("subscription", "create", "--channel", "log", "--agent", "agent-1").code == 0
    seqs = [person.run("channel", "publish", "log", str(number), "--json").json["seq"] for number in range(3)]
    assert run_second(cast, "ack", "log", str(seqs[1])).code == 0
    assert [each["seq"] for each in pulled(cast, "log")] == seqs[2:]
    refused = run_second(cast, "ack", "log", "99999")
    assert (refused.code, "99999" in refused.stderr) == (3, True), refused.stderr
