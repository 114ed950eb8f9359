"""A group in which a server process cannot be started, or starts while nats-server moves."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.faults.processes import wait_for
from tests.platform import Platform, running
from tests.process_group.groups import (
    PROCESSES,
    children_of,
    command_of,
    events,
    kill,
    readiness,
    wait_until_all_serve,
    worker_pids,
)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """Return the interpreter of a virtual environment of its own, made of links to this one."""
    environment, ours = tmp_path / "venv", Path(sys.prefix)
    (environment / "bin").mkdir(parents=True)
    for name in ("pyvenv.cfg", "lib"):
        (environment / name).symlink_to(ours / name)
    python = environment / "bin" / "python"
    python.symlink_to(sys.executable)
    return python


@pytest.fixture
def platform(tmp_path: Path, python: Path) -> Iterator[Platform]:
    with running(tmp_path / "group", PROCESSES, python=python) as platform:
        wait_until_all_serve(platform)
        yield platform


@contextmanager
def missing(file: Path) -> Iterator[None]:
    """Move a file away within this block, as an upgrade of the installation does for a moment."""
    away = file.rename(file.with_name("away"))
    try:
        yield
    finally:
        away.rename(file)


def test_process_that_cannot_be_restarted_is_tried_again_and_the_other_continues(platform: Platform, python: Path) -> None:
    before = worker_pids(platform)

    with missing(python):
        kill(before[1])
        wait_for(lambda: len(events(platform, "process.not_started")) >= 2, "two failed starts")
        assert worker_pids(platform) == {2: before[2]}
        assert readiness(platform.url)["processes"] == "1 of 2 server processes serve"

    wait_until_all_serve(platform)
    assert worker_pids(platform)[2] == before[2]
    assert platform.stop() == 0


def test_rolling_restart_whose_process_cannot_be_started_leaves_every_process_unchanged(platform: Platform, python: Path) -> None:
    assert platform.process is not None
    before = worker_pids(platform)

    with missing(python):
        platform.process.send_signal(signal.SIGHUP)
        wait_for(lambda: bool(events(platform, "group.restart_stopped")), "the end of the rolling restart")
        assert worker_pids(platform) == before
        assert readiness(platform.url)["processes"] == "ok"

    platform.process.send_signal(signal.SIGHUP)
    wait_for(lambda: bool(events(platform, "group.restarted")), "a rolling restart")
    assert not set(worker_pids(platform).values()) & set(before.values())


def test_replacement_that_starts_while_nats_server_moves_to_another_port_becomes_ready(platform: Platform) -> None:
    assert platform.process is not None
    before = _all_workers(platform)
    platform.process.send_signal(signal.SIGHUP)
    wait_for(lambda: bool(_all_workers(platform) - before), "a replacement")
    (replacement,) = _all_workers(platform) - before
    os.kill(replacement, signal.SIGSTOP)
    with _port_of_nats_taken(platform):
        wait_for(lambda: bool(events(platform, "nats.restarted")), "nats-server on another port")

        os.kill(replacement, signal.SIGCONT)

        wait_for(lambda: bool(events(platform, "group.restarted") or events(platform, "group.restart_stopped")), "an end")
        assert events(platform, "group.restarted"), platform.log()[-3000:]
        assert worker_pids(platform)[1] == replacement
        wait_until_all_serve(platform)


def _all_workers(platform: Platform) -> set[int]:
    """Return the pids of all server processes, including one that replaces another of the same number."""
    assert platform.process is not None
    return {pid for pid in children_of(platform.process.pid) if "artcafe.process_group.worker" in command_of(pid)}


@contextmanager
def _port_of_nats_taken(platform: Platform) -> Iterator[None]:
    """Kill nats-server, and occupy its port before the stopped supervisor can start another."""
    assert platform.process is not None
    port = json.loads((platform.data / "nats" / "nats.conf").read_text())["port"]
    platform.process.send_signal(signal.SIGSTOP)
    nats = platform.nats_pid
    taken: list[socket.socket] = []

    def is_taken() -> bool:
        with suppress(OSError):  # Some threads of nats-server may still hold the port.
            taken.append(socket.create_server(("127.0.0.1", port)))
        return bool(taken)

    try:
        os.kill(nats, signal.SIGKILL)
        wait_for(is_taken, "the port of nats-server")
    finally:
        platform.process.send_signal(signal.SIGCONT)
    with taken[0]:
        yield
