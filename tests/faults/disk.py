"""A small file system in a file, which can be filled up or lose its power: data that was not flushed is lost then."""

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
    """Return whether this machine allows mounting a file."""
    return os.geteuid() == 0 and all(map(shutil.which, TOOLS)) and _run("losetup", "--find", check=False) != ""


class Disk:
    """An ext4 file system in `image`, mounted at `at`.

    The journal's commit timer is set so long that within a test only flushed data reaches the image, and what the file system
    needs for it.
    """

    def __init__(self, image: Path, at: Path, size_mib: int) -> None:
        self._image, self._copy, self._at = image, image.with_suffix(".found"), at
        self._device = ""
        with image.open("wb") as file:
            file.truncate(size_mib << 20)
        # Initialize at once: a lazy initialization in the background would write to the image while it is copied.
        _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))
        at.mkdir(parents=True, exist_ok=True)

    def mount(self) -> None:
        self._device = _run("losetup", "--find", "--show", str(self._image))
        _run("mount", "-o", "commit=600", self._device, str(self._at))

    def unmount(self) -> None:
        """Unmount the file system. Can be repeated."""
        if self._device:
            if os.path.ismount(self._at):
                wait_for(self._is_unmounted, f"no process uses {self._at}")
            _run("losetup", "--detach", self._device)
            self._device = ""

    def _is_unmounted(self) -> bool:
        _run("umount", str(self._at), check=False)
        return not os.path.ismount(self._at)

    def copy(self) -> None:
        """Copy the image as it would be after a power cut now. The processes that use the disk are stopped and write nothing
        meanwhile, so the copy is consistent."""
        before = self._writes()
        _run("cp", "--sparse=always", str(self._image), str(self._copy))
        assert self._writes() == before, "the image was written to while it was copied"

    def restore(self) -> None:
        """Mount the copied image instead; the file system replays its journal. No process may use the disk any more."""
        self.unmount()
        self._copy.replace(self._image)
        self.mount()

    def fill(self) -> None:
        """Use up all free space."""
        with (self._at / FILLER).open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)

    def make_room(self) -> None:
        """Free the space that `fill` used."""
        (self._at / FILLER).unlink()

    def abort(self) -> None:
        """Make the file system stop writing, as it does after a device error (ext4(5), `abort`)."""
        _run("mount", "-o", "remount,abort", str(self._at))

    def _writes(self) -> list[str]:
        """Return the kernel's counts of completed and pending writes to the device."""
        fields = Path(f"/sys/block/{Path(self._device).name}/stat").read_text().split()
        return [*fields[4:7], fields[8]]


@contextmanager
def mounted(folder: Path, at: Path, size_mib: int) -> Iterator[Disk]:
    """Mount a disk and always remove it afterwards. The processes that use it must have ended by then."""
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
