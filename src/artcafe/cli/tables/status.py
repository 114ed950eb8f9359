"""The state of an installation's tables, and the changes that it needs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from artcafe.cli.installation.location import Installation
from artcafe.errors import TablesRefused
from artcafe.tables.catalog import TABLES, Table

if TYPE_CHECKING:
    from artcafe.tables.dynamodb.schema import Schema, TableDescription

ABSENT: Final = "missing"


class TableStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a table of the catalog.

    On DynamoDB, `rows` and `size_bytes` are up to six hours old. In a file, rows are counted now, and sizes are unknown.
    """

    name: str
    key: tuple[str, ...]
    state: str
    rows: int | None = None
    size_bytes: int | None = None
    ttl: str | None = None
    purpose: str = ""
    remedy: str | None = None
    """The remedy for a table that is unusable in its state."""


class PlannedChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change of `apply`: create a table, or enable its time to live."""

    table: str
    action: str
    says: str


@asynccontextmanager
async def open_schema(installation: Installation) -> AsyncIterator[Schema]:
    """Open the schema of the tables on DynamoDB. AWS's libraries are imported only here, because that takes half a second."""
    from artcafe.tables.dynamodb.client import Endpoint
    from artcafe.tables.dynamodb.schema import Schema

    async with Schema.opened(
        Endpoint(installation.region, installation.settings.dynamodb_endpoint), installation.environment
    ) as schema:
        yield schema


async def read_status(installation: Installation) -> list[TableStatus]:
    """Return the state of every table, in the order of the catalog."""
    if installation.is_dynamodb:
        async with open_schema(installation) as schema:
            found = await schema.describe_all()
        return [_on_dynamodb(installation, table, standing) for table, standing in found.items()]
    counts = installation.file_rows()
    return [_in_file(installation, table, counts.get(installation.name(table))) for table in TABLES]


async def planned_changes(installation: Installation) -> list[PlannedChange]:
    """Return the missing tables and disabled times to live; other differences of existing tables are never changed.

    Raises TablesRefused for an existing table that is unusable in its state.
    """
    found = []
    for table, status in zip(TABLES, await read_status(installation), strict=True):
        if status.remedy is not None:
            raise TablesRefused(f"the table {status.name} cannot be used: its state is {status.state.upper()}", status.remedy)
        key = " and ".join(table.key_attributes)
        expiry = f", time to live on {table.ttl}" if table.ttl else ""
        if status.state == ABSENT:
            more = f", billed on demand, point-in-time recovery{expiry}, tags" if installation.is_dynamodb else ""
            found.append(PlannedChange(table=status.name, action="create", says=f"key {key}{more}"))
        elif installation.is_dynamodb and table.ttl and status.ttl is None:
            found.append(
                PlannedChange(table=status.name, action="expire", says=f"time to live on {table.ttl}, which is disabled")
            )
    return found


def _on_dynamodb(installation: Installation, table: Table, standing: TableDescription | None) -> TableStatus:
    if standing is None:
        return TableStatus(name=installation.name(table), key=table.key_attributes, state=ABSENT, purpose=table.purpose)
    return TableStatus(
        name=standing.name,
        key=tuple(name for name, _ in standing.keys),
        state=standing.status.lower(),
        rows=standing.items,
        size_bytes=standing.size_bytes,
        ttl=standing.ttl,
        purpose=table.purpose,
        remedy=None if standing.is_usable or standing.status == "CREATING" else standing.remedy,
    )


def _in_file(installation: Installation, table: Table, rows: int | None) -> TableStatus:
    state = ABSENT if rows is None else "active"
    return TableStatus(
        name=installation.name(table), key=table.key_attributes, state=state, rows=rows, ttl=table.ttl, purpose=table.purpose
    )
