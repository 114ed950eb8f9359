"""Open the table engine selected by the settings."""

from __future__ import annotations

from pathlib import Path

from artcafe.tables.catalog import Environment
from artcafe.tables.engine.port import Engine
from artcafe.tables.sqlite.engine import Sqlite


async def open_engine(location: str, endpoint: str | None, environment: Environment, *, make_missing: bool) -> Engine:
    """Open the engine at `sqlite:PATH` or `dynamodb:REGION` and check the catalog's tables. The caller closes it.

    Always creates a missing SQLite file; creates missing DynamoDB tables only with `make_missing`. Raises
    `errors.StartRefused` with a remedy.
    """
    kind, _, where = location.partition(":")
    if kind == "sqlite":
        return await Sqlite.open(Path(where), environment)
    from artcafe.tables.dynamodb.client import DynamoDbClient, Endpoint  # noqa: PLC0415 (0.3 s, not needed for a file)
    from artcafe.tables.dynamodb.engine import DynamoDb  # noqa: PLC0415 (as above)
    from artcafe.tables.dynamodb.schema import ensure_tables  # noqa: PLC0415 (as above)

    client = await DynamoDbClient.open(Endpoint(where, endpoint))
    try:
        await ensure_tables(client, environment, make_missing=make_missing)
    except BaseException:
        await client.close()
        raise
    return DynamoDb(client, environment)
