"""The data folder of a single machine: its lock, its format version, its secret, and the addresses of its server."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Final, Self

from artcafe.errors import FolderInUse, StartRefused

FORMAT: Final = 1
"""Rises when an older version could not read a folder written by this one."""

SECRET_BYTES: Final = 32
MIN_FREE_BYTES: Final = 1024 * 1024
"""The free space below which a server cannot start: the tables and NATS write some hundred KB."""


class DataDir:
    """A data folder that this process holds until `release`."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path, self._lock = path, lock

    @classmethod
    def acquire(cls, path: Path) -> Self:
        """Lock the folder, creating it (mode 0700) if necessary.

        Raise `StartRefused` if another process holds it, a newer version wrote it, or it cannot be written.
        """
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise StartRefused(
                f"the data folder {path} cannot be written: {exc.strerror}",
                disk_remedy(path, exc) or "choose another with --data-dir, or correct its permissions",
            ) from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip()
            os.close(lock)
            raise FolderInUse(
                f"the data folder {path} is in use by another artcafe{f' (process {holder})' if holder else ''}",
                "use that server, stop it first, or start this one with another --data-dir",
            ) from None
        except OSError as exc:
            os.close(lock)
            raise StartRefused(f"the data folder {path} cannot be locked: {exc.strerror}", "put it on a local disk") from exc
        data_dir = cls(path, lock)
        try:
            data_dir._begin()
        except BaseException:
            data_dir.release()
            raise
        return data_dir

    def release(self) -> None:
        """Unlock the folder. May be repeated."""
        if self._lock >= 0:
            with contextlib.suppress(OSError):  # on a read-only disk it stays, and names a process that has ended
                (self.path / "server.json").unlink()
            os.close(self._lock)
            self._lock = -1

    def _begin(self) -> None:
        try:
            self._check_format()
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, str(os.getpid()).encode(), 0)
        except OSError as exc:
            raise StartRefused(
                f"the data folder {self.path} cannot be used: {exc.strerror}",
                disk_remedy(self.path, exc) or "correct its permissions",
            ) from exc

    def _check_format(self) -> None:
        file = self.path / "format"
        if not file.exists():
            write_whole(file, f"{FORMAT}\n")
            return
        text = file.read_text(errors="replace").strip()
        if text not in {str(known) for known in range(FORMAT + 1)}:
            raise StartRefused(
                f"the data folder {self.path} was written by a newer artcafe (format {text!r}; this one reads up to {FORMAT})",
                "run that version or a later one; nothing in the folder was changed",
            )

    def write_server_info(self, url: str, gateway_url: str, issuer: str | None = None, metrics_url: str | None = None) -> None:
        """Record the addresses and the issuer of this folder's server, for commands that know only the folder."""
        info = {"url": url, "gateway_url": gateway_url, "metrics_url": metrics_url, "issuer": issuer, "pid": os.getpid()}
        write_whole(self.path / "server.json", json.dumps(info))


def read_server_info(path: Path) -> dict[str, str]:
    """Return the addresses of the folder's server (`url`, `gateway_url`) and its `issuer`, unless that is the local identity.
    Empty if no server runs."""
    try:
        info = json.loads((path / "server.json").read_text())
        # The file of a killed server is still there. Trying the lock would be exact, but would prevent a server from starting
        # now.
        os.kill(info["pid"], 0)
    except PermissionError:
        pass  # it runs as another user
    except (OSError, ValueError, KeyError):
        return {}
    return {name: info[name] for name in ("url", "gateway_url", "issuer") if info.get(name) is not None}


def disk_remedy(path: Path, exc: Exception) -> str | None:
    """Return what to do if the disk is the reason that a path cannot be written: full, read-only or broken; else None."""
    number = exc.errno if isinstance(exc, OSError) else None
    if number in {errno.ENOSPC, errno.EDQUOT} or _free_bytes(path) < MIN_FREE_BYTES:
        return f"free space on the disk of {path}"
    if number in {errno.EROFS, errno.EIO}:
        return (
            "its disk is read-only or broken: systems stop writing to a disk after an error, and log that (dmesg);"
            " repair it, or choose another with --data-dir"
        )
    return None


def _free_bytes(path: Path) -> int:
    """Return the free space on the disk of a path, or of its nearest existing parent."""
    for place in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(place).free
    return MIN_FREE_BYTES


def make_secret(file: Path) -> None:
    """Create the secret (mode 0600) if it does not exist. Raise `StartRefused` if it cannot be written."""
    if file.exists():
        return
    try:
        write_whole(file, secrets.token_hex(SECRET_BYTES))
    except OSError as exc:
        raise StartRefused(
            f"the secret {file} cannot be written: {exc.strerror}",
            disk_remedy(file, exc) or "correct the permissions of its folder",
        ) from exc


def write_whole(file: Path, text: str) -> None:
    """Write a file (mode 0600) atomically, also if the machine dies meanwhile."""
    part = file.with_name(f"{file.name}.{os.getpid()}")
    part.unlink(missing_ok=True)  # of a dead process with our pid
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.fchmod(descriptor, 0o600)  # independent of the umask
        os.write(descriptor, text.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.rename(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_secret(file: Path) -> bytes:
    """Return the secret. Raise `StartRefused` if it is missing, short, or readable by others."""
    try:
        mode = file.stat().st_mode
        secret = file.read_bytes().strip()
    except OSError as exc:
        raise StartRefused(
            f"the secret {file} cannot be read: {exc.strerror}",
            "'artcafe up' creates one in its data folder: check --data-dir;"
            " a fleet's servers, and commands for them, take it from --secret-file or ARTCAFE_SECRET_FILE",
        ) from exc
    if mode & 0o077:
        raise StartRefused(f"the secret {file} can be read by others than its owner", f"chmod 600 {file}")
    if len(secret) < SECRET_BYTES:
        raise StartRefused(
            f"the secret {file} is shorter than {SECRET_BYTES} bytes",
            "restore it from its copy; with a new one, all data is inaccessible",
        )
    return secret
