"""A disk that is full or had an error: a running server stops cleanly, and a start explains what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.children import ended_with_parent
from tests.conftest import Require
from tests.faults import disk as disks
from tests.faults.processes import wait_for
from tests.platform import Platform, running

SIZE_MIB = 96
REFUSED = 3


def start(data: Path) -> tuple[int, str]:
    """Return the exit code and the text of a refused start."""
    command: list[str | Path] = [sys.executable, "-m", "artcafe", "up", "--data-dir", data]
    command += ["--listen", "127.0.0.1:0", "--gateway-listen", "127.0.0.1:0"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ARTCAFE_")}
    done = subprocess.run(ended_with_parent(command), capture_output=True, text=True, env=environ, check=False, timeout=60)
    return done.returncode, done.stderr


@pytest.mark.faults
@pytest.mark.timeout(180)
def test_start_on_a_full_disk_asks_for_space(require: Require, tmp_path: Path) -> None:
    require(disks.NEEDS, disks.is_possible())
    with disks.mounted(tmp_path, tmp_path / "disk", SIZE_MIB) as disk:
        with running(tmp_path / "disk"):
            pass
        disk.fill()
        for data in (tmp_path / "disk" / "data", tmp_path / "disk" / "new"):
            code, output = start(data)
            assert (code, "free space on the disk" in output, "Traceback" in output) == (REFUSED, True, False), output
        disk.make_room()
        with running(tmp_path / "disk"):
            pass


@pytest.mark.faults
@pytest.mark.timeout(180)
def test_on_a_disk_with_an_error_a_server_is_not_ready_stops_and_does_not_start_again(require: Require, tmp_path: Path) -> None:
    require(disks.NEEDS, disks.is_possible())
    with disks.mounted(tmp_path, tmp_path / "disk", SIZE_MIB) as disk:
        platform = Platform(tmp_path / "server", ["--data-dir", str(tmp_path / "disk" / "data")])
        platform.data = tmp_path / "disk" / "data"
        platform.start()
        try:
            disk.abort()
            wait_for(
                lambda: httpx2.get(f"{platform.url}/health/ready", timeout=10).status_code == 503, "a server that is not ready"
            )
        finally:
            code = platform.stop()
        assert (code, "Traceback" in platform.log()) == (0, False)
        for data in (tmp_path / "disk" / "data", tmp_path / "disk" / "new"):
            code, output = start(data)
            assert (code, "read-only or broken" in output, "Traceback" in output) == (REFUSED, True, False), output
