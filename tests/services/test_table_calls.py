"""Table calls of a login, counted by DynamoDB's units."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from artcafe.fabric.accounts import Accounts
from artcafe.fabric.connection_census import ConnectionCensus
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.services.connections import Connections
from artcafe.tables.catalog import Environment
from artcafe.tables.dynamodb.client import Consumed, DynamoDbClient, Endpoint
from artcafe.tables.dynamodb.engine import DynamoDb
from artcafe.tables.dynamodb.schema import ensure_tables
from tests import ssh_keygen
from tests.aws import Aws
from tests.conftest import Require
from tests.services.service_env import Clock, Logs, Server


@pytest.fixture
def charged() -> list[Consumed]:
    return []


@pytest.fixture
async def server(aws: Aws, charged: list[Consumed]) -> AsyncIterator[Server]:
    client = await DynamoDbClient.open(Endpoint(aws.new_region(), aws.url), charged.append)
    await ensure_tables(client, Environment.PROD, make_missing=True)
    engine = DynamoDb(client, Environment.PROD)
    yield Server(engine, Clock(), Logs())  # type: ignore[arg-type]  # The services use only the port of the tables.
    await engine.close()


@pytest.fixture
def key(tmp_path: Path, require: Require) -> Path:
    require("ssh-keygen", ssh_keygen.PRESENT)
    return ssh_keygen.make_key(tmp_path / "key")


async def test_login_over_rest_takes_two_writes_and_one_consistent_read(
    server: Server, charged: list[Consumed], key: Path
) -> None:
    agent = await server.agent(await server.tenant(), public_key=ssh_keygen.public_line(key))
    await server.record_cache.tenant(agent.tenant_id)  # Cached, as after any login of its agents.
    charged.clear()
    challenge = await server.login.begin(agent.tenant_id, agent.id)
    await server.login.redeem(challenge.id, ssh_keygen.sign(key, challenge.text.encode()))
    # A consistent read of up to 4 KB is one unit; an eventually consistent one is half.
    assert [(call.operation, dict(call.units)) for call in charged] == [
        ("put_item", {"artcafe-Challenges": 1}),
        ("update_item", {"artcafe-Challenges": 1}),
        ("get_item", {"artcafe-agents": 1}),
    ]


def alone() -> ConnectionCensus:
    """Return the census of a server without peers, which asks nobody."""
    return ConnectionCensus(NatsConnection("unused", [], Accounts(b"s" * 32, "dev").platform_user), "server", set)


async def test_login_on_the_socket_takes_one_read(server: Server, charged: list[Consumed], key: Path) -> None:
    agent = await server.agent(await server.tenant(), public_key=ssh_keygen.public_line(key))
    await server.record_cache.tenant(agent.tenant_id)  # Cached, as after any login of its agents.
    charged.clear()
    challenge = server.login.pose(agent.tenant_id, agent.id)
    principal = await server.login.prove(challenge, ssh_keygen.sign(key, challenge.text.encode()))
    await Connections(server.record_cache, server.plans, alone()).enter(principal)
    assert [(call.operation, dict(call.units)) for call in charged] == [("get_item", {"artcafe-agents": 1})]
