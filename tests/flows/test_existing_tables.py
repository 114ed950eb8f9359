"""After the demo on DynamoDB an operator's own tools show the existing tables, and no other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.aws import Aws
from tests.platform import running

SEED = {
    "artcafe-agents": ("tenant_id", "id"),
    "artcafe-tenants": ("id",),
    "artcafe-user-tenants": ("user_id", "tenant_id"),
    "artcafe-user-tenant-index": ("tenant_id", "user_id"),
    "artcafe-channels": ("tenant_id", "id"),
    "artcafe-channel-subscriptions": ("tenant_id", "id"),
    "artcafe-usage-metrics": ("tenant_id", "metric_id"),
    "artcafe-terms-acceptance": ("user_id", "version"),
    "artcafe-Challenges": ("challenge_id",),
}
"""Listed here again, independently of the catalog."""

HELD = {
    "artcafe-agents": {"name", "description", "public_key", "capabilities", "status", "created_at", "updated_at"},
    "artcafe-tenants": {"name", "plan", "limits", "created_at", "updated_at"},
    "artcafe-user-tenants": {"role", "joined_at"},
    "artcafe-user-tenant-index": {"role", "joined_at"},
    "artcafe-channels": {"name", "description", "type", "created_at", "updated_at"},
    "artcafe-channel-subscriptions": {"channel_id", "agent_id", "status"},
}


@pytest.fixture(scope="module")
def operator(aws: Aws, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return AWS's client, after the demo."""
    flags = aws.tables_flags()
    with running(tmp_path_factory.mktemp("existing"), flags) as platform:
        command = [sys.executable, "-m", "artcafe", "demo", "--data-dir", str(platform.data)]
        subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=Path(platform.folder))
    return boto3.client("dynamodb", flags[1].removeprefix("dynamodb:"), endpoint_url=aws.url)


def test_only_the_existing_tables_exist(operator: Any) -> None:
    assert sorted(operator.list_tables()["TableNames"]) == sorted(SEED)


@pytest.mark.parametrize("name", SEED)
def test_table_has_the_existing_keys(operator: Any, name: str) -> None:
    described = operator.describe_table(TableName=name)["Table"]
    assert [(key["AttributeName"], key["KeyType"]) for key in described["KeySchema"]] == list(
        zip(SEED[name], ("HASH", "RANGE"), strict=False)
    )
    assert {each["AttributeName"]: each["AttributeType"] for each in described["AttributeDefinitions"]} == dict.fromkeys(
        SEED[name], "S"
    )


@pytest.mark.parametrize("name", HELD)
def test_rows_have_the_existing_attributes(operator: Any, name: str) -> None:
    rows = operator.scan(TableName=name)["Items"]
    # A claim to a key is a separate row (decision record 6), sorted after every agent's.
    rows = [row for row in rows if not row.get("id", {}).get("S", "").startswith("~")]
    assert rows, "the demo leaves some"
    for row in rows:
        assert {*SEED[name], *HELD[name]} <= row.keys()


def test_unanswered_challenge_has_a_time_to_live(operator: Any) -> None:
    expiry = operator.describe_time_to_live(TableName="artcafe-Challenges")["TimeToLiveDescription"]
    assert expiry == {"TimeToLiveStatus": "ENABLED", "AttributeName": "ttl"}
