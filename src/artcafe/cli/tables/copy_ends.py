"""Source and target of a copy: a data folder or a fleet, each with its tables and its NATS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from artcafe import config
from artcafe.cli.installation.data_dir_nats import connect_nats
from artcafe.config import Settings
from artcafe.data_dir import make_secret, read_secret
from artcafe.errors import SettingInvalid, TablesRefused
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.fabric import Broker
from artcafe.fabric.snapshots import AccountConnector
from artcafe.listeners import nats_tls
from artcafe.rules.secrets import derive
from artcafe.tables.catalog import Environment
from artcafe.tables.engine.port import Engine
from artcafe.tables.open import open_engine


@dataclass(frozen=True, slots=True)
class CopyEnd:
    """An open source or target. `log_identity` identifies its NATS and accounts."""

    settings: Settings
    engine: Engine
    connector: AccountConnector
    log_identity: tuple[str, ...]

    @property
    def tables_identity(self) -> tuple[str, str | None]:
        """Identify the tables regardless of the environment, because both environments share some."""
        tables = self.settings.tables_location
        kind, _, where = tables.partition(":")
        return (f"{kind}:{Path(where).absolute()}" if kind == "sqlite" else tables, self.settings.dynamodb_endpoint)


def load_settings(end: Path | None, option: str) -> Settings:
    """Return the settings of a data folder, which may be new, or a TOML file; for None, those of a server started here.

    A named end ignores environment variables, because they would apply to both ends.
    """
    if end is None:
        return config.load({})
    try:
        return config.load({}, environ={}, file=end) if end.is_file() else config.load({"data_dir": end}, environ={})
    except SettingInvalid as exc:
        raise TablesRefused(f"{option} {end}: {exc}", "correct its settings") from exc


@asynccontextmanager
async def open_end(settings: Settings, say: Callable[[str], None], *, is_source: bool) -> AsyncIterator[CopyEnd]:
    """Open an end with its tables and its NATS. A target's data folder is created if missing; DynamoDB tables must exist.

    Raises TablesRefused if the source is not a data folder.
    """
    if is_source and not settings.nats_urls and not (settings.data_dir / "format").exists():
        raise TablesRefused(
            f"{settings.data_dir} is not a data folder of 'artcafe up'",
            "name one, or a TOML file with tables, nats_urls and secret_file of a fleet",
        )
    async with AsyncExitStack() as stack:
        if not is_source and not settings.nats_urls:
            settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            make_secret(settings.secret_path)
        accounts = Accounts(derive(read_secret(settings.secret_path), "nats"), settings.environment)
        if settings.nats_urls:
            nats = Broker(settings.nats_urls, nats_tls(settings))
        else:
            nats = await stack.enter_async_context(connect_nats(settings, accounts, say))
        tables, environment = settings.tables_location, Environment(settings.environment)
        engine = await open_engine(tables, settings.dynamodb_endpoint, environment, make_missing=False)
        stack.push_async_callback(engine.close)
        yield CopyEnd(
            settings, engine, AccountConnector(nats.urls, accounts, nats.tls), (accounts.operator_key, *sorted(nats.urls))
        )
