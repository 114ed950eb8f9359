"""Which tables a command is about: the settings of a server, as flags, `ARTCAFE_…` variables or a TOML file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Final, TypeVar

import click

from artcafe import config
from artcafe.cli.installation.dynamodb_errors import explain
from artcafe.config import DYNAMODB, Settings
from artcafe.errors import Unavailable
from artcafe.observe.logs import configure
from artcafe.tables.catalog import TABLES, Environment, Table
from artcafe.tables.engine.port import Engine
from artcafe.tables.open import open_engine
from artcafe.tables.sqlite import file as sqlite_file

T = TypeVar("T")

OPTIONS: Final = (
    click.option(
        "--tables", metavar="ENGINE", help="sqlite:PATH or dynamodb:REGION [env: ARTCAFE_TABLES; default: the data folder's]."
    ),
    click.option("--dynamodb-endpoint", metavar="URL", help="In place of AWS's own [env: ARTCAFE_DYNAMODB_ENDPOINT]."),
    click.option("--environment", metavar="WORD", help="prod, or dev for the twins [env: ARTCAFE_ENVIRONMENT; default: prod]."),
    click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="The folder of 'artcafe up' [env: ARTCAFE_DATA_DIR].",
    ),
    click.option(
        "--config", "config_file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A TOML file of settings."
    ),
    click.option("--json", "as_json", is_flag=True, help="Prints a JSON document."),
)


@dataclass(frozen=True, slots=True)
class Installation:
    """Tables, as the settings name them."""

    settings: Settings
    as_json: bool

    @property
    def environment(self) -> Environment:
        return Environment(self.settings.environment)

    @property
    def other_environment(self) -> Installation:
        """The tables of the other environment, some of which are these."""
        other = Environment.DEV if self.environment is Environment.PROD else Environment.PROD
        return Installation(self.settings.model_copy(update={"environment": other.value}), self.as_json)

    @property
    def is_dynamodb(self) -> bool:
        return self.settings.tables_place.startswith(DYNAMODB)

    @property
    def region(self) -> str:
        return self.settings.tables_place.removeprefix(DYNAMODB)

    def __str__(self) -> str:
        if not self.is_dynamodb:
            return f"the file {self.settings.tables_file}"
        endpoint = self.settings.dynamodb_endpoint
        return f"DynamoDB in {self.region}" + (f" at {endpoint}" if endpoint else "")

    def name(self, table: Table) -> str:
        """What the table is called here."""
        return table.name_in(self.environment)

    def note(self, text: str) -> None:
        """Tells a person something beside the answer; a program is told nothing."""
        if not self.as_json:
            click.echo(f"artcafe: {text}", err=True)

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[Engine]:
        """The engine, whose tables must be there. Raises `StartRefused` with what to do."""
        endpoint = self.settings.dynamodb_endpoint
        engine = await open_engine(self.settings.tables_place, endpoint, self.environment, make_missing=False)
        try:
            yield engine
        finally:
            await engine.close()

    def file_rows(self) -> dict[str, int]:
        """How many rows each table of the file has, by its name; nothing where there is no file."""
        file = self.settings.tables_file
        return sqlite_file.rows(file) if file.exists() else {}

    def missing_in_file(self) -> list[Table]:
        """The tables that the file has not got."""
        there = self.file_rows()
        return [table for table in TABLES if self.name(table) not in there]


Command = Callable[Concatenate[Installation, ...], Coroutine[Any, Any, int]]
"""Returns the exit code."""


def run_command(work: Coroutine[Any, Any, T]) -> T:
    """Runs a command; what keeps DynamoDB from being used is raised in words that say what to do."""
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
    """Makes a click callback of a coroutine function: with the options that say which tables, and a `Place` in their stead."""

    @wraps(command)
    def wrapped(*, config_file: Path | None, as_json: bool, **given: Any) -> None:
        named = {name: given.pop(name) for name in ("tables", "dynamodb_endpoint", "environment", "data_dir")}
        settings = config.load(named, file=config_file)
        configure("error", json=settings.log_json)  # what goes wrong is said at the end, in a sentence
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
