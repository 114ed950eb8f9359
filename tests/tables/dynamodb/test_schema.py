"""The catalog's tables on DynamoDB, inspected with AWS's own client like an operator would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import boto3
import pytest

from artcafe.errors import StartRefused
from artcafe.tables.catalog import AGENTS, CHALLENGES, RETIRED, TABLES, TENANTS, USAGE_METRICS, Environment
from artcafe.tables.dynamodb.client import DynamoDbClient, Endpoint
from artcafe.tables.dynamodb.schema import Difference, Schema, create_request, differences, ensure_tables
from artcafe.tables.engine.writes import ItemKey
from artcafe.tables.open import open_engine
from tests.aws import Aws
from tests.faulty_aws import faulty


@pytest.fixture
def endpoint(aws: Aws) -> Endpoint:
    return Endpoint(aws.new_region(), aws.url)


@pytest.fixture
def operator(endpoint: Endpoint) -> Any:
    return boto3.client("dynamodb", endpoint.region, endpoint_url=endpoint.url)


@pytest.fixture
async def client(endpoint: Endpoint) -> AsyncIterator[DynamoDbClient]:
    client = await DynamoDbClient.open(endpoint)
    yield client
    await client.close()


@pytest.mark.parametrize("environment", Environment)
async def test_tables_are_created_with_keys_on_demand_billing_recovery_and_tags(
    client: DynamoDbClient, operator: Any, environment: Environment
) -> None:
    await ensure_tables(client, environment, make_missing=True)
    assert sorted(operator.list_tables()["TableNames"]) == sorted(table.name_in(environment) for table in TABLES)
    for table in TABLES:
        name = table.name_in(environment)
        described = operator.describe_table(TableName=name)["Table"]
        assert [(key["AttributeName"], key["KeyType"]) for key in described["KeySchema"]] == [
            *[(table.partition_key, "HASH")],
            *[(sort_key, "RANGE") for sort_key in table.key_attributes[1:]],
        ]
        assert {each["AttributeType"] for each in described["AttributeDefinitions"]} == {"S"}
        assert described["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
        assert not described.get("GlobalSecondaryIndexes")
        backups = operator.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
        assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"
        tags = {tag["Key"]: tag["Value"] for tag in operator.list_tags_of_resource(ResourceArn=described["TableArn"])["Tags"]}
        assert tags["environment"] == ("dev" if name.endswith("-dev") else "prod")


async def test_only_usage_and_challenges_have_a_time_to_live(client: DynamoDbClient, operator: Any) -> None:
    await ensure_tables(client, Environment.PROD, make_missing=True)
    for table in TABLES:
        expiry = operator.describe_time_to_live(TableName=table.name)["TimeToLiveDescription"]
        on = expiry["TimeToLiveStatus"] == "ENABLED"
        assert (on, expiry.get("AttributeName")) == ((True, "ttl") if table in (USAGE_METRICS, CHALLENGES) else (False, None))


async def test_server_without_permission_to_create_names_missing_tables_and_the_command(
    client: DynamoDbClient, operator: Any
) -> None:
    await Schema(client, Environment.PROD).create([AGENTS])
    with pytest.raises(StartRefused, match=r"lacks artcafe-tenants, .*artcafe-Challenges\n  create them: artcafe tables apply"):
        await ensure_tables(client, Environment.PROD, make_missing=False)
    assert operator.list_tables()["TableNames"] == ["artcafe-agents"]


async def test_existing_tables_are_used_with_their_rows(endpoint: Endpoint, operator: Any) -> None:
    operator.create_table(**create_request(TENANTS, Environment.PROD) | {"BillingMode": "PAY_PER_REQUEST", "Tags": []})
    operator.put_item(TableName="artcafe-tenants", Item={"id": {"S": "an odd id"}, "name": {"S": "Older"}})
    engine = await open_engine(f"dynamodb:{endpoint.region}", endpoint.url, Environment.PROD, make_missing=True)
    assert await engine.get(TENANTS, [ItemKey("an odd id")]) == [{"id": "an odd id", "name": "Older"}]
    await engine.close()


async def test_table_with_another_key_stops_the_start(client: DynamoDbClient, operator: Any) -> None:
    operator.create_table(
        TableName="artcafe-agents",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    with pytest.raises(StartRefused, match=r"its key is id \(N\) but must be tenant_id \(S\) and id \(S\)"):
        await ensure_tables(client, Environment.PROD, make_missing=True)


@pytest.mark.parametrize("state", ["DELETING", "ARCHIVED", "INACCESSIBLE_ENCRYPTION_CREDENTIALS"])
async def test_table_in_an_unusable_state_stops_the_start(aws: Aws, endpoint: Endpoint, state: str) -> None:
    place = f"dynamodb:{endpoint.region}"
    await (await open_engine(place, endpoint.url, Environment.PROD, make_missing=True)).close()
    with faulty(aws.url) as proxy:
        proxy.states["artcafe-agents"] = state
        with pytest.raises(StartRefused, match=f"artcafe-agents .* cannot be used: its state is {state}"):
            await open_engine(place, proxy.url, Environment.PROD, make_missing=True)


async def test_wrong_time_to_live_is_reported_without_stopping_the_start(client: DynamoDbClient, operator: Any) -> None:
    schema = Schema(client, Environment.PROD)
    operator.create_table(**create_request(CHALLENGES, Environment.PROD))
    operator.create_table(**create_request(AGENTS, Environment.PROD))
    specification = {"AttributeName": "gone_at", "Enabled": True}
    operator.update_time_to_live(TableName="artcafe-agents", TimeToLiveSpecification=specification)
    await ensure_tables(client, Environment.PROD, make_missing=True)
    assert differences(await schema.describe_all()) == [
        Difference("artcafe-agents", "its time to live is on gone_at, which ArtCafe does not expect", False),
        Difference("artcafe-Challenges", "its time to live on ttl is off: expired rows are never removed", False),
    ]
    assert await schema.enable_ttl(CHALLENGES)
    assert not await schema.enable_ttl(CHALLENGES)
    assert [difference.table for difference in differences(await schema.describe_all())] == ["artcafe-agents"]


async def test_servers_can_create_the_tables_concurrently(endpoint: Endpoint, operator: Any) -> None:
    place = f"dynamodb:{endpoint.region}"
    async with asyncio.TaskGroup() as group:
        starts = [group.create_task(open_engine(place, endpoint.url, Environment.PROD, make_missing=True)) for _ in range(3)]
    for start in starts:
        await start.result().close()
    assert len(operator.list_tables()["TableNames"]) == len(TABLES)


async def test_remaining_tables_of_an_older_system_are_found(client: DynamoDbClient, operator: Any) -> None:
    schema = Schema(client, Environment.PROD)
    await schema.create(TABLES)
    assert await schema.deleted() == []
    key = create_request(TENANTS, Environment.PROD)
    for deleted in RETIRED[:2]:
        operator.create_table(**key | {"TableName": deleted.name})
    assert await schema.deleted() == list(RETIRED[:2])


async def test_all_table_names_are_listed_across_pages(client: DynamoDbClient, operator: Any) -> None:
    key = create_request(TENANTS, Environment.PROD)
    wanted = [f"table-{number:03}" for number in range(105)]
    for name in wanted:
        operator.create_table(**key | {"TableName": name})
    assert sorted(await Schema(client, Environment.PROD).names()) == wanted


async def test_start_without_credentials_or_endpoint_names_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(StartRefused, match="cannot be used: Unable to locate credentials"):
        await open_engine("dynamodb:us-east-1", "http://127.0.0.1:9", Environment.PROD, make_missing=True)
