"""The table engines: every test with the fixture `tables` runs on each of them, with empty tables.

The engines are the file, the emulator, and the endpoint in ARTCAFE_TEST_DYNAMODB_ENDPOINT (in AWS_REGION, with the credentials of
AWS's chain). On that endpoint the tables are created, and emptied before every test, so they must be empty at the start.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from artcafe.tables.catalog import TABLES, Environment
from artcafe.tables.dynamodb.client import DynamoDbClient, Endpoint
from artcafe.tables.dynamodb.engine import DynamoDb
from artcafe.tables.dynamodb.schema import ensure_tables
from artcafe.tables.engine.port import Tables
from artcafe.tables.engine.writes import Delete, ItemKey
from artcafe.tables.sqlite.engine import Sqlite
from tests.aws import Aws

NAMED = os.environ.get("ARTCAFE_TEST_DYNAMODB_ENDPOINT")


PREPARED: set[Endpoint] = set()


async def emptied(endpoint: Endpoint) -> DynamoDb:
    """Return an engine with empty tables, creating them on first use."""
    client = await DynamoDbClient.open(endpoint)
    engine = DynamoDb(client, Environment.PROD)
    if endpoint not in PREPARED:
        await ensure_tables(client, Environment.PROD, make_missing=True)
    items = [(table, item) for table in TABLES async for item in engine.scan(table)]
    if items and endpoint not in PREPARED:
        pytest.fail(f"the tables of {endpoint} hold {len(items)} items, which these tests would delete: name an empty endpoint")
    PREPARED.add(endpoint)
    for table, item in items:
        keys = [str(item[name]) for name in table.key_attributes]
        await engine.delete(Delete(table, ItemKey(*keys)))
    return engine


@pytest.fixture(scope="session")
def emulated(aws: Aws) -> Endpoint:
    """Return a region of the emulator for the tests in this folder."""
    return Endpoint(aws.new_region(), aws.url)


@pytest.fixture(scope="session")
def named() -> Endpoint:
    """Return the endpoint in ARTCAFE_TEST_DYNAMODB_ENDPOINT."""
    return Endpoint(os.environ.get("AWS_REGION", "us-east-1"), NAMED)


@pytest.fixture(params=["sqlite", "dynamodb", *(["named"] if NAMED else [])])
async def tables(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Tables]:
    engine: Tables
    if request.param == "sqlite":
        engine = await Sqlite.open(tmp_path / "tables.db", Environment.PROD)
    else:
        engine = await emptied(request.getfixturevalue("emulated" if request.param == "dynamodb" else "named"))
    yield engine
    await engine.close()
