"""Export the catalog as CloudFormation and Terraform templates for the same tables ArtCafe creates. Creates nothing itself.

Both are JSON, which both tools read (`*.json`, `*.tf.json`), so no template text is concatenated. A table with data is kept when
its template, or its entry in the template, is removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from artcafe.tables.catalog import TABLES, Environment, Table, tags_of

Template = dict[str, Any]
"""A JSON document."""

PROVIDER: Final = ">= 5.0"
"""The first version of hashicorp/aws with documentation for every argument used here."""


def cloudformation(environments: Iterable[Environment]) -> Template:
    """Return a template of every table used by these environments (AWS::DynamoDB::Table)."""
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "The tables of ArtCafe",
        "Resources": {_logical_id(name): _cloudformation_table(name, table) for name, table in names_in(environments).items()},
    }


def terraform(environments: Iterable[Environment]) -> Template:
    """Return a configuration of every table used by these environments (aws_dynamodb_table), in Terraform's JSON syntax."""
    resources = {name.replace("-", "_"): _terraform_table(name, table) for name, table in names_in(environments).items()}
    return {
        "terraform": {"required_providers": {"aws": {"source": "hashicorp/aws", "version": PROVIDER}}},
        "resource": {"aws_dynamodb_table": resources},
    }


def names_in(environments: Iterable[Environment]) -> Mapping[str, Table]:
    """Return every table name used by these environments, with its table, in the catalog's order; shared tables appear once."""
    return {table.name_in(environment): table for environment in environments for table in TABLES}


def _cloudformation_table(name: str, table: Table) -> Template:
    expiry = {"AttributeName": table.ttl, "Enabled": True}
    return {
        "Type": "AWS::DynamoDB::Table",
        "DeletionPolicy": "Retain",
        "UpdateReplacePolicy": "Retain",
        "Properties": {
            "TableName": name,
            "AttributeDefinitions": [{"AttributeName": key, "AttributeType": "S"} for key in table.key_attributes],
            "KeySchema": [
                {"AttributeName": key, "KeyType": kind}
                for key, kind in zip(table.key_attributes, ("HASH", "RANGE"), strict=False)
            ],
            "BillingMode": "PAY_PER_REQUEST",
            "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
            **({"TimeToLiveSpecification": expiry} if table.ttl else {}),
            "Tags": [{"Key": key, "Value": value} for key, value in tags_of(name).items()],
        },
    }


def _terraform_table(name: str, table: Table) -> Template:
    return {
        "name": name,
        "billing_mode": "PAY_PER_REQUEST",
        "hash_key": table.partition_key,
        **({} if table.sort_key is None else {"range_key": table.sort_key}),
        "attribute": [{"name": key, "type": "S"} for key in table.key_attributes],
        "point_in_time_recovery": {"enabled": True},
        **({"ttl": {"attribute_name": table.ttl, "enabled": True}} if table.ttl else {}),
        "tags": dict(tags_of(name)),
        "lifecycle": {"prevent_destroy": True},
    }


def _logical_id(name: str) -> str:
    """Return CloudFormation's logical name of a resource: letters and digits only."""
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"[^A-Za-z0-9]+", name))
