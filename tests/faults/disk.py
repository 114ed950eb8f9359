"""A small file system in a file, which can be full, and which can lose its power: what was not flushed to it is gone then."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.faults.processes import wait_for

FILLER: Final = "filler"
NEEDS: Final = "root with loop devices and ext4"
TOOLS: Final = ("losetup", "mkfs.ext4", "mount", "umount", "cp")


def is_possible() -> bool:
    """Whether this machine lets us mount a file."""
    return os.geteuid() == 0 and all(map(shutil.which, TOOLS)) and _run("losetup", "--find", check=False) != ""


class Disk:
    """An ext4 file system in `image`, mounted at `at`.

    Its journal's own timer is put off, so that within a test's time nothing reaches the image but what somebody flushed, and what
    the file system needs for that.
    """

    def __init__(self, image: Path, at: Path, size_mib: int) -> None:
        self._image, self._copy, self._at = image, image.with_suffix(".found"), at
        self._device = ""
        with image.open("wb") as file:
            file.truncate(size_mib << 20)
        # At once, and not later in the background, where it would be written to while it is copied.
        _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))
        at.mkdir(parents=True, exist_ok=True)

    def mount(self) -> None:
        self._device = _run("losetup", "--find", "--show", str(self._image))
        _run("mount", "-o", "commit=600", self._device, str(self._at))

    def unmount(self) -> None:
        """May be repeated."""
        if self._device:
            if os.path.ismount(self._at):
                wait_for(self._is_unmounted, f"nobody uses {self._at}")
            _run("losetup", "--detach", self._device)
            self._device = ""

    def _is_unmounted(self) -> bool:
        _run("umount", str(self._at), check=False)
        return not os.path.ismount(self._at)

    def copy(self) -> None:
        """Notes what would be found after a power cut now. Whoever uses the disk is stopped; nothing is written meanwhile, so the
        copy is of one moment."""
        before = self._writes()
        _run("cp", "--sparse=always", str(self._image), str(self._copy))
        assert self._writes() == before, "the image was written to while it was copied"

    def restore(self) -> None:
        """Mounts what was found instead; the file system's journal is replayed. Nobody uses the disk any more."""
        self.unmount()
        self._copy.replace(self._image)
        self.mount()

    def fill(self) -> None:
        """Takes all the room that is left."""
        with (self._at / FILLER).open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)

    def make_room(self) -> None:
        """Gives back what `fill` took."""
        (self._at / FILLER).unlink()

    def abort(self) -> None:
        """Has the file system stop writing, as it does by itself after an error of the device (ext4(5), `abort`)."""
        _run("mount", "-o", "remount,abort", str(self._at))

    def _writes(self) -> list[str]:
        """What the kernel counts of writes to the device, done and under way."""
        fields = Path(f"/sys/block/{Path(self._device).name}/stat").read_text().split()
        return [*fields[4:7], fields[8]]


@contextmanager
def mounted(folder: Path, at: Path, size_mib: int) -> Iterator[Disk]:
    """A disk that is gone afterwards, whatever happened. Whoever uses it must have ended by then."""
    disk = Disk(folder / "disk.img", at, size_mib)
    try:
        disk.mount()
        yield disk
    finally:
        disk.unmount()


def _run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
    return done.stdout.strip()
