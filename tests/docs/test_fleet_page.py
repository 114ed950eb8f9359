"""docs/fleet.md: its servers start and its commands succeed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from artcafe.fabric.embedded.process import some_free_port

PAGE = (Path(__file__).parents[2] / "docs" / "fleet.md").read_text()
BIN = Path(sys.executable).parent
STORY_S = 140.0
"""For thirteen processes of Python, on a machine that is busy with other tests."""

TYPED = re.findall(r"^    \$ (.*)$", PAGE, re.MULTILINE)


@pytest.mark.timeout(150)
def test_two_servers_of_the_page_carry_a_message_from_one_to_the_other(tmp_path: Path) -> None:
    script = "\n".join(TYPED)
    for port in sorted(set(re.findall(r"127\.0\.0\.1:(\d+)", script))):
        script = script.replace(f":{port}", f":{some_free_port()}")
    # End the shell's background processes with it.
    whole = f"set -euo pipefail\ntrap 'kill $(jobs -p) && wait || true' EXIT\n{script}\n"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ARTCAFE_")}
    environ |= {"PATH": f"{BIN}{os.pathsep}{environ.get('PATH', '')}", "NO_PROXY": "127.0.0.1"}
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            ["bash", "-c", whole],
            cwd=tmp_path,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        ) as shell,
    ):
        try:
            printed, _ = shell.communicate(timeout=STORY_S)
        finally:  # After a timeout, the servers still run.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGTERM)
    assert shell.returncode == 0, (printed, (tmp_path / "log").read_text()[-3000:])
    assert '"tables":"ok"' in printed.replace(" ", "")
    received, stored = printed.splitlines()[-2:]
    assert "hello from the other server" in received
    assert stored.startswith("#2 msg_")


def test_cluster_commands_of_the_page_succeed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s" * 32)
    (tmp_path / "secret").chmod(0o600)
    shown = re.findall(r"^    artcafe (nats config .*)$", PAGE, re.MULTILINE)
    assert len(shown) == 3
    for command in shown:
        done = subprocess.run(
            [BIN / "artcafe", *command.split(), "--secret-file", tmp_path / "secret"],
            cwd=tmp_path,
            capture_output=True,
            check=False,
            timeout=STORY_S,
        )
        assert done.returncode == 0, done.stderr
        assert (tmp_path / command.split()[-1]).stat().st_mode & 0o777 == 0o600
