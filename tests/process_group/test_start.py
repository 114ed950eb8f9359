"""Starts of a group that must fail, each with a sentence that says what to do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from artcafe.config import Settings, load
from artcafe.errors import SettingInvalid
from tests.children import ended_with_parent
from tests.platform import running

START_S = 60


def up(data: Path, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "artcafe", "up", "--data-dir", str(data), "--log-level", "info"]
    command += ["--listen", "127.0.0.1:0", "--gateway-listen", "127.0.0.1:0", *flags]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ARTCAFE_")} | variables
    return subprocess.run(ended_with_parent(command), env=environ, capture_output=True, text=True, timeout=START_S, check=False)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "257", "", "²", "true"])
def test_a_number_of_processes_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingInvalid, match=r"PROCESSES: must be a number from 1 to 256, or auto \(got"):
        load({"processes": text}, {})


@pytest.mark.parametrize(("text", "count"), [("1", 1), ("256", 256), ("auto", "auto"), ("Auto", "auto"), (3, 3)])
def test_a_number_of_processes_is_taken_from_text_and_file_alike(text: str, count: int | str) -> None:
    assert load({"processes": text}, {}).processes == count
    assert Settings().processes == 1


def test_more_processes_than_memory_allows_are_refused(tmp_path: Path) -> None:
    refused = up(tmp_path / "data", "--processes", "256")

    assert refused.returncode == 3, refused.stderr
    assert "--processes is 256, and memory is left for" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("flag", ["--listen", "--gateway-listen"])
def test_a_port_that_is_taken_is_refused_before_any_process_starts(tmp_path: Path, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = up(tmp_path / "data", "--processes", "2", flag, f"127.0.0.1:{taken.getsockname()[1]}")

    assert refused.returncode == 3, refused.stderr
    assert "cannot listen on 127.0.0.1:" in refused.stderr
    assert f"choose another with {flag} 127.0.0.1:PORT" in refused.stderr
    assert "process.started" not in refused.stderr


def test_the_ports_of_a_group_cannot_be_shared_by_another(tmp_path: Path) -> None:
    with running(tmp_path / "one", ["--processes", "2"]) as platform:
        refused = up(tmp_path / "two", "--processes", "2", "--listen", platform.url.removeprefix("http://"))

    assert refused.returncode == 3, refused.stderr
    assert "cannot listen on" in refused.stderr


def test_what_a_process_refuses_is_told_as_by_one_process(tmp_path: Path) -> None:
    refused = up(tmp_path / "data", "--processes", "2", "--jwks-url", "https://example.com/keys")

    assert refused.returncode == 3, refused.stderr
    assert "JWKS_URL is set, but ISSUER is not" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_processes_that_die_at_once_again_and_again_end_the_start(tmp_path: Path) -> None:
    broken = tmp_path / "site"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import os, sys\nif any('process_group.worker' in each for each in sys.orig_argv): os._exit(7)\n"
    )
    refused = up(tmp_path / "data", "--processes", "2", PYTHONPATH=str(broken))

    assert refused.returncode == 3, refused.stderr
    assert "none of 2 server processes became ready" in refused.stderr
    assert "at last with: exit status 7" in refused.stderr
    assert "Traceback" not in refused.stderr
    pid_file = tmp_path / "data" / "nats" / "nats.pid"
    assert not pid_file.exists() or not Path(f"/proc/{pid_file.read_text()}").exists()
