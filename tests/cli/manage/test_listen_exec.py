"""`artcafe agent listen --exec` against a running platform: one process for each message or batch."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from artcafe.cli.manage import command_runner
from tests.casts import recast
from tests.cli.manage.test_agent_commands import COMMAND, environ, run
from tests.platform import Cast, Platform
from tests.process_group.groups import is_running

ROOT = Path(__file__).parents[3]
WAIT_S = 60.0


@pytest.fixture(scope="module")
def home(platform: Platform) -> Cast:
    return asyncio.run(platform.tenant_with(channels=0))


@pytest.fixture
def cast(home: Cast) -> Cast:
    return asyncio.run(recast(home))


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every command in a folder of its own."""
    monkeypatch.chdir(tmp_path)


def publish(cast: Cast, *data: object) -> None:
    async def send() -> None:
        async with cast.rest() as rest:
            for each in data:
                await rest.tenant(cast.tenant).messages.publish(cast.channels[0], each)

    asyncio.run(send())


async def _queue(cast: Cast, **options: Any) -> str:
    """Create a queue that the first agent receives."""
    async with cast.rest() as rest:
        queue = await rest.tenant(cast.tenant).channels.create("work", type="queue", **options)
        await rest.tenant(cast.tenant).subscriptions.create(queue.id, cast.agents[0])
        return queue.id


async def _cursor(cast: Cast) -> int:
    """Return the last acknowledged sequence of the first channel."""
    async with cast.rest() as rest:
        return (await rest.tenant(cast.tenant).subscriptions.get(cast.channels[0], cast.agents[0])).cursor.seq


def lines(name: str) -> list[Any]:
    """Return the JSON lines of a file that commands have written."""
    file = Path(name)
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _until(path: Path) -> None:
    """Wait for a file that a command creates."""
    until = time.monotonic() + WAIT_S
    while not path.exists():
        assert time.monotonic() < until, f"{path} is missing"
        threading.Event().wait(0.02)


@contextmanager
def listening(cast: Cast, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run `listen` as a process of its own."""
    with subprocess.Popen([*COMMAND, "listen", *arguments], stderr=subprocess.PIPE, text=True, env=environ(cast)) as process:
        try:
            yield process
        finally:
            process.kill()


# --- exit codes ----------------------------------------------------------------------------------------------------------


def test_each_message_is_given_to_a_process_and_acknowledged_by_exit_code_0(cast: Cast) -> None:
    publish(cast, {"task": 1}, "two\nlines", 3)
    done = run(cast, "listen", "--exec", "cat >> got; echo . >> processes", "--count", "3")
    assert done.code == 0, done.stderr
    got = lines("got")
    assert [each["data"] for each in got] == [{"task": 1}, "two\nlines", 3]
    assert {each["channel"] for each in got} == {cast.channels[0]}
    assert Path("processes").read_text() == ".\n.\n.\n"
    assert asyncio.run(_cursor(cast)) == got[-1]["seq"]


def test_failed_message_is_tried_again_before_its_successors(cast: Cast) -> None:
    publish(cast, 1, 2)
    command = "cat >> got; [ $(wc -l < got) -gt 2 ] || exit 7"
    done = run(cast, "listen", "--exec", command, "--count", "2")
    assert [each["data"] for each in lines("got")] == [1, 1, 1, 2]
    assert re.search(r"#\d+: the command ended with exit code 7 \(attempt 2\)", done.stderr)
    assert "ack()" not in done.stderr


def test_message_that_always_fails_is_acknowledged_after_the_attempts_of_give_up(cast: Cast) -> None:
    publish(cast, 1, 2)
    done = run(cast, "listen", "--exec", "cat >> got; kill -9 $$", "--give-up", "2", "--count", "2")
    assert [each["data"] for each in lines("got")] == [1, 1, 2, 2]
    assert "the command was ended by SIGKILL" in done.stderr
    assert "given up and acknowledged after 2 attempts" in done.stderr
    assert asyncio.run(_cursor(cast)) == lines("got")[-1]["seq"]


def test_failing_message_holds_up_no_other_channel(cast: Cast) -> None:
    other = asyncio.run(_add_channel(cast))
    publish(cast, "bad")
    asyncio.run(_publish_to(cast, other, "good"))
    # The bad one fails until the good one has been handled.
    command = "cat > now; if grep -q bad now; then [ -e got ]; else cat now >> got; fi"
    done = run(cast, "listen", "--exec", command, "--count", "2")
    assert done.code == 0, done.stderr
    assert [each["data"] for each in lines("got")] == ["good"]


async def _add_channel(cast: Cast) -> str:
    async with cast.rest() as rest:
        channel = await rest.tenant(cast.tenant).channels.create("other")
        await rest.tenant(cast.tenant).subscriptions.create(channel.id, cast.agents[0])
        return channel.id


async def _publish_to(cast: Cast, channel: str, data: object) -> None:
    async with cast.rest() as rest:
        await rest.tenant(cast.tenant).messages.publish(channel, data)


def test_queue_gets_a_failed_message_back_and_dead_letters_it(cast: Cast) -> None:
    queue = asyncio.run(_queue(cast, max_deliveries=2))
    asyncio.run(_publish_to(cast, queue, "bad"))
    done = run(cast, "listen", queue, "--exec", "cat >> got; exit 3", "--count", "2")
    assert done.code == 0, done.stderr
    assert [each["deliveries"] for each in lines("got")] == [1, 2]
    until = time.monotonic() + WAIT_S
    while not (found := asyncio.run(_dead_letters(cast, queue))):
        assert time.monotonic() < until
        threading.Event().wait(0.05)
    assert found == ["bad"]


async def _dead_letters(cast: Cast, queue: str) -> list[object]:
    async with cast.rest() as rest:
        dead = (await rest.tenant(cast.tenant).channels.get(queue)).dead_letter
        assert dead is not None
        return [each.data async for each in rest.tenant(cast.tenant).messages.list(dead)]


def test_deadline_of_a_queue_message_is_extended_while_its_command_runs(cast: Cast) -> None:
    queue = asyncio.run(_queue(cast, ack_wait_s=1, max_deliveries=5))
    asyncio.run(_publish_to(cast, queue, "long"))
    done = run(cast, "listen", queue, "--exec", "cat >> got; sleep 2.5", "--extend", "0.2", "--count", "1")
    assert done.code == 0, done.stderr
    assert [each["deliveries"] for each in lines("got")] == [1]


# --- batches, parallel processes -----------------------------------------------------------------------------------------


def test_batch_gives_waiting_messages_to_one_process_in_order(cast: Cast) -> None:
    publish(cast, *range(6))
    command = "cat >> got; echo . >> processes; [ -e first ] || { touch first; exit 1; }"
    done = run(cast, "listen", "--exec", command, "--batch", "100", "--count", "6")
    assert done.code == 0, done.stderr
    # The first process may have begun before all messages had arrived; it fails, and its messages are given again together.
    got = [each["data"] for each in lines("got")]
    assert got[len(got) - 6 :] == list(range(6))
    assert Path("processes").read_text().count(".") <= 4


def test_parallel_processes_are_bounded(cast: Cast) -> None:
    publish(cast, *range(6))
    # Each process waits until three run at once, and notes how many it sees.
    command = "mkdir -p now; touch now/$$; until [ -e met ]; do [ $(ls now | wc -l) -lt 3 ] || touch met; sleep 0.02; done;"
    command += " ls now | wc -l >> seen; sleep 0.1; rm now/$$"
    done = run(cast, "listen", "--exec", command, "--parallel", "3", "--count", "6")
    assert done.code == 0, done.stderr
    assert max(lines("seen")) == 3


# --- commands that do not end, signals --------------------------------------------------------------------------------------


def test_command_that_never_ends_is_killed_with_its_children(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_runner, "GRACE_S", 0.2)
    publish(cast, 1)
    command = "trap '' TERM; (trap '' TERM; while :; do sleep 0.1; done) & echo $! >> child; echo $$ >> leader; wait; wait"
    done = run(cast, "listen", "--exec", command, "--timeout", "0.5", "--give-up", "1", "--count", "1")
    assert done.code == 0, done.stderr
    assert "did not end within 0.5 s, and was killed" in done.stderr
    assert [is_running(pid) for pid in (*lines("child"), *lines("leader"))] == [False, False]


def test_sigterm_lets_the_running_command_finish_and_starts_no_other(cast: Cast) -> None:
    publish(cast, 1, 2)
    with listening(cast, "--exec", "cat >> got; touch begun; until [ -e go ]; do sleep 0.05; done; touch finished") as process:
        _until(Path("begun"))
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert "SIGTERM" in process.stderr.readline()
        Path("go").touch()
        assert process.wait(WAIT_S) == 0
    assert Path("finished").exists()
    assert [each["data"] for each in lines("got")] == [1]
    assert asyncio.run(_cursor(cast)) == lines("got")[0]["seq"]


def test_second_sigterm_kills_the_running_command(cast: Cast) -> None:
    publish(cast, 1)
    with listening(cast, "--exec", "echo $$ > leader; touch begun; while :; do sleep 0.1; done") as process:
        _until(Path("begun"))
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        while "waits for" not in (line := process.stderr.readline()):
            assert line
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 130
    assert not is_running(lines("leader")[0])


def test_output_of_a_command_goes_to_standard_error_and_the_command_may_act_as_the_agent(
    cast: Cast, capfd: pytest.CaptureFixture[str]
) -> None:
    publish(cast, 1)
    done = run(cast, "listen", "--exec", 'echo "$ARTCAFE_AGENT of $ARTCAFE_TENANT"; echo oops >&2', "--count", "1")
    assert (done.code, done.stdout) == (0, "")
    printed = capfd.readouterr()
    assert (printed.out, f"{cast.agents[0]} of {cast.tenant}\noops\n" in printed.err) == ("", True)


# --- arguments, the unit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--parallel", "2"], "--parallel requires --exec"),
        (["--timeout", "5"], "--timeout requires --exec"),
        (["--give-up", "5"], "--give-up requires --exec"),
        (["--exec", "true", "--no-ack"], "omit --no-ack"),
        (["--exec", " "], "--exec requires a command"),
        (["--exec", "true", "--parallel", "0"], "--parallel"),
        (["--exec", "true", "--batch", "1001"], "--batch"),
        (["--exec", "true", "--timeout", "0"], "--timeout"),
    ],
)
def test_invalid_exec_options_exit_with_2_and_the_reason(home: Cast, arguments: list[str], problem: str) -> None:
    done = run(home, "listen", *arguments)
    assert (done.code, problem in done.stderr) == (2, True), done.stderr


def test_channel_that_does_not_exist_ends_the_command_with_its_error(cast: Cast) -> None:
    done = run(cast, "listen", "nowhere", "--exec", "true")
    assert (done.code, "nowhere" in done.stderr) == (3, True), done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_unit_is_valid(tmp_path: Path) -> None:
    unit = (ROOT / "examples" / "wake" / "artcafe-listen.service").read_text()
    # The installed command is elsewhere on each machine; systemd verifies that it exists.
    checked = tmp_path / "artcafe-listen.service"
    checked.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit, flags=re.MULTILINE))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", checked],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
    )
    assert (done.returncode, done.stderr) == (0, "")
