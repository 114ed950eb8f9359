"""The agent's commands as a shell runs them, against the platform."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from artcafe.cli.manage.agent_commands import agent
from tests import ssh_keygen
from tests.casts import recast
from tests.platform import Cast, Platform

COMMAND = [sys.executable, "-m", "artcafe", "agent"]


@pytest.fixture(scope="module")
def home(platform: Platform) -> Cast:
    return asyncio.run(platform.tenant_with())


@pytest.fixture
def cast(home: Cast) -> Cast:
    return asyncio.run(recast(home))


def environ(cast: Cast, **changed: str) -> dict[str, str]:
    """The environment of the cast's first agent."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("ARTCAFE_")}
    account = {"URL": cast.url, "TENANT": cast.tenant, "AGENT": cast.agents[0], "KEY": str(cast.keys[0])}
    return plain | {f"ARTCAFE_{name}": value for name, value in (account | changed).items()}


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    code: int
    stdout: str
    stderr: str


def run(cast: Cast, *arguments: str, stdin: str | bytes = "", **changed: str) -> Done:
    """One command. One that reads lines needs a process of its own, with a real standard input."""
    env = environ(cast, **changed)
    if "--lines" in arguments:
        text = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run([*COMMAND, *arguments], input=text, capture_output=True, timeout=30, check=False, env=env)
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())
    result = CliRunner().invoke(agent, arguments, input=stdin, env=env)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """A command sets up logging for its process."""
    log = logging.getLogger("artcafe")
    before = (list(log.handlers), log.propagate)
    yield
    log.handlers[:], log.propagate = before


def heard(cast: Cast, count: int, *arguments: str) -> list[dict[str, object]]:
    """The next messages, as `listen --json` prints them."""
    done = run(cast, "listen", "--json", "--count", str(count), *arguments)
    assert done.code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


# --- login ---------------------------------------------------------------------------------------------------------------


def test_login_prints_a_token_that_rest_takes(cast: Cast) -> None:
    printed = run(cast, "login").stdout.strip()
    told = json.loads(run(cast, "login", "--json").stdout)
    assert (told["token_type"], told["expires_in"]) == ("Bearer", 900)
    for token in (printed, told["access_token"]):
        me = httpx.get(f"{cast.url}/v1/me", headers={"Authorization": f"Bearer {token}"})
        assert me.json()["agent_id"] == cast.agents[0]


@pytest.mark.parametrize("command", [["login"], ["listen", "--count", "1"], ["publish", "CHANNEL", "1"]])
def test_a_service_that_is_not_the_one_that_was_given_is_not_logged_in_to(cast: Cast, command: list[str]) -> None:
    done = run(cast, *(word.replace("CHANNEL", cast.channels[0]) for word in command), SERVICE="artcafe:another")
    assert done.code == 3
    assert "not 'artcafe:another'" in done.stderr


# --- publish and listen --------------------------------------------------------------------------------------------------


def test_what_one_command_publishes_another_prints(cast: Cast) -> None:
    done = run(cast, "publish", cast.channels[0], '{"task": "summarise"}', "--header", "trace=7f3a", "--reply-to", "here")
    assert done.code == 0
    seq, message_id = re.fullmatch(r"#(\d+) (msg_\w+)\n", done.stdout).groups()  # type: ignore[union-attr]  # no match is a failure
    shown = run(cast, "listen", "--count", "1", "--no-ack")
    assert re.fullmatch(rf'[\d-]+T[\d:]+Z {cast.channels[0]} #{seq} {cast.agents[0]}: {{"task": "summarise"}}\n', shown.stdout)
    (message,) = heard(cast, 1)
    assert (message["seq"], message["message_id"], message["from"]) == (int(seq), message_id, cast.agents[0])
    assert (message["data"], message["headers"], message["reply_to"]) == ({"task": "summarise"}, {"trace": "7f3a"}, "here")


def test_a_message_comes_from_the_argument_or_from_standard_input_as_json_or_as_text(cast: Cast) -> None:
    channel = cast.channels[0]
    assert run(cast, "publish", channel, "--text", "it's \u009b31m text").code == 0
    assert run(cast, "publish", channel, stdin='{"over":\n "lines"}').code == 0
    assert run(cast, "publish", channel, "-", "--text", stdin="two\nlines\n").code == 0
    shown = run(cast, "listen", "--count", "3").stdout.splitlines()
    assert [line.split(": ", 1)[1] for line in shown] == ['"it\'s \\u009b31m text"', '{"over":"lines"}', '"two\\nlines\\n"']


def test_each_line_of_standard_input_is_a_message_in_order(cast: Cast) -> None:
    lines = "\n".join(str(number) for number in range(300)) + "\n\n"
    done = run(cast, "publish", cast.channels[0], "--lines", "--json", stdin=lines)
    assert done.code == 0
    seqs = [json.loads(line)["seq"] for line in done.stdout.splitlines()]
    assert len(seqs) == 300
    assert seqs == sorted(seqs)
    assert [message["data"] for message in heard(cast, 300)] == list(range(300))


def test_a_key_stores_a_message_once(cast: Cast) -> None:
    first, again = (run(cast, "publish", cast.channels[0], "1", "--message-key", "order-42").stdout for _ in range(2))
    assert again == first.replace("\n", " (stored before)\n")


def test_acknowledged_messages_are_printed_once_and_others_again(cast: Cast) -> None:
    run(cast, "publish", cast.channels[0], "--lines", stdin="1\n2\n3\n")
    assert [message["data"] for message in heard(cast, 2, "--no-ack")] == [1, 2]
    assert [message["data"] for message in heard(cast, 2)] == [1, 2]
    assert [message["data"] for message in heard(cast, 1)] == [3]
    assert [message["data"] for message in heard(cast, 2, cast.channels[0], "--from", "first", "--no-ack")] == [1, 2]
    second = heard(cast, 2, cast.channels[0], "--from", "first", "--no-ack")[1]["seq"]
    assert [message["data"] for message in heard(cast, 1, cast.channels[0], "--from", str(second), "--no-ack")] == [2]


# --- what goes wrong -----------------------------------------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["publish"], "Missing argument 'CHANNEL'"),
        (["publish", "chn_1", "{bad"], "DATA is not JSON"),
        (["publish", "chn_1", "1", "--lines"], "--lines reads standard input"),
        (["publish", "chn_1", "--lines", "--message-key", "k"], "--lines reads standard input"),
        (["publish", "chn_1", "1", "--header", "trace"], "'trace' is not NAME=VALUE"),
        (["listen", "--from", "first"], "--from is for named channels"),
        (["listen", "chn_1", "--from", "yesterday"], "none of cursor, new, first and a sequence"),
        (["listen", "chn_1", "--from", "0"], "none of cursor, new, first and a sequence"),
        (["listen", "--count", "0"], "--count"),
        (["frobnicate"], "No such command"),
    ],
)
def test_a_wrong_command_ends_with_2_and_says_what_is_wrong(home: Cast, arguments: list[str], problem: str) -> None:
    done = run(home, *arguments)
    assert (done.code, done.stdout) == (2, "")
    assert problem in done.stderr


def test_without_an_agent_the_command_says_what_is_missing(home: Cast) -> None:
    done = run(home, "listen", AGENT="", KEY="")
    assert done.code == 2
    assert "missing --agent, --key; in the environment: ARTCAFE_AGENT, ARTCAFE_KEY" in done.stderr


def test_bytes_that_are_no_text_are_refused(cast: Cast) -> None:
    for arguments in (["--text"], ["--lines", "--text"], []):
        done = run(cast, "publish", cast.channels[0], *arguments, stdin=b'"\xff"')
        assert (done.code, done.stdout) == (2, "")
        assert "not UTF-8" in done.stderr


@pytest.mark.parametrize("command", [["login"], ["publish", "chn_1", "1"], ["listen"]])
def test_what_the_server_refuses_ends_with_3_and_one_sentence(home: Cast, command: list[str]) -> None:
    done = run(home, *command, AGENT="agt_nobody")
    assert (done.code, done.stdout) == (3, "")
    assert done.stderr.startswith("artcafe: the login was refused")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [["login"], ["publish", "chn_1", "1"], ["publish", "chn_1", "--lines"], ["listen"]])
def test_where_nobody_answers_it_ends_with_4(home: Cast, command: list[str]) -> None:
    done = run(home, *command, "--wait", "0.1", URL=f"http://127.0.0.1:{closed_port()}")
    assert (done.code, done.stdout) == (4, "")
    assert "connection refused" in done.stderr.splitlines()[-1]


def test_with_json_an_error_is_json_on_standard_error(cast: Cast) -> None:
    done = run(cast, "publish", "chn_nowhere", "1", "--json")
    assert (done.code, done.stdout) == (3, "")
    error = json.loads(done.stderr)["error"]
    assert error["code"] == "channel_not_found"
    assert "no channel" in error["message"]


def test_a_key_file_that_is_not_there_is_named(home: Cast, tmp_path: Path) -> None:
    done = run(home, "listen", KEY=str(tmp_path / "nothing"))
    assert done.code == 2
    assert str(tmp_path / "nothing") in done.stderr


def test_without_a_url_it_is_the_server_of_the_data_folder(platform: Platform, cast: Cast, tmp_path: Path) -> None:
    assert run(cast, "login", URL="", DATA_DIR=str(platform.data)).code == 0
    done = run(cast, "login", "--wait", "0", URL="", DATA_DIR=str(tmp_path / "nothing"))
    assert (done.code, "http://127.0.0.1:8080" in done.stderr) in {(4, True), (3, False)}  # (3: somebody listens there)


@pytest.fixture
def locked(cast: Cast, tmp_path: Path) -> Path:
    """The first agent's key, under a passphrase."""
    path = tmp_path / "locked"
    path.write_bytes(cast.keys[0].read_bytes())
    path.chmod(0o600)
    ssh_keygen.run("-q", "-p", "-P", "", "-N", "open sesame", "-f", str(path))
    return path


def test_a_locked_key_names_the_ways_to_open_it_where_nobody_can_be_asked(cast: Cast, locked: Path) -> None:
    done = run(cast, "login", KEY=str(locked))
    assert (done.code, done.stdout) == (2, "")
    assert "is protected by a passphrase" in done.stderr
    assert "ssh-add it and name its .pub file" in done.stderr


@pytest.mark.parametrize(("answer", "code", "told"), [("open sesame", 0, "eyJ"), ("guess", 2, "the passphrase is wrong")])
def test_at_a_terminal_the_passphrase_is_asked_for_and_not_shown(
    cast: Cast, locked: Path, answer: str, code: int, told: str
) -> None:
    pid, terminal = pty.fork()  # the passphrase is read from the terminal itself, whatever standard input is
    if not pid:
        os.execve(sys.executable, [*COMMAND, "login"], environ(cast, KEY=str(locked)))  # noqa: S606 (the child is the command)
    try:
        shown = _read(terminal, until=b": ")
        assert b"Passphrase of" in shown
        os.write(terminal, f"{answer}\n".encode())
        shown = _read(terminal)
    finally:
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == code
    assert told in shown.decode()
    assert answer not in shown.decode()


def _read(terminal: int, until: bytes | None = None) -> bytes:
    """What the command prints, up to there or to its end, which a terminal tells as an error."""
    found = b""
    with contextlib.suppress(OSError):
        while until is None or not found.endswith(until):
            if not (some := os.read(terminal, 1024)):
                break
            found += some
    return found


def test_the_line_that_fails_is_named_and_those_before_it_are_published(cast: Cast) -> None:
    done = run(cast, "publish", cast.channels[0], "--lines", stdin="1\n2\n{bad\n4\n")
    assert done.code == 2
    assert len(done.stdout.splitlines()) == 2
    assert "line 3 is not JSON" in done.stderr
    too_long = json.dumps("x" * 70_000)
    done = run(cast, "publish", cast.channels[0], "--lines", stdin=f"1\n{too_long}\n")
    assert done.code == 3
    assert "line 2: the message is larger than 65536 bytes" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("arguments", [["listen"], ["publish", "CHANNEL", "--lines"]])
def test_a_signal_ends_it_with_130_and_no_traceback_and_its_acks_are_kept(
    cast: Cast, arguments: list[str], number: signal.Signals
) -> None:
    run(cast, "publish", cast.channels[0], "1")
    command = [*COMMAND, *(argument.replace("CHANNEL", cast.channels[0]) for argument in arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ(cast)
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"2\n")
        process.stdin.flush()
        assert process.stdout.readline()  # It is connected, and prints what comes.
        process.send_signal(number)
        assert process.wait(10) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""
    if arguments == ["listen"]:
        run(cast, "publish", cast.channels[0], '"the end"')
        assert [message["data"] for message in heard(cast, 1)] == ["the end"]


async def test_listen_says_that_nothing_comes_where_no_subscription_is_active(home: Cast) -> None:
    cast = await recast(home, subscribed=False)
    (channel,) = cast.channels
    for notice in ("it has no subscription", f"all its subscriptions are paused ({channel})"):
        listening = await asyncio.create_subprocess_exec(
            *COMMAND, "listen", stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environ(cast)
        )
        assert listening.stderr is not None
        async with asyncio.timeout(20):
            expected = f"artcafe: nothing comes to {cast.agents[0]} as long as {notice}\n"
            assert (await listening.stderr.readline()).decode() == expected
            listening.terminate()
            await listening.wait()
        async with home.rest() as rest:
            await rest.subscribe(cast.tenant, channel, cast.agents[0])
            await rest.update_subscription(cast.tenant, channel, cast.agents[0], status="paused")


def test_a_reader_that_has_enough_ends_it_quietly(cast: Cast) -> None:
    run(cast, "publish", cast.channels[0], "--lines", stdin="1\n2\n3\n")
    listening = subprocess.Popen([*COMMAND, "listen"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ(cast))
    assert listening.stdout is not None
    assert listening.stderr is not None
    listening.stdout.readline()
    listening.stdout.close()
    run(cast, "publish", cast.channels[0], "4")
    listening.wait(10)
    assert listening.stderr.read() == b""
    listening.stderr.close()
