"""`artcafe backup` and `artcafe restore`: save a data folder to one file, and create a new data folder from it.

Messages are saved before the tables. Removals by retention in between are therefore recorded in their channel's row, and a cursor
can be ahead of the saved messages, which its agent sees as a gap. A restored log has a new epoch, because later messages are
missing from it and their sequences are assigned again.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from importlib.metadata import version
from pathlib import Path
from typing import Final

import click

from artcafe import config
from artcafe.cli.installation.data_dir_nats import connect_nats, run_nats
from artcafe.cli.operate import archive, staging_dir
from artcafe.cli.operate.archive import Manifest, Stream
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.config import Settings
from artcafe.data_dir import DataDir, read_secret
from artcafe.errors import ArchiveRefused
from artcafe.fabric import snapshots
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.scheduled_messages import ScheduledMessages
from artcafe.fabric.scheduled_minutes import ScheduledMinutes, minute_of
from artcafe.fabric.snapshots import AccountConnector
from artcafe.fabric.tenant_log import TenantLog
from artcafe.model import TenantId
from artcafe.observe.clock import now
from artcafe.observe.logs import configure
from artcafe.rules import times
from artcafe.rules.secrets import derive
from artcafe.tables.catalog import TENANTS, Environment
from artcafe.tables.sqlite import file as sqlite_file

_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_FOLDER: Final = click.Path(path_type=Path, file_okay=False)


@click.command(cls=ArtcafeCommand)
@click.argument("file", type=_FILE)
@click.option(
    "--data-dir",
    type=_FOLDER,
    metavar="DIR",
    default=Path("artcafe-data"),
    show_default=True,
    envvar="ARTCAFE_DATA_DIR",
    help="The data folder of 'artcafe up', running or not.",
)
@click.option("--without-secret", is_flag=True, help="Leave out the secret; the restore then needs --secret-file.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def backup(file: Path, data_dir: Path, without_secret: bool, as_json: bool) -> None:
    """Save a data folder to FILE: messages, tables and secret. A running server keeps running.

    The messages of each tenant are saved as of one moment, and the tables as of a moment later. Messages published afterwards
    are in the next backup.

    \b
    Example:
      artcafe backup --data-dir ./artcafe-data artcafe-2026-11-22.tar
    """
    settings = config.load({"data_dir": data_dir})
    configure(settings.log_level, json=settings.log_json)
    manifest = _save(settings, file, with_secret=not without_secret)
    if not without_secret:
        _say(
            f"{file} contains the secret of this installation, which allows reading every message and logging in as every user"
            " and agent. Only you can read the file (mode 0600); protect it like the data folder."
        )
    size = file.stat().st_size
    _print_json({"file": str(file), "size_bytes": size, "with_secret": not without_secret}, manifest, as_json=as_json)
    if not as_json:
        click.echo(f"Saved {_contents(manifest)} to {file} ({size:,} bytes).")


@click.command(cls=ArtcafeCommand)
@click.argument("file", type=_FILE)
@click.option(
    "--data-dir", type=_FOLDER, metavar="DIR", required=True, help="The new data folder; it must not exist, or be empty."
)
@click.option("--secret-file", type=_FILE, metavar="FILE", help="The secret, for a backup without it.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def restore(file: Path, data_dir: Path, secret_file: Path | None, as_json: bool) -> None:
    """Create a data folder from a backup, for 'artcafe up'. A failed restore leaves no folder behind.

    Agents with a cursor ahead of the backup, and agents that were connected, receive a gap (reason "epoch") for the missing
    messages. Older messages are delivered from the position that an agent had acknowledged at the time of the backup.

    \b
    Example:
      artcafe restore artcafe-2026-11-22.tar --data-dir ./artcafe-restored
    """
    configure("warning")
    manifest = _load(file, data_dir, secret_file)
    _print_json({"data_dir": str(data_dir)}, manifest, as_json=as_json)
    if not as_json:
        click.echo(f"Restored {_contents(manifest)}, as of {manifest.made_at}.\nStart it:  artcafe up --data-dir {data_dir}")


def _print_json(more: dict[str, object], manifest: Manifest, *, as_json: bool) -> None:
    if as_json:
        backup = {"made_at": manifest.made_at, "environment": manifest.environment, "logs": len(manifest.logs)}
        counts = {"messages": manifest.messages, "audit_entries": manifest.audit_entries, "rows": manifest.rows}
        click.echo(json.dumps({**more, **backup, **counts}))


def _contents(manifest: Manifest) -> str:
    logs = f"{_many(manifest.messages, 'message')} in {_many(len(manifest.logs), 'log')}"
    audit = _many(manifest.audit_entries, "audit entry", "audit entries")
    return f"{logs}, {audit} and {_many(sum(manifest.rows.values()), 'table row')}"


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def _say(text: str) -> None:
    click.echo(f"artcafe: {text}", err=True)


# --- saving --------------------------------------------------------------------------------------------------------------


def _save(settings: Settings, file: Path, *, with_secret: bool) -> Manifest:
    if not (settings.data_dir / "format").exists() or settings.nats_urls:
        raise ArchiveRefused(
            f"{settings.data_dir} is not a data folder of 'artcafe up' with its own tables and messages",
            "name one with --data-dir; for a fleet, back up its NATS servers and tables separately",
        )
    secret = read_secret(settings.secret_path)
    with archive.create_archive(file, _say) as out:
        tables = out.folder / "tables.sqlite"
        streams = asyncio.run(_save_data(settings, secret, out, tables))
        rows = sqlite_file.rows(tables)
        _say(_many(sum(rows.values()), "table row"))
        manifest = Manifest(
            artcafe=version("artcafe"),
            made_at=times.to_text(now()),
            environment=settings.environment,
            secret_check=_check_of(secret),
            secret=out.add("secret", settings.secret_path) if with_secret else None,
            tables=out.add("tables.sqlite", tables),
            rows=rows,
            streams=streams,
        )
        out.finish(manifest)
    return manifest


async def _save_data(settings: Settings, secret: bytes, out: archive.ArchiveWriter, tables: Path) -> list[Stream]:
    """Save the messages, then copy the tables."""
    accounts = Accounts(derive(secret, "nats"), settings.environment)
    async with connect_nats(settings, accounts, _say) as broker:
        tenants = sqlite_file.partitions(settings.tables_file, TENANTS, Environment(settings.environment))
        streams = await _save_streams(AccountConnector(broker.urls, accounts, broker.tls), tenants, out)
        await asyncio.to_thread(sqlite_file.copy, settings.tables_file, tables)
    return streams


async def _save_streams(connector: AccountConnector, tenants: list[str], out: archive.ArchiveWriter) -> list[Stream]:
    streams: list[Stream] = []
    progress = BackupProgress(len(tenants), "tenant")
    for number, tenant_id in enumerate([None, *map(TenantId, tenants)]):
        async with connector.connect(tenant_id) as link:
            for name in await snapshots.stream_names(link):
                with out.part(f"streams/{number:06}-{name}.snapshot") as part:
                    saved = await snapshots.save(link, name, part.write)
                streams.append(Stream(tenant_id, saved, part.done()))
                progress.add(saved.messages if tenant_id is not None else 0)
        progress.at(number)
    return streams


class BackupProgress:
    """Progress on standard error, once a second and at the end."""

    def __init__(self, most: int, what: str) -> None:
        self._most, self._what, self._messages = most, what, 0
        self._shown_at = time.monotonic()

    def add(self, messages: int) -> None:
        """Add processed messages."""
        self._messages += messages

    def at(self, done: int) -> None:
        """Set the number of completed tenants or logs."""
        if done == self._most or time.monotonic() - self._shown_at >= 1:
            self._shown_at = time.monotonic()
            _say(f"{_many(self._messages, 'message')}; {done:,} of {_many(self._most, self._what)} done")


def _check_of(secret: bytes) -> str:
    """Return a check value that verifies a secret without revealing it."""
    return derive(secret, "backup-check", 8).hex()


# --- restoring -----------------------------------------------------------------------------------------------------------


def _load(file: Path, target: Path, secret_file: Path | None) -> Manifest:
    if target.exists() and any(target.iterdir()):
        raise ArchiveRefused(f"{target} is not empty", "name a new folder, or move its contents away")
    with archive.open_archive(file, _say) as source:
        try:
            target.absolute().parent.mkdir(parents=True, exist_ok=True)
            with staging_dir.create(target, _say) as folder:
                held = DataDir.acquire(folder / "data")
                try:
                    asyncio.run(_fill(source, Settings(data_dir=held.path), secret_file))
                finally:
                    held.release()
                os.sync()
                held.path.rename(target)
        except OSError as exc:
            raise ArchiveRefused(
                f"{target} cannot be created: {exc.strerror or exc}", "free disk space, or name another folder"
            ) from exc
        return source.manifest


async def _fill(source: archive.ArchiveReader, places: Settings, secret_file: Path | None) -> None:
    """Fill the staging folder."""
    manifest, secret = source.manifest, _secret_of(source, places.secret_path, secret_file)
    source.extract(manifest.tables, places.tables_file)
    sqlite_file.prepare(places.tables_file, Environment(manifest.environment))
    accounts = Accounts(derive(secret, "nats"), manifest.environment)
    progress = BackupProgress(len(manifest.streams), "log")
    async with run_nats(places.data_dir / "nats", accounts) as broker:
        for number, stream in enumerate(manifest.streams, 1):
            count = await _load_stream(AccountConnector(broker.urls, accounts, broker.tls), source, stream)
            progress.add(count if stream.tenant_id is not None else 0)
            progress.at(number)


async def _load_stream(connector: AccountConnector, source: archive.ArchiveReader, stream: Stream) -> int:
    """Restore a stream, a tenant's log under a new epoch, and return its number of messages."""
    tenant_id = None if stream.tenant_id is None else TenantId(stream.tenant_id)
    async with connector.connect(tenant_id) as link:
        made = await snapshots.restore(link, stream.saved.as_continuation(), source.chunks(stream.part))
        if tenant_id is not None:
            await _put_minutes(connector, tenant_id, TenantLog(link))
    if made.last_seq != stream.saved.last_seq:
        raise ArchiveRefused(
            f"the messages of {stream.tenant_id} were restored up to {made.last_seq} instead of {stream.saved.last_seq}",
            "restore another backup, or this one with the version that wrote it",
        )
    return made.messages


async def _put_minutes(connector: AccountConnector, tenant_id: TenantId, log: TenantLog) -> None:
    """Store the minutes of a log's scheduled messages, by which servers find them. The platform's streams were saved before the
    log, and lack the minutes of messages that were scheduled meanwhile."""
    await log.state()
    if not log.has_scheduled:
        return
    scheduled = ScheduledMessages(log)
    await scheduled.refresh()
    async with connector.connect(None) as platform:
        minutes = ScheduledMinutes(platform)
        for minute in {minute_of(due) for due in scheduled.times()}:
            await minutes.put(tenant_id, minute)


def _secret_of(source: archive.ArchiveReader, file: Path, secret_file: Path | None) -> bytes:
    """Write the secret to `file` and return it. Raises ArchiveRefused when it is missing or of another installation."""
    manifest = source.manifest
    if secret_file is not None:
        file.touch(mode=0o600)
        file.write_bytes(read_secret(secret_file))
    elif manifest.secret is not None:
        source.extract(manifest.secret, file)
    else:
        raise ArchiveRefused(
            "the backup does not contain the secret", "pass the secret of its installation with --secret-file FILE"
        )
    secret = read_secret(file)
    if _check_of(secret) != manifest.secret_check:
        raise ArchiveRefused(f"{secret_file} is not the secret of the backup's installation", "pass that installation's secret")
    return secret
