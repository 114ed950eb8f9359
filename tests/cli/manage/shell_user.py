"""A user of the command line, and helpers for commands in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from artcafe.cli.commands import artcafe
from tests import ssh_keygen

WAIT_S = 30
"""Timeout of a process, on a machine that runs other tests at the same time."""
SECONDS_PER_TRY = 5


@dataclass(frozen=True)
class CommandResult:
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

    def run(self, *arguments: str, stdin: str | bytes = "") -> CommandResult:
        others = dict.fromkeys(name for name in os.environ if name.startswith("ARTCAFE_"))
        result = CliRunner().invoke(artcafe, arguments, input=stdin, env=others | self.variables())
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return CommandResult(result.exit_code, result.stdout, result.stderr)

    def but(self, **changed: str) -> Person:
        return Person(self.environ | changed)

    def without(self, *names: str) -> Person:
        return Person({name: value for name, value in self.environ.items() if name not in names})


def public_key(folder: Path, name: str = "key") -> str:
    return f"{ssh_keygen.make_key(folder / name)}.pub"


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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
