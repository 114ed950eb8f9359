"""A signal at any moment of a server's start ends it cleanly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.children import ended_with_parent
from tests.faults.processes import wait_for

ENDS: int = 30

MOMENTS: dict[str, Callable[[Path, str], bool]] = {
    "the first imports": lambda data, log: "artcafe.cli.commands" in log,
    "the server's imports": lambda data, log: "artcafe.wire" in log,
    "the data folder": lambda data, log: (data / "secret").exists(),
    "the tables": lambda data, log: (data / "tables.sqlite").exists(),
    "nats-server": lambda data, log: (data / "nats" / "nats.pid").exists(),
    "the listeners": lambda data, log: (data / "server.json").exists(),
}
"""Conditions that mark a moment of the start: files, or lines of `-X importtime`."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", MOMENTS)
def test_signal_during_start_ends_without_traceback_and_stops_nats_server(
    tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    data, log = tmp_path / "data", tmp_path / "log"
    command = [sys.executable, "-X", "importtime", "-m", "artcafe", "up", "--data-dir", str(data)]
    command += ["--listen", "127.0.0.1:0", "--gateway-listen", "127.0.0.1:0"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ARTCAFE_")}
    with log.open("wb") as out, subprocess.Popen(ended_with_parent(command), stdout=out, stderr=out, env=environ) as process:
        try:
            wait_for(lambda: MOMENTS[moment](data, log.read_text()), moment)
            process.send_signal(number)
            assert process.wait(ENDS) in {0, 130}
        finally:
            process.kill()
    printed = [line for line in log.read_text().splitlines() if not line.startswith("import time:")]
    assert "Traceback" not in "\n".join(printed)
    assert "Aborted" not in "\n".join(printed)
    pid_file = data / "nats" / "nats.pid"
    assert not pid_file.exists() or not _is_nats(pid_file.read_text())


def _is_nats(pid: str) -> bool:
    listed = subprocess.run(["ps", "-o", "command=", "-p", pid or "0"], capture_output=True, text=True, check=False)
    return "nats-server" in listed.stdout
