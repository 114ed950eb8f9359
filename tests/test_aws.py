"""The AWS emulator: features on which other tests rely."""

from __future__ import annotations

import boto3
import pytest

from tests.aws import Aws


@pytest.fixture
def key_table() -> dict[str, object]:
    return {
        "TableName": "notes",
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        "BillingMode": "PAY_PER_REQUEST",
    }


def test_regions_have_separate_tables(aws: Aws, key_table: dict[str, object]) -> None:
    here = boto3.client("dynamodb", aws.new_region(), endpoint_url=aws.url)
    there = boto3.client("dynamodb", aws.new_region(), endpoint_url=aws.url)
    here.create_table(**key_table)
    assert here.list_tables()["TableNames"] == ["notes"]
    assert there.list_tables()["TableNames"] == []


def test_emulator_has_user_pools(aws: Aws) -> None:
    pools = boto3.client("cognito-idp", aws.new_region(), endpoint_url=aws.url)
    made = pools.create_user_pool(PoolName="people")["UserPool"]
    assert [pool["Id"] for pool in pools.list_user_pools(MaxResults=10)["UserPools"]] == [made["Id"]]
