from __future__ import annotations

import io
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.cli.operate import archive
from artcafe.cli.operate.archive import Manifest, Part, Stream
from artcafe.errors import ArchiveRefused
from artcafe.fabric.snapshots import StreamSnapshot

CONTENTS = {"streams/000001-log.snapshot": b"messages " * 500, "tables.sqlite": bytes(range(256)) * 8, "secret": b"s" * 64}
SAVED = StreamSnapshot({"name": "log", "metadata": {}}, {"messages": 7, "last_seq": 9})


def write_archive(folder: Path) -> Path:
    """Write an archive of `CONTENTS`, and return its path."""
    (folder / "tables").write_bytes(CONTENTS["tables.sqlite"])
    (folder / "secret").write_bytes(CONTENTS["secret"])
    file = folder / "backup.tar"
    with archive.create_archive(file) as out:
        with out.part("streams/000001-log.snapshot") as part:
            for start in range(0, 4500, 1000):
                part.write(CONTENTS["streams/000001-log.snapshot"][start : start + 1000])
        out.finish(
            Manifest(
                artcafe="0",
                made_at="2026-11-22T16:50:57.123Z",
                environment="prod",
                secret_check="c",
                secret=out.add("secret", folder / "secret"),
                tables=out.add("tables.sqlite", folder / "tables"),
                rows={"artcafe-agents": 1},
                streams=[Stream("ten_a", SAVED, part.done())],
            )
        )
    return file


def contents(file: Path) -> dict[str, bytes]:
    """Return the parts of an archive as a restore reads them. Raises ArchiveRefused."""
    with archive.open_archive(file) as source:
        assert source.manifest.streams[0].saved == SAVED
        return {part.name: b"".join(source.chunks(part)) for part in source.manifest.parts}


def test_archive_round_trips_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    file = write_archive(tmp_path)
    assert contents(file) == CONTENTS
    assert file.stat().st_mode & 0o777 == 0o600
    with archive.open_archive(file) as source:
        assert source.manifest.messages == 7
        source.extract(source.manifest.tables, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENTS["tables.sqlite"]
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600


def test_archive_is_a_tar_with_the_manifest_last(tmp_path: Path) -> None:
    with tarfile.open(write_archive(tmp_path)) as tar:
        # The other parts have the order of `write_archive`.
        assert sorted(tar.getnames()[:3]) == sorted(CONTENTS)
        assert tar.getnames()[3:] == ["manifest.json", "manifest.sha256"]


@pytest.fixture(scope="module")
def whole() -> bytes:
    with TemporaryDirectory() as folder:
        return write_archive(Path(folder)).read_bytes()


@given(data=st.data())
def test_archive_with_a_changed_byte_is_refused_or_has_equal_contents(whole: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(whole) - 1))
    spoiled = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    assert read_or_none(spoiled) in (None, CONTENTS)


@given(data=st.data())
def test_truncated_archive_is_refused_or_has_equal_contents(whole: bytes, data: st.DataObject) -> None:
    end = data.draw(st.integers(0, len(whole) - 1))
    found = read_or_none(whole[:end])
    assert found is None if end < whole.rindex(b"manifest.sha256") else found in (None, CONTENTS)


def read_or_none(data: bytes) -> dict[str, bytes] | None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "backup.tar"
        file.write_bytes(data)
        try:
            return contents(file)
        except ArchiveRefused:
            return None


@pytest.mark.parametrize("text", [b"", b"no tar", b"\0" * 10240])
def test_other_file_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "file").write_bytes(text)
    with pytest.raises(ArchiveRefused, match=r"no backup|damaged"):
        contents(tmp_path / "file")
    with pytest.raises(ArchiveRefused, match="cannot be read"):
        contents(tmp_path / "none")


def test_archive_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    text = msgspec.json.encode({"format": archive.FORMAT + 1, "what": "else"})
    with tarfile.open(tmp_path / "newer.tar", "w") as tar:
        member = tarfile.TarInfo(archive.MANIFEST)
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    with pytest.raises(ArchiveRefused, match="newer artcafe"):
        contents(tmp_path / "newer.tar")


def test_failed_archive_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), archive.create_archive(tmp_path / "backup.tar") as out:
        _fails(out)
    assert list(tmp_path.iterdir()) == []


def _fails(out: archive.ArchiveWriter) -> None:
    with out.part("part") as part:
        part.write(b"data")
    raise ZeroDivisionError


def test_archive_never_replaces_an_existing_file(tmp_path: Path) -> None:
    file = write_archive(tmp_path)
    before = file.read_bytes()
    with pytest.raises(ArchiveRefused, match="exists already"), archive.create_archive(file):
        pytest.fail("the file exists")
    assert file.read_bytes() == before
    with pytest.raises(ArchiveRefused, match="cannot be written"), archive.create_archive(tmp_path / "none" / "backup.tar"):
        pytest.fail("the folder does not exist")


def test_missing_part_is_named(tmp_path: Path) -> None:
    file, missing = tmp_path / "backup.tar", Part("tables.sqlite", 1, "0")
    with archive.create_archive(file) as out:
        out.finish(
            Manifest(
                artcafe="0", made_at="", environment="prod", secret_check="", secret=None, tables=missing, rows={}, streams=[]
            )
        )
    with pytest.raises(ArchiveRefused, match=r"tables\.sqlite is missing"):
        contents(file)
