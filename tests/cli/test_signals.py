"""A signal while a command starts ends it cleanly, whenever it comes."""

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
    "the first imports": lambda data, told: "artcafe.cli.commands" in told,
    "the server's imports": lambda data, told: "artcafe.wire" in told,
    "the data folder": lambda data, told: (data / "secret").exists(),
    "the tables": lambda data, told: (data / "tables.sqlite").exists(),
    "nats-server": lambda data, told: (data / "nats" / "nats.pid").exists(),
    "the listeners": lambda data, told: (data / "server.json").exists(),
}
"""What is there from a moment on: files, or lines of `-X importtime`."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_during_the_start_ends_it_without_a_traceback_and_leaves_nothing(
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
            # CPython ends by SIGINT, which a shell shows as 130 too, when that interrupted the text that a dataclass is made of.
            assert process.wait(ENDS) in {0, 130, -signal.SIGINT}
        finally:
            process.kill()
    told = [line for line in log.read_text().splitlines() if not line.startswith("import time:")]
    assert "Traceback" not in "\n".join(told)
    assert "Aborted" not in "\n".join(told)
    pid_file = data / "nats" / "nats.pid"
    assert not pid_file.exists() or not _is_nats(pid_file.read_text())


def _is_nats(pid: str) -> bool:
    listed = subprocess.run(["ps", "-o", "command=", "-p", pid or "0"], capture_output=True, text=True, check=False)
    return "nats-server" in listed.stdout
