from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from artcafe import data_dir
from artcafe.data_dir import DataDir, make_secret, read_secret, read_server_info
from artcafe.errors import StartRefused


def test_folder_is_created_private_and_can_be_acquired_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "data"

    first = DataDir.acquire(path)
    assert path.stat().st_mode & 0o777 == 0o700
    first.release()
    first.release()

    DataDir.acquire(path).release()


def test_folder_in_use_error_names_the_process_and_a_remedy(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys; from artcafe.data_dir import DataDir; "
        "DataDir.acquire(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StartRefused, match=rf"in use by another artcafe \(process {holder.pid}\)(.|\n)*--data-dir"):
            DataDir.acquire(tmp_path)
        holder.communicate()

    DataDir.acquire(tmp_path).release()


def test_folder_of_a_newer_version_is_unchanged(tmp_path: Path) -> None:
    (tmp_path / "format").write_text("2\n")

    with pytest.raises(StartRefused, match=r"written by a newer artcafe \(format '2'"):
        DataDir.acquire(tmp_path)

    assert (tmp_path / "format").read_text() == "2\n"
    (tmp_path / "format").write_text("1\n")
    DataDir.acquire(tmp_path).release()


@pytest.mark.parametrize("content", ["²", "9" * 5000, "", "one"])
def test_invalid_format_file_is_refused_and_the_folder_released(tmp_path: Path, content: str) -> None:
    (tmp_path / "format").write_text(content)

    with pytest.raises(StartRefused, match="format"):
        DataDir.acquire(tmp_path)

    (tmp_path / "format").unlink()
    DataDir.acquire(tmp_path).release()


def test_path_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StartRefused, match="cannot be written"):
        DataDir.acquire(tmp_path / "file")


def test_unwritable_folder_is_refused_and_released(tmp_path: Path) -> None:
    (tmp_path / "format").mkdir()

    with pytest.raises(StartRefused, match="cannot be used"):
        DataDir.acquire(tmp_path)

    (tmp_path / "format").rmdir()
    DataDir.acquire(tmp_path).release()


def test_server_info_is_readable_while_the_server_runs(tmp_path: Path) -> None:
    assert read_server_info(tmp_path) == {}
    held = DataDir.acquire(tmp_path)
    assert read_server_info(tmp_path) == {}

    held.write_server_info("http://127.0.0.1:1", "ws://127.0.0.1:2/v1/connect")
    assert read_server_info(tmp_path) == {"url": "http://127.0.0.1:1", "gateway_url": "ws://127.0.0.1:2/v1/connect"}
    held.write_server_info("http://127.0.0.1:1", "ws://127.0.0.1:2/v1/connect", "https://example.com")
    assert read_server_info(tmp_path)["issuer"] == "https://example.com"

    held.release()
    assert read_server_info(tmp_path) == {}


def test_server_info_of_a_killed_server_is_ignored(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / "server.json").write_text(f'{{"url": "u", "gateway_url": "g", "pid": {gone.pid}}}')

    assert read_server_info(tmp_path) == {}
    (tmp_path / "server.json").write_text('{"url"')
    assert read_server_info(tmp_path) == {}


def test_secret_is_created_once_and_private(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    (tmp_path / f"secret.{os.getpid()}").write_text("left by a process that died here and had our number")

    make_secret(file)
    secret = read_secret(file)
    make_secret(file)

    assert read_secret(file) == secret
    assert len(secret) >= data_dir.SECRET_BYTES
    assert file.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["secret"]


def test_secret_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartRefused, match="cannot be written"):
        make_secret(tmp_path / "none" / "secret")


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [
        (None, 0o600, "cannot be read"),
        (b"x" * 64, 0o640, "can be read by others"),
        (b" short \n", 0o600, "is shorter than 32 bytes"),
    ],
)
def test_invalid_secret_stops_the_start(tmp_path: Path, content: bytes | None, mode: int, problem: str) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
        file.chmod(mode)

    with pytest.raises(StartRefused, match=problem):
        read_secret(file)
