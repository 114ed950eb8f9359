"""The installation of a command: its tables and settings, from options, `ARTCAFE_…` variables or a TOML file, as for a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Final, TypeVar

import click

from artcafe import config, plan_catalogue
from artcafe.cli.installation.dynamodb_errors import explain
from artcafe.config import DYNAMODB, Settings
from artcafe.errors import Unavailable
from artcafe.observe.logs import configure
from artcafe.rules.plans import Plans
from artcafe.tables.catalog import Environment, Table
from artcafe.tables.engine.port import Engine
from artcafe.tables.open import open_engine
from artcafe.tables.sqlite import file as sqlite_file

T = TypeVar("T")

OPTIONS: Final = (
    click.option(
        "--tables",
        metavar="ENGINE",
        help="sqlite:PATH or dynamodb:REGION.  [env: ARTCAFE_TABLES; default: the data folder's tables]",
    ),
    click.option("--dynamodb-endpoint", metavar="URL", help="Endpoint in place of AWS's own.  [env: ARTCAFE_DYNAMODB_ENDPOINT]"),
    click.option(
        "--environment",
        metavar="WORD",
        help="prod or dev, which selects the tables' names.  [env: ARTCAFE_ENVIRONMENT; default: prod]",
    ),
    click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="The data folder of 'artcafe up'.  [env: ARTCAFE_DATA_DIR]",
    ),
    click.option(
        "--config", "config_file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A TOML file of settings."
    ),
    click.option("--json", "as_json", is_flag=True, help="Print a JSON document."),
)


@dataclass(frozen=True, slots=True)
class Installation:
    """The tables named by the settings, and the output format of the command."""

    settings: Settings
    as_json: bool

    @property
    def environment(self) -> Environment:
        return Environment(self.settings.environment)

    @property
    def other_environment(self) -> Installation:
        """The installation of the other environment, which shares some tables with this one."""
        other = Environment.DEV if self.environment is Environment.PROD else Environment.PROD
        return Installation(self.settings.model_copy(update={"environment": other.value}), self.as_json)

    @property
    def is_dynamodb(self) -> bool:
        return self.settings.tables_location.startswith(DYNAMODB)

    @property
    def region(self) -> str:
        return self.settings.tables_location.removeprefix(DYNAMODB)

    def __str__(self) -> str:
        if not self.is_dynamodb:
            return f"the file {self.settings.tables_file}"
        endpoint = self.settings.dynamodb_endpoint
        return f"DynamoDB in {self.region}" + (f" at {endpoint}" if endpoint else "")

    def plans(self) -> Plans:
        """Return the catalogue of plans. Raises StartRefused with every fault of its file."""
        return plan_catalogue.read(self.settings.plans_file)

    def name(self, table: Table) -> str:
        """Return the table's name in this environment."""
        return table.name_in(self.environment)

    def note(self, text: str) -> None:
        """Print a note on standard error, unless the output is JSON."""
        if not self.as_json:
            click.echo(f"artcafe: {text}", err=True)

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[Engine]:
        """Open the table engine. Raises StartRefused with a remedy when tables are missing."""
        endpoint = self.settings.dynamodb_endpoint
        engine = await open_engine(self.settings.tables_location, endpoint, self.environment, make_missing=False)
        try:
            yield engine
        finally:
            await engine.close()

    def file_rows(self) -> dict[str, int]:
        """Return the row count of each table in the file by its name; empty without a file."""
        file = self.settings.tables_file
        return sqlite_file.rows(file) if file.exists() else {}


Command = Callable[Concatenate[Installation, ...], Coroutine[Any, Any, int]]
"""A command's coroutine function, which returns the exit code."""


def run_command(work: Coroutine[Any, Any, T]) -> T:
    """Run a command, and raise DynamoDB errors with a remedy."""
    try:
        return asyncio.run(work)
    except Unavailable as exc:
        raise explain(exc) from exc
    except BaseExceptionGroup as group:
        unavailable, _ = group.split(Unavailable)
        if unavailable is None:
            raise
        raise explain(_first(unavailable)) from group


def with_installation(command: Command) -> Callable[..., None]:
    """Make a click callback of a coroutine function: add the options that select the tables, and pass an `Installation`."""

    @wraps(command)
    def wrapped(*, config_file: Path | None, as_json: bool, **given: Any) -> None:
        named = {name: given.pop(name) for name in ("tables", "dynamodb_endpoint", "environment", "data_dir")}
        settings = config.load(named, file=config_file)
        configure("error", json=settings.log_json)  # The command itself prints its error as one sentence.
        installation = Installation(settings, as_json)
        code = run_command(command(installation, **given))
        click.get_current_context().exit(code)

    for option in reversed(OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def _first(group: BaseException) -> Unavailable:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    assert isinstance(group, Unavailable)
    return group
