"""The commands of an agent (login, publish, listen) against a running platform."""

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
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner

from artcafe import Request
from artcafe.cli.manage.agents import agent
from artcafe.cli.terminal.exit_codes import UNREACHABLE
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
    """Return the environment of the first agent."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("ARTCAFE_")}
    account = {"URL": cast.url, "TENANT": cast.tenant, "AGENT": cast.agents[0], "KEY": str(cast.keys[0])}
    return plain | {f"ARTCAFE_{name}": value for name, value in (account | changed).items()}


@dataclass(frozen=True)
class AgentCommandResult:
    """Exit code and output of a command."""

    code: int
    stdout: str
    stderr: str


def run(cast: Cast, *arguments: str, stdin: str | bytes = "", **changed: str) -> AgentCommandResult:
    """Run a command. With `--lines` it runs in a process of its own, with a real standard input."""
    env = environ(cast, **changed)
    if "--lines" in arguments:
        text = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run([*COMMAND, *arguments], input=text, capture_output=True, timeout=30, check=False, env=env)
        return AgentCommandResult(done.returncode, done.stdout.decode(), done.stderr.decode())
    result = CliRunner().invoke(agent, arguments, input=stdin, env=env)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return AgentCommandResult(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """Restore logging, which a command configures for its process."""
    log = logging.getLogger("artcafe")
    before = (list(log.handlers), log.propagate)
    yield
    log.handlers[:], log.propagate = before


def received(cast: Cast, count: int, *arguments: str) -> list[dict[str, object]]:
    """Return the next messages printed by `listen --json`."""
    done = run(cast, "listen", "--json", "--count", str(count), *arguments)
    assert done.code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


# --- login ---------------------------------------------------------------------------------------------------------------


def test_login_prints_a_valid_access_token(cast: Cast) -> None:
    printed = run(cast, "login").stdout.strip()
    as_json = json.loads(run(cast, "login", "--json").stdout)
    assert (as_json["token_type"], as_json["expires_in"]) == ("Bearer", 900)
    for token in (printed, as_json["access_token"]):
        me = httpx2.get(f"{cast.url}/v1/me", headers={"Authorization": f"Bearer {token}"})
        assert me.json()["agent_id"] == cast.agents[0]


@pytest.mark.parametrize("command", [["login"], ["listen", "--count", "1"], ["publish", "CHANNEL", "1"]])
def test_service_option_refuses_to_log_in_to_another_service(cast: Cast, command: list[str]) -> None:
    done = run(cast, *(word.replace("CHANNEL", cast.channels[0]) for word in command), SERVICE="artcafe:another")
    assert done.code == 3
    assert "not 'artcafe:another'" in done.stderr


# --- publish and listen --------------------------------------------------------------------------------------------------


def test_published_message_is_printed_by_listen(cast: Cast) -> None:
    done = run(cast, "publish", cast.channels[0], '{"task": "summarise"}', "--header", "trace=7f3a", "--reply-to", "here")
    assert done.code == 0
    seq, message_id = re.fullmatch(r"#(\d+) (msg_\w+)\n", done.stdout).groups()  # type: ignore[union-attr]  # no match is a failure
    shown = run(cast, "listen", "--count", "1", "--no-ack")
    (message,) = received(cast, 1)
    named = f"{message['channel_handle']} #{seq} {message['from_handle']}"
    assert re.fullmatch(rf'[\d-]+T[\d:]+Z {re.escape(named)}: {{"task": "summarise"}}\n', shown.stdout)
    assert (message["seq"], message["message_id"]) == (int(seq), message_id)
    assert (message["channel"], message["from"]) == (cast.channels[0], cast.agents[0])
    assert (message["data"], message["headers"], message["reply_to"]) == ({"task": "summarise"}, {"trace": "7f3a"}, "here")


def test_publish_reads_json_or_text_from_argument_or_stdin(cast: Cast) -> None:
    channel = cast.channels[0]
    assert run(cast, "publish", channel, "--text", "it's \u009b31m text").code == 0
    assert run(cast, "publish", channel, stdin='{"over":\n "lines"}').code == 0
    assert run(cast, "publish", channel, "-", "--text", stdin="two\nlines\n").code == 0
    shown = run(cast, "listen", "--count", "3").stdout.splitlines()
    assert [line.split(": ", 1)[1] for line in shown] == ['"it\'s \\u009b31m text"', '{"over":"lines"}', '"two\\nlines\\n"']


def test_lines_option_publishes_each_line_in_order(cast: Cast) -> None:
    lines = "\n".join(str(number) for number in range(300)) + "\n\n"
    done = run(cast, "publish", cast.channels[0], "--lines", "--json", stdin=lines)
    assert done.code == 0
    seqs = [json.loads(line)["seq"] for line in done.stdout.splitlines()]
    assert len(seqs) == 300
    assert seqs == sorted(seqs)
    assert [message["data"] for message in received(cast, 300)] == list(range(300))


def test_message_key_stores_a_message_once(cast: Cast) -> None:
    first, again = (run(cast, "publish", cast.channels[0], "1", "--message-key", "order-42").stdout for _ in range(2))
    assert again == first.replace("\n", " (stored before)\n")


def test_listen_prints_acknowledged_messages_once_and_others_again(cast: Cast) -> None:
    run(cast, "publish", cast.channels[0], "--lines", stdin="1\n2\n3\n")
    assert [message["data"] for message in received(cast, 2, "--no-ack")] == [1, 2]
    assert [message["data"] for message in received(cast, 2)] == [1, 2]
    assert [message["data"] for message in received(cast, 1)] == [3]
    assert [message["data"] for message in received(cast, 2, cast.channels[0], "--from", "first", "--no-ack")] == [1, 2]
    second = received(cast, 2, cast.channels[0], "--from", "first", "--no-ack")[1]["seq"]
    assert [message["data"] for message in received(cast, 1, cast.channels[0], "--from", str(second), "--no-ack")] == [2]


# --- errors --------------------------------------------------------------------------------------------------------------


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
        (["listen", "--from", "first"], "--from requires named channels"),
        (["listen", "chn_1", "--from", "yesterday"], "not cursor, new, first or a sequence"),
        (["listen", "chn_1", "--from", "0"], "not cursor, new, first or a sequence"),
        (["listen", "--count", "0"], "--count"),
        (["frobnicate"], "No such command"),
    ],
)
def test_invalid_command_exits_with_2_and_prints_the_reason(home: Cast, arguments: list[str], problem: str) -> None:
    done = run(home, *arguments)
    assert (done.code, done.stdout) == (2, "")
    assert problem in done.stderr


def test_missing_credentials_are_named_with_their_variables(home: Cast) -> None:
    done = run(home, "listen", AGENT="", KEY="")
    assert done.code == 2
    assert "missing --agent, --key (environment: ARTCAFE_AGENT, ARTCAFE_KEY)" in done.stderr


def test_invalid_utf8_on_stdin_is_refused(cast: Cast) -> None:
    for arguments in (["--text"], ["--lines", "--text"], []):
        done = run(cast, "publish", cast.channels[0], *arguments, stdin=b'"\xff"')
        assert (done.code, done.stdout) == (2, "")
        assert "not UTF-8" in done.stderr


@pytest.mark.parametrize("command", [["login"], ["publish", "chn_1", "1"], ["listen"]])
def test_refused_login_exits_with_3_and_prints_one_sentence(home: Cast, command: list[str]) -> None:
    done = run(home, *command, AGENT="agt_nobody")
    assert (done.code, done.stdout) == (3, "")
    assert done.stderr.startswith("artcafe: the login was refused")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [["login"], ["publish", "chn_1", "1"], ["publish", "chn_1", "--lines"], ["listen"]])
def test_unreachable_server_exits_with_4(home: Cast, command: list[str]) -> None:
    done = run(home, *command, "--wait", "0.1", URL=f"http://127.0.0.1:{closed_port()}")
    assert (done.code, done.stdout) == (4, "")
    assert "connection refused" in done.stderr.splitlines()[-1]


async def test_ask_prints_the_answers_of_the_other_agent(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=2, channels=0)
    other = cast.agent(1)

    @other.on_request
    async def count(request: Request) -> AsyncIterator[object]:
        for number in range(2):
            yield [request.data, number, dict(request.headers)]

    async with other:
        one = await asyncio.to_thread(run, cast, "ask", cast.agents[1], '{"n": 1}', "--header", "trace=7f3a")
        assert (one.code, one.stdout) == (0, '[{"n":1},0,{"trace":"7f3a"}]\n')
        both = await asyncio.to_thread(run, cast, "ask", cast.agents[1], "--text", "-", "--stream", stdin="hi")
        assert (both.code, both.stdout) == (0, '["hi",0,{}]\n["hi",1,{}]\n')
    away = await asyncio.to_thread(run, cast, "ask", cast.agents[1], "1")
    assert (away.code, away.stdout) == (UNREACHABLE, "")
    assert "is not connected" in away.stderr


def test_json_option_prints_errors_as_json_on_stderr(cast: Cast) -> None:
    done = run(cast, "publish", "chn_nowhere", "1", "--json")
    assert (done.code, done.stdout) == (3, "")
    error = json.loads(done.stderr)["error"]
    assert error["code"] == "channel_not_found"
    assert "no channel" in error["message"]


def test_missing_key_file_is_named(home: Cast, tmp_path: Path) -> None:
    done = run(home, "listen", KEY=str(tmp_path / "nothing"))
    assert done.code == 2
    assert str(tmp_path / "nothing") in done.stderr


def test_default_server_is_that_of_the_data_folder(platform: Platform, cast: Cast, tmp_path: Path) -> None:
    assert run(cast, "login", URL="", DATA_DIR=str(platform.data)).code == 0
    done = run(cast, "login", "--wait", "0", URL="", DATA_DIR=str(tmp_path / "nothing"))
    assert (done.code, "http://127.0.0.1:8080" in done.stderr) in {(4, True), (3, False)}  # 3: another program listens there.


@pytest.fixture
def locked(cast: Cast, tmp_path: Path) -> Path:
    """Return the first agent's key, encrypted with a passphrase."""
    path = tmp_path / "locked"
    path.write_bytes(cast.keys[0].read_bytes())
    path.chmod(0o600)
    ssh_keygen.run("-q", "-p", "-P", "", "-N", "open sesame", "-f", str(path))
    return path


def test_encrypted_key_without_a_terminal_prints_the_remedies(cast: Cast, locked: Path) -> None:
    done = run(cast, "login", KEY=str(locked))
    assert (done.code, done.stdout) == (2, "")
    assert "has a passphrase" in done.stderr
    assert "ssh-add it and name its .pub file" in done.stderr


@pytest.mark.parametrize(("answer", "code", "output"), [("open sesame", 0, "eyJ"), ("guess", 2, "the passphrase is wrong")])
def test_passphrase_is_prompted_for_at_a_terminal_without_echo(
    cast: Cast, locked: Path, answer: str, code: int, output: str
) -> None:
    pid, terminal = pty.fork()  # The passphrase is read from the terminal itself, not from standard input.
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
    assert output in shown.decode()
    assert answer not in shown.decode()


def _read(terminal: int, until: bytes | None = None) -> bytes:
    """Return the command's output until `until`, or until its end, which a terminal reports as OSError."""
    found = b""
    with contextlib.suppress(OSError):
        while until is None or not found.endswith(until):
            if not (some := os.read(terminal, 1024)):
                break
            found += some
    return found


def test_lines_before_a_failing_line_are_published_and_the_error_names_it(cast: Cast) -> None:
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
def test_signal_exits_with_130_without_traceback_and_keeps_acks(cast: Cast, arguments: list[str], number: signal.Signals) -> None:
    run(cast, "publish", cast.channels[0], "1")
    command = [*COMMAND, *(argument.replace("CHANNEL", cast.channels[0]) for argument in arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ(cast)
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"2\n")
        process.stdin.flush()
        assert process.stdout.readline()  # The command is connected, and prints messages.
        process.send_signal(number)
        assert process.wait(10) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""
    if arguments == ["listen"]:
        run(cast, "publish", cast.channels[0], '"the end"')
        assert [message["data"] for message in received(cast, 1)] == ["the end"]


def test_sigterm_ends_a_command_that_a_script_started_in_the_background(cast: Cast) -> None:
    run(cast, "publish", cast.channels[0], "1")
    in_background = ["sh", "-c", '"$@" & echo $!; wait $!', "-", *COMMAND, "listen"]
    with subprocess.Popen(in_background, stdout=subprocess.PIPE, env=environ(cast), text=True) as shell:
        assert shell.stdout is not None
        pid = int(shell.stdout.readline())
        assert shell.stdout.readline()  # The command is connected, and prints messages.
        os.kill(pid, signal.SIGTERM)
        assert shell.wait(10) == 130


async def test_listen_notes_that_no_subscription_is_active(home: Cast) -> None:
    cast = await recast(home, subscribed=False)
    (channel,) = cast.channels
    for notice in ("it has no subscription", f"all its subscriptions are paused ({channel})"):
        listening = await asyncio.create_subprocess_exec(
            *COMMAND, "listen", stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environ(cast)
        )
        assert listening.stderr is not None
        async with asyncio.timeout(20):
            expected = f"artcafe: {cast.agents[0]} will receive nothing: {notice}\n"
            assert (await listening.stderr.readline()).decode() == expected
            listening.terminate()
            await listening.wait()
        async with home.rest() as rest:
            await rest.tenant(cast.tenant).subscriptions.create(channel, cast.agents[0])
            await rest.tenant(cast.tenant).subscriptions.update(channel, cast.agents[0], status="paused")


def test_closed_output_pipe_ends_listen_without_an_error(cast: Cast) -> None:
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
