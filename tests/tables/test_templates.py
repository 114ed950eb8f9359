from __future__ import annotations

import json
import re
from typing import Any

import pytest

from artcafe.tables import templates
from artcafe.tables.catalog import Environment

BOTH = [Environment.PROD, Environment.DEV]
KEYS: dict[str, tuple[str, ...]] = {
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
"""The keys of the existing tables, duplicated here on purpose."""
EXPIRING = ("artcafe-usage-metrics", "artcafe-usage-metrics-dev", "artcafe-Challenges")
TWINS = ("artcafe-agents", "artcafe-tenants", "artcafe-channels", "artcafe-usage-metrics")
KEYS_OF_BOTH = KEYS | {f"{name}-dev": KEYS[name] for name in TWINS}


def as_read(template: dict[str, Any]) -> Any:
    """Return the template as the other tool parses it."""
    return json.loads(json.dumps(template))


def test_cloudformation_creates_exactly_the_thirteen_existing_tables() -> None:
    template = as_read(templates.cloudformation(BOTH))
    assert template["AWSTemplateFormatVersion"] == "2010-09-09"
    found = {each["Properties"]["TableName"]: each for each in template["Resources"].values()}
    assert found.keys() == KEYS_OF_BOTH.keys()
    assert len(template["Resources"]) == 13
    assert all(re.fullmatch(r"[A-Za-z0-9]{1,255}", each) for each in template["Resources"])
    for name, resource in found.items():
        properties = resource["Properties"]
        assert resource["Type"] == "AWS::DynamoDB::Table"
        assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("Retain", "Retain")
        kinds = list(zip(KEYS_OF_BOTH[name], ("HASH", "RANGE"), strict=False))
        assert [(each["AttributeName"], each["KeyType"]) for each in properties["KeySchema"]] == kinds
        assert [(each["AttributeName"], each["AttributeType"]) for each in properties["AttributeDefinitions"]] == [
            (key, "S") for key in KEYS_OF_BOTH[name]
        ]
        assert properties["BillingMode"] == "PAY_PER_REQUEST"
        assert properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
        expiry = {"AttributeName": "ttl", "Enabled": True} if name in EXPIRING else None
        assert properties.get("TimeToLiveSpecification") == expiry
        tags = {each["Key"]: each["Value"] for each in properties["Tags"]}
        assert tags == {"application": "artcafe", "environment": "dev" if name.endswith("-dev") else "prod"}
        # CloudFormation refuses unknown properties, so there must be no others.
        assert properties.keys() <= {
            "TableName",
            "AttributeDefinitions",
            "KeySchema",
            "BillingMode",
            "PointInTimeRecoverySpecification",
            "TimeToLiveSpecification",
            "Tags",
        }


def test_terraform_creates_the_same_tables() -> None:
    template = as_read(templates.terraform(BOTH))
    assert template["terraform"]["required_providers"]["aws"]["source"] == "hashicorp/aws"
    resources = template["resource"]["aws_dynamodb_table"]
    assert template.keys() == {"terraform", "resource"}
    assert all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", each) for each in resources)
    found = {each["name"]: each for each in resources.values()}
    assert found.keys() == KEYS_OF_BOTH.keys()
    for name, table in found.items():
        assert (table["hash_key"], table.get("range_key")) == (KEYS_OF_BOTH[name] + (None,))[:2]
        assert table["attribute"] == [{"name": key, "type": "S"} for key in KEYS_OF_BOTH[name]]
        assert (table["billing_mode"], table["point_in_time_recovery"]) == ("PAY_PER_REQUEST", {"enabled": True})
        expiry = {"attribute_name": "ttl", "enabled": True} if name in EXPIRING else None
        assert table.get("ttl") == expiry
        assert table["tags"] == {"application": "artcafe", "environment": "dev" if name.endswith("-dev") else "prod"}
        assert table["lifecycle"] == {"prevent_destroy": True}


@pytest.mark.parametrize("make", [templates.cloudformation, templates.terraform])
def test_dev_templates_have_its_four_tables_and_the_shared_ones(make: Any) -> None:
    text = json.dumps(make([Environment.DEV]))
    assert {name for name in KEYS_OF_BOTH if f'"{name}"' in text} == {f"{name}-dev" for name in TWINS} | (
        KEYS.keys() - set(TWINS)
    )
