"""Which engine the tables stand on, as the setting says it: opened, and with its tables there."""

from __future__ import annotations

from pathlib import Path

from artcafe.tables.catalog import Environment
from artcafe.tables.engine.port import Engine
from artcafe.tables.sqlite.engine import Sqlite


async def open_engine(place: str, endpoint: str | None, environment: Environment, *, make_missing: bool) -> Engine:
    """The engine at `sqlite:PATH` or `dynamodb:REGION`, whose tables are those of the catalog; its caller closes it.

    The file is made where it is missing, and so are the tables of DynamoDB if `make_missing`. Raises `errors.StartRefused` with
    what to do.
    """
    kind, _, where = place.partition(":")
    if kind == "sqlite":
        return await Sqlite.open(Path(where), environment)
    from artcafe.tables.dynamodb.client import Client, Endpoint  # noqa: PLC0415 (as above)
    from artcafe.tables.dynamodb.engine import DynamoDb  # noqa: PLC0415 (AWS's client takes 0.3 s to import: not for a file)
    from artcafe.tables.dynamodb.schema import make_ready  # noqa: PLC0415 (as above)

    client = await Client.open(Endpoint(where, endpoint))
    try:
        await make_ready(client, environment, make_missing=make_missing)
    except BaseException:
        await client.close()
        raise
    return DynamoDb(client, environment)
