"""Private staging folders for unfinished files and folders, removed by the next command if theirs was killed."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def create(target: Path, say: Callable[[str], None]) -> Iterator[Path]:
    """Yield a new folder (mode 0700) on the filesystem of `target`, and remove it afterwards. Raises OSError.

    Staging folders of the same target are removed first if their process has ended: they may hold the secret and all messages.
    """
    target = target.absolute()
    for left in sorted(target.parent.iterdir()):
        if re.fullmatch(rf"\.{re.escape(target.name)}\.\d+", left.name) and not _is_in_use(left):
            _remove(left)
            say(f"removed {left}, left by a killed command for {target}")
    folder = target.with_name(f".{target.name}.{os.getpid()}")
    folder.mkdir(mode=0o700)
    held = _lock(folder / "draft.lock", os.O_CREAT)
    try:
        yield folder
    finally:
        _remove(folder)
        os.close(held)


def _is_in_use(left: Path) -> bool:
    """Whether the process that created the folder still runs, by its file lock: a process id may be reused or from another
    container."""
    try:
        os.close(_lock(left / "draft.lock"))
    except BlockingIOError:
        return True
    except OSError:  # It was created just now, or by an earlier version without the lock.
        return _runs(int(left.suffix[1:]))
    return False


def _lock(file: Path, more_flags: int = 0) -> int:
    descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC | more_flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return pid != os.getpid()


def _remove(left: Path) -> None:
    if left.is_dir():
        shutil.rmtree(left, ignore_errors=True)
    else:
        with suppress(FileNotFoundError):
            left.unlink()
