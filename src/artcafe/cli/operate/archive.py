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
from artcafe.fabric.audit_log import STREAM as AUDIT_STREAM
from artcafe.fabric.snapshots import StreamSnapshot

FORMAT: Final = 1
"""Incremented when older versions cannot restore archives of this version."""
MANIFEST: Final = "manifest.json"
CHECKSUM: Final = "manifest.sha256"
CHUNK_BYTES: Final = 512 * 1024


class Part(msgspec.Struct, frozen=True):
    """A file in the archive."""

    name: str
    size_bytes: int
    sha256: str


class Stream(msgspec.Struct, frozen=True):
    """A NATS stream in the archive: its tenant (None for the platform), its state, and the part with its snapshot."""

    tenant_id: str | None
    saved: StreamSnapshot
    part: Part


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of an archive. `secret_check` verifies a secret given later; `secret` is None for a backup without it."""

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
        """All parts in the order of the archive."""
        return [*(stream.part for stream in self.streams), self.tables, *([self.secret] if self.secret else [])]

    @property
    def logs(self) -> list[Stream]:
        """The streams of tenants."""
        return [stream for stream in self.streams if stream.tenant_id is not None]

    @property
    def messages(self) -> int:
        return sum(stream.saved.messages for stream in self.logs)

    @property
    def audit_entries(self) -> int:
        """The number of messages in the platform's audit."""
        found = (stream.saved for stream in self.streams if stream.tenant_id is None)
        return sum(saved.messages for saved in found if saved.name == AUDIT_STREAM)


class _Format(msgspec.Struct, frozen=True):
    format: int


class ArchiveWriter:
    """Writer of an archive. `folder` is a private folder for temporary files, removed at the end."""

    def __init__(self, tar: tarfile.TarFile, folder: Path) -> None:
        self._tar, self.folder = tar, folder

    @contextmanager
    def part(self, name: str) -> Iterator[ArchivePartWriter]:
        """Write a part in chunks; it is added to the archive when the context exits without an error."""
        with tempfile.TemporaryFile(dir=self.folder) as spool:
            writer = ArchivePartWriter(name, spool)
            yield writer
            spool.seek(0)
            self._tar.addfile(_member(name, writer.size_bytes), spool)

    def add(self, name: str, file: Path) -> Part:
        """Add a file as a part."""
        with file.open("rb") as source, self.part(name) as part:
            shutil.copyfileobj(source, part, CHUNK_BYTES)
        return part.done()

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest. The last call."""
        text = msgspec.json.encode(manifest)
        for name, data in ((MANIFEST, text), (CHECKSUM, hashlib.sha256(text).hexdigest().encode())):
            with self.part(name) as part:
                part.write(data)


class ArchivePartWriter:
    """Writer of one part of an archive."""

    def __init__(self, name: str, spool: IO[bytes]) -> None:
        self._name, self._spool, self._hash = name, spool, hashlib.sha256()
        self.size_bytes = 0

    def write(self, chunk: bytes) -> int:
        """Append a chunk. Raises ArchiveRefused when the disk is full."""
        self._hash.update(chunk)
        self.size_bytes += len(chunk)
        try:
            return self._spool.write(chunk)
        except OSError as exc:
            raise _unwritable(self._name, exc) from exc

    def done(self) -> Part:
        """Return the description of the written part."""
        return Part(self._name, self.size_bytes, self._hash.hexdigest())


def _member(name: str, size_bytes: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size_bytes, 0o600
    return member


@contextmanager
def create_archive(file: Path, say: Callable[[str], None] = lambda text: None) -> Iterator[ArchiveWriter]:
    """Write a new archive (mode 0600), which appears under its name only when the context exits without an error.

    Raises ArchiveRefused when the file exists or cannot be written.
    """
    if file.exists():
        raise ArchiveRefused(f"{file} exists already", "choose another name, or move it away: a backup never replaces a file")
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
    """Reader of an archive whose parts all match their checksums."""

    def __init__(self, tar: tarfile.TarFile, manifest: Manifest) -> None:
        self._tar, self.manifest = tar, manifest

    def chunks(self, part: Part) -> Iterator[bytes]:
        """Yield the chunks of a part."""
        with _opened(self._tar, part.name) as source:
            while chunk := source.read(CHUNK_BYTES):
                yield chunk

    def extract(self, part: Part, to: Path) -> None:
        """Write a part to a new file of mode 0600."""
        descriptor = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as target:
            for chunk in self.chunks(part):
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())


@contextmanager
def open_archive(file: Path, progress: Callable[[str], None] = lambda text: None) -> Iterator[ArchiveReader]:
    """Open an archive, after verifying every checksum.

    Raises ArchiveRefused for a file that is no backup, is damaged, or was written by a newer version.
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
                f"{file} cannot be read: {exc.strerror or exc}", "name a file written by 'artcafe backup'"
            ) from exc
        yield reader


def _manifest(tar: tarfile.TarFile, file: Path) -> Manifest:
    """Read the manifest. Raises ArchiveRefused when it is missing, damaged or of a newer format."""
    try:
        with _opened(tar, MANIFEST) as source:
            text = source.read()
        if (found := msgspec.json.decode(text, type=_Format).format) > FORMAT:
            raise ArchiveRefused(
                f"{file} was written by a newer artcafe (format {found}; this version reads up to {FORMAT})",
                "restore it with that version or a later one",
            )
        with _opened(tar, CHECKSUM) as check:
            if check.read().decode(errors="replace") != hashlib.sha256(text).hexdigest():
                raise _damaged(file, "its manifest does not match its checksum")
        return msgspec.json.decode(text, type=Manifest)
    except KeyError:
        raise _damaged(file, "its manifest is missing, so the backup was not completed") from None
    except msgspec.DecodeError as exc:
        raise _damaged(file, str(exc)) from exc


def _check(reader: ArchiveReader, part: Part, file: Path) -> None:
    found, size_bytes = hashlib.sha256(), 0
    try:
        for chunk in reader.chunks(part):
            found.update(chunk)
            size_bytes += len(chunk)
    except KeyError:
        raise _damaged(file, f"{part.name} is missing") from None
    if (size_bytes, found.hexdigest()) != (part.size_bytes, part.sha256):
        raise _damaged(file, f"{part.name} does not match its checksum")


@contextmanager
def _opened(tar: tarfile.TarFile, name: str) -> Iterator[IO[bytes]]:
    """Open a member by its name. Raises KeyError when it is missing or not a file."""
    source = tar.extractfile(name)
    if source is None:
        raise KeyError(name)
    with source:
        yield source


def _unwritable(what: str, exc: OSError) -> ArchiveRefused:
    return ArchiveRefused(f"{what} cannot be written: {exc.strerror or exc}", "free disk space, or choose another folder")


def _damaged(file: Path, how: str) -> ArchiveRefused:
    return ArchiveRefused(f"{file} is damaged, or no backup: {how}", "restore another backup; nothing was changed")
