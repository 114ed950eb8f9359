"""The data folder of a single machine: who holds it, which version wrote it, its secret, and where its server listens."""

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
"""Rises when a folder that this version wrote cannot be read by an older one."""

SECRET_BYTES: Final = 32
ROOM_BYTES: Final = 1024 * 1024
"""With less, a server cannot start: what it must write of tables and NATS is some hundred KB."""


class DataDir:
    """A folder that is held by this process until `release`."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path, self._lock = path, lock

    @classmethod
    def acquire(cls, path: Path) -> Self:
        """Takes the folder, making it (mode 0700) if need be.

        Raises `StartRefused` when another process holds it, a newer version wrote it, or it cannot be written.
        """
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise StartRefused(
                f"the data folder {path} cannot be written: {exc.strerror}",
                disk_remedy(path, exc) or "choose another with --data-dir, or mend its rights",
            ) from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip()
            os.close(lock)
            raise FolderInUse(
                f"the data folder {path} is in use by another artcafe{f' (process {holder})' if holder else ''}",
                "use that one, stop it first, or start this one with another --data-dir",
            ) from None
        except OSError as exc:
            os.close(lock)
            raise StartRefused(f"the data folder {path} cannot be locked: {exc.strerror}", "put it on a local disk") from exc
        folder = cls(path, lock)
        try:
            folder._begin()
        except BaseException:
            folder.release()
            raise
        return folder

    def release(self) -> None:
        """Lets go of the folder. May be repeated."""
        if self._lock >= 0:
            with contextlib.suppress(OSError):  # on a disk that became read-only it stays, and names a process that is gone
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
                disk_remedy(self.path, exc) or "mend its rights",
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

    def write_server_info(self, url: str, gateway_url: str, issuer: str | None = None) -> None:
        """Notes where this folder's server listens and who vouches for people there, for the commands that are given only the
        folder."""
        told = {"url": url, "gateway_url": gateway_url, "issuer": issuer, "pid": os.getpid()}
        write_whole(self.path / "server.json", json.dumps(told))


def read_server_info(path: Path) -> dict[str, str]:
    """Where the folder's server listens (`url`, `gateway_url`), and the `issuer` where it is not the local identity; empty when
    none runs."""
    try:
        told = json.loads((path / "server.json").read_text())
        # What a killed server told is still there. Trying the lock would tell for sure, and keep a server from starting now.
        os.kill(told["pid"], 0)
    except PermissionError:
        pass  # it runs, as another user
    except (OSError, ValueError, KeyError):
        return {}
    return {name: told[name] for name in ("url", "gateway_url", "issuer") if told.get(name) is not None}


def disk_remedy(path: Path, exc: Exception) -> str | None:
    """Return what to do where it is the disk that keeps a path from being written: full, read-only or broken; else None."""
    number = exc.errno if isinstance(exc, OSError) else None
    if number in {errno.ENOSPC, errno.EDQUOT} or _free_bytes(path) < ROOM_BYTES:
        return f"make room on the disk of {path}"
    if number in {errno.EROFS, errno.EIO}:
        return (
            "its disk is read-only or broken: systems stop writing to a disk that had an error, of which their log (dmesg) tells;"
            " repair it, or choose another with --data-dir"
        )
    return None


def _free_bytes(path: Path) -> int:
    """The room on the disk of a path, or of the nearest folder above it that is there."""
    for place in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(place).free
    return ROOM_BYTES


def make_secret(file: Path) -> None:
    """Makes the secret (mode 0600) unless there is one. Raises `StartRefused` when it cannot be written."""
    if file.exists():
        return
    try:
        write_whole(file, secrets.token_hex(SECRET_BYTES))
    except OSError as exc:
        raise StartRefused(
            f"the secret {file} cannot be written: {exc.strerror}", disk_remedy(file, exc) or "mend the rights of its folder"
        ) from exc


def write_whole(file: Path, text: str) -> None:
    """Writes a file (mode 0600) whole or not at all, also when the machine dies in between."""
    part = file.with_name(f"{file.name}.{os.getpid()}")
    part.unlink(missing_ok=True)  # of a process that died here and had our number
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.fchmod(descriptor, 0o600)  # whatever the umask
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
    """The secret. Raises `StartRefused` when it is missing, short, or readable by others."""
    try:
        mode = file.stat().st_mode
        secret = file.read_bytes().strip()
    except OSError as exc:
        raise StartRefused(
            f"the secret {file} cannot be read: {exc.strerror}",
            "'artcafe up' makes one in its data folder: is --data-dir the right one?"
            " A fleet's servers, and commands beside them, are given theirs by --secret-file or ARTCAFE_SECRET_FILE",
        ) from exc
    if mode & 0o077:
        raise StartRefused(f"the secret {file} can be read by others than its owner", f"chmod 600 {file}")
    if len(secret) < SECRET_BYTES:
        raise StartRefused(
            f"the secret {file} is shorter than {SECRET_BYTES} bytes",
            "restore it from where it was kept; a new one locks out all data",
        )
    return secret
