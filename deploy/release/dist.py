"""Build the source distribution, and the wheel from it, so that the same commit gives the same bytes:

    python deploy/release/dist.py FOLDER

SOURCE_DATE_EPOCH is the time of every file, by default that of the commit. setuptools writes the times, modes and owners of the
files that it finds into the source distribution, so a copy of what git tracks is built, and the archive is written again.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from build import ProjectBuilder

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Build into the folder of the command line. Both files replace older ones."""
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("SOURCE_DATE_EPOCH", _git("log", "-1", "--format=%ct").strip())
    epoch = int(os.environ["SOURCE_DATE_EPOCH"])
    with tempfile.TemporaryDirectory() as folder:
        tree, unpacked = Path(folder, "tree"), Path(folder, "unpacked")
        copy_tracked(tree)
        # In the copy alone. In the repository it would list the tests in the metadata that pytest reads to find plugins.
        (tree / "MANIFEST.in").write_text("".join(f"include {name}\n" for name in tracked()))
        made = Path(_build(tree, "sdist", Path(folder, "made")))
        source = target / made.name
        rewrite(made, source, epoch)
        with tarfile.open(source) as archive:
            archive.extractall(unpacked, filter="data")
        (tree,) = unpacked.iterdir()
        wheel = _build(tree, "wheel", target)
    print(f"{source} ({source.stat().st_size:,} bytes)\n{wheel} ({Path(wheel).stat().st_size:,} bytes)")


def copy_tracked(target: Path) -> None:
    """Copy the files that git tracks, with the modes of any umask."""
    for name in tracked():
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy)
        copy.chmod(0o755 if os.access(ROOT / name, os.X_OK) else 0o644)


def tracked() -> list[str]:
    """Return the paths of the files that git tracks."""
    return [name for name in _git("ls-files", "-z").split("\0") if name]


def rewrite(archive: Path, target: Path, epoch: int) -> None:
    """Write an archive again: files in the order of their names, of one time, without owners, and without what lists them."""
    with (
        tarfile.open(archive) as old,
        target.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda each: each.name):
            if "MANIFEST.in" in member.name or ".egg-info" in member.name:
                continue
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)


def _build(tree: Path, kind: Literal["sdist", "wheel"], target: Path) -> str:
    builder = ProjectBuilder(tree, runner=_quietly)
    return builder.build(kind, target)


def _quietly(cmd: Sequence[str], cwd: str | None = None, extra_environ: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(cmd, cwd=cwd, env={**os.environ, **(extra_environ or {})}, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()
