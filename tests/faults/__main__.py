"""Run every fault test, one file after another, and print the tables of all of them: `python -m tests.faults [FILE …]`.

Each file has a process of its own. One that crashes, hangs or exceeds `FILE_S` is reported, and the next one runs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.faults.conftest import SEED
from tests.faults.fault_tables import TABLES_FILE, FaultTables

ROOT: Final = Path(__file__).parents[2]
OTHERS: Final = ("tests/tables/dynamodb/test_faults.py", "tests/fabric/test_cluster.py")
FILE_S: Final = 3600.0
TEST_S: Final = 300
"""Timeout of a test that has none of its own. With `--faults` a test repeats its fault, some on a machine with other work."""
END_S: Final = 60.0
"""How long a file has to end its processes after an interrupt."""


def main(arguments: Sequence[str]) -> int:
    """Return the exit status: 1 if a file failed."""
    files = arguments or [*(str(file.relative_to(ROOT)) for file in sorted(Path(__file__).parent.glob("test_*.py"))), *OTHERS]
    tables, outcomes = FaultTables(), list[str]()
    with TemporaryDirectory() as folder:
        for file in files:
            began, written = time.monotonic(), Path(folder) / "tables.json"
            outcome = _run(file, written)
            if written.exists():
                tables.add(written.read_bytes())
                written.unlink()
            outcomes.append(f"{outcome:10} {time.monotonic() - began:6.0f} s  {file}")
            _print(outcomes[-1])
    _print(tables.text(SEED), "", *outcomes)
    return int(any(not each.startswith("passed") for each in outcomes))


def _print(*lines: str) -> None:
    sys.stdout.write("\n".join([*lines, ""]))
    sys.stdout.flush()


def _run(file: str, tables: Path) -> str:
    """Run one file, and return how it ended."""
    command = [sys.executable, "-m", "pytest", file, "--faults", "-q", f"--timeout={TEST_S}"]
    environ = {**os.environ, TABLES_FILE: str(tables), "ARTCAFE_TEST_SEED": str(SEED)}
    # A group of its own: an interrupt reaches pytest, which then ends the processes that its tests have started.
    with subprocess.Popen(command, cwd=ROOT, env=environ, process_group=0) as process:
        try:
            status = process.wait(FILE_S)
        except BaseException as exc:
            _end(process)
            if not isinstance(exc, subprocess.TimeoutExpired):
                raise
            return "timed out"
    return {0: "passed", 1: "failed", 5: "passed"}.get(status, f"status {status}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
