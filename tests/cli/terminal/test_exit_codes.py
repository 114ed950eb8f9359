"""Output to a closed pipe, a full disk, and a terminal with another encoding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ARTCAFE = [sys.executable, "-m", "artcafe"]


def test_closed_pipe_exits_with_0() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*ARTCAFE, "tables", "export"], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=30, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_full_disk_exits_with_3_and_prints_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*ARTCAFE, "tables", "export"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, check=False
        )
    assert (done.returncode, done.stderr) == (3, "artcafe: the output cannot be written: No space left on device\n")


def test_characters_outside_the_terminals_encoding_are_escaped(tmp_path: Path) -> None:
    command = [*ARTCAFE, "tables", "list", "--data-dir", str(tmp_path / "\u0416")]
    environ = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, capture_output=True, env=environ, timeout=30, check=False)
    assert done.returncode == 0
    assert b"artcafe-agents" in done.stdout
    narrow = subprocess.run(
        [*ARTCAFE, "token", "--user", "a@example.com", *command[-2:]], capture_output=True, env=environ, timeout=30, check=False
    )
    assert (narrow.returncode, b"\\u0416" in narrow.stderr, b"Traceback" in narrow.stderr) == (3, True, False)
