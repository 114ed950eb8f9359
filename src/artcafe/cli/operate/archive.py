"""Write and read a backup file: a tar of parts, then a manifest with their checksums. `backup` says what the parts hold."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Final

import msgspec

from artcafe.cli.operate import staging_dir
from artcafe.errors import ArchiveRefused
from artcafe.fabric.snapshots import StreamSnapshot

FORMAT: Final = 1
"""Rises when an archive that this version writes cannot be restored by an older one."""
MANIFEST: Final = "manifest.json"
CHECKSUM: Final = "manifest.sha256"
PIECE_BYTES: Final = 512 * 1024


class Part(msgspec.Struct, frozen=True):
    """A file in the archive."""

    name: str
    size_bytes: int
    sha256: str


class Stream(msgspec.Struct, frozen=True):
    """A stream of NATS: whose it is (None: the platform's), what it was, and where its snapshot stands."""

    tenant_id: str | None
    saved: StreamSnapshot
    part: Part


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive holds. `secret_check` tells a right secret from a wrong one; `secret` is None where it was left out."""

    format: int = FORMAT
    artcafe: str
    made_at: str
    environment: str
    secret_check: str
    secret: Part | None
    tables: Part
    rows: dict[str, int]
    streams: list[Stream]

    @property
    def parts(self) -> list[Part]:
        """In the order of the archive."""
        return [*(stream.part for stream in self.streams), self.tables, *([self.secret] if self.secret else [])]

    @property
    def logs(self) -> list[Stream]:
        """The tenants' own."""
        return [stream for stream in self.streams if stream.tenant_id is not None]

    @property
    def messages(self) -> int:
        return sum(stream.saved.messages for stream in self.logs)

    @property
    def audit_entries(self) -> int:
        """What the platform's own streams have."""
        return sum(stream.saved.messages for stream in self.streams if stream.tenant_id is None)


class _Format(msgspec.Struct, frozen=True):
    format: int


class ArchiveWriter:
    """An archive in the making. `folder` is for what is needed meanwhile: nobody else reads it, and it is removed."""

    def __init__(self, tar: tarfile.TarFile, folder: Path) -> None:
        self._tar, self.folder = tar, folder

    @contextmanager
    def part(self, name: str) -> Iterator[ArchivePartWriter]:
        """A part that is written in pieces; it stands in the archive when this ends without an error."""
        with tempfile.TemporaryFile(dir=self.folder) as spool:
            writer = ArchivePartWriter(name, spool)
            yield writer
            spool.seek(0)
            self._tar.addfile(_member(name, writer.size_bytes), spool)

    def add(self, name: str, file: Path) -> Part:
        """A part that is a file already."""
        with file.open("rb") as source, self.part(name) as part:
            shutil.copyfileobj(source, part, PIECE_BYTES)
        return part.done()

    def finish(self, manifest: Manifest) -> None:
        """Says what the archive holds. The last call."""
        text = msgspec.json.encode(manifest)
        for name, data in ((MANIFEST, text), (CHECKSUM, hashlib.sha256(text).hexdigest().encode())):
            with self.part(name) as part:
                part.write(data)


class ArchivePartWriter:
    """One part in the making."""

    def __init__(self, name: str, spool: IO[bytes]) -> None:
        self._name, self._spool, self._hash = name, spool, hashlib.sha256()
        self.size_bytes = 0

    def write(self, piece: bytes) -> int:
        """Raises `ArchiveRefused` where there is no room."""
        self._hash.update(piece)
        self.size_bytes += len(piece)
        try:
            return self._spool.write(piece)
        except OSError as exc:
            raise _unwritable(self._name, exc) from exc

    def done(self) -> Part:
        """What was written."""
        return Part(self._name, self.size_bytes, self._hash.hexdigest())


def _member(name: str, size_bytes: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size_bytes, 0o600
    return member


@contextmanager
def create_archive(file: Path, say: Callable[[str], None] = lambda text: None) -> Iterator[ArchiveWriter]:
    """A new archive (mode 0600), which is there under its name once this has ended without an error, and else not at all.

    Raises `ArchiveRefused` where the file is there already, or cannot be written.
    """
    if file.exists():
        raise ArchiveRefused(f"{file} is there already", "give another name, or move it away: a backup replaces no other")
    try:
        with staging_dir.create(file, say) as folder:
            draft = folder / "archive"
            descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as target:
                with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
                    yield ArchiveWriter(tar, folder)
                target.flush()
                os.fsync(target.fileno())
            draft.rename(file)
    except OSError as exc:
        raise _unwritable(str(file), exc) from exc


class ArchiveReader:
    """An archive that is whole: every part was compared with its checksum."""

    def __init__(self, tar: tarfile.TarFile, manifest: Manifest) -> None:
        self._tar, self.manifest = tar, manifest

    def pieces(self, part: Part) -> Iterator[bytes]:
        """A part's bytes."""
        with _opened(self._tar, part.name) as source:
            while piece := source.read(PIECE_BYTES):
                yield piece

    def extract(self, part: Part, to: Path) -> None:
        """Writes a part to a new file of mode 0600."""
        descriptor = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as target:
            for piece in self.pieces(part):
                target.write(piece)
            target.flush()
            os.fsync(target.fileno())


@contextmanager
def open_archive(file: Path, progress: Callable[[str], None] = lambda text: None) -> Iterator[ArchiveReader]:
    """An archive, read through once to see that it is whole.

    Raises `ArchiveRefused` for what is no backup, a damaged one, or one that a newer version made.
    """
    with ExitStack() as stack:
        try:
            reader = ArchiveReader(tar := stack.enter_context(tarfile.open(file, mode="r:")), _manifest(tar, file))
            progress(f"checking {file}: {sum(part.size_bytes for part in reader.manifest.parts):,} bytes")
            for part in reader.manifest.parts:
                _check(reader, part, file)
        except (tarfile.TarError, EOFError) as exc:
            raise _damaged(file, str(exc)) from exc
        except OSError as exc:
            raise ArchiveRefused(
                f"{file} cannot be read: {exc.strerror or exc}", "name a file that 'artcafe backup' made"
            ) from exc
        yield reader


def _manifest(tar: tarfile.TarFile, file: Path) -> Manifest:
    """Raises `ArchiveRefused` unless it is there, as it was written, and of a format that this version knows."""
    try:
        with _opened(tar, MANIFEST) as source:
            text = source.read()
        if (found := msgspec.json.decode(text, type=_Format).format) > FORMAT:
            raise ArchiveRefused(
                f"{file} was made by a newer artcafe (format {found}; this one reads up to {FORMAT})",
                "use that version or a later one",
            )
        with _opened(tar, CHECKSUM) as check:
            if check.read().decode(errors="replace") != hashlib.sha256(text).hexdigest():
                raise _damaged(file, "its list of contents is not as it was written")
        return msgspec.json.decode(text, type=Manifest)
    except KeyError:
        raise _damaged(file, "its list of contents is missing, so it was not written to its end") from None
    except msgspec.DecodeError as exc:
        raise _damaged(file, str(exc)) from exc


def _check(reader: ArchiveReader, part: Part, file: Path) -> None:
    found, size_bytes = hashlib.sha256(), 0
    try:
        for piece in reader.pieces(part):
            found.update(piece)
            size_bytes += len(piece)
    except KeyError:
        raise _damaged(file, f"{part.name} is missing") from None
    if (size_bytes, found.hexdigest()) != (part.size_bytes, part.sha256):
        raise _damaged(file, f"{part.name} is not as it was written")


@contextmanager
def _opened(tar: tarfile.TarFile, name: str) -> Iterator[IO[bytes]]:
    """A member by its name; raises KeyError where it is missing or no file."""
    source = tar.extractfile(name)
    if source is None:
        raise KeyError(name)
    with source:
        yield source


def _unwritable(what: str, exc: OSError) -> ArchiveRefused:
    return ArchiveRefused(f"{what} cannot be written: {exc.strerror or exc}", "make room, or choose another place")


def _damaged(file: Path, how: str) -> ArchiveRefused:
    return ArchiveRefused(f"{file} is damaged, or no backup: {how}", "restore another one; nothing was changed")
