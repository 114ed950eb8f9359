"""Confirmation prompts before deletions."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.cli.manage.shell_user import WAIT_S, Person, interrupt, read_until
from tests.platform import Cast


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
    made = owner.run("channel", "create", "doomed", "--json").json
    channel = made["id"]
    ours, theirs = terminal
    with subprocess.Popen(
        [sys.executable, "-m", "artcafe", "channel", "delete", made["handle"]],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=owner.surroundings(),
        text=True,
    ) as command:
        prompt = read_until(command.stderr, "[y/N]: ")
        assert f"Delete channel {channel} ({made['handle']}) with its subscriptions and messages?" in prompt
        if answer is None:
            interrupt(command)
        else:
            os.write(ours, answer)
        assert command.wait(WAIT_S) == code
    assert owner.run("channel", "show", channel).code == (0 if code else 3)
