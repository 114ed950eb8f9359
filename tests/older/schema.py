"""The older system's tables, in each form found at operators."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

KEYS: Final[dict[str, tuple[str, ...]]] = {
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

SCRIPTED: Final[dict[str, tuple[str, ...]]] = {
    "artcafe-user-tenants": ("id",),
    "artcafe-user-tenant-index": ("pk", "sk"),
    "artcafe-channel-subscriptions": ("channel_id", "agent_id"),
    "artcafe-usage-metrics": ("tenant_id", "date"),
    "artcafe-Challenges": ("tenant_id", "challenge"),
}
"""The keys in its shell scripts, if different from the above. ArtCafe cannot use such tables."""

TWINS: Final = frozenset({"artcafe-agents", "artcafe-tenants", "artcafe-channels", "artcafe-usage-metrics"})
"""The tables with a `-dev` counterpart."""

INDEXES: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "artcafe-agents": {"TenantTypeIndex": ("tenant_id", "type"), "TenantStatusIndex": ("tenant_id", "status")},
    "artcafe-channels": {"TenantStatusIndex": ("tenant_id", "status")},
    "artcafe-tenants": {"StatusIndex": ("status",)},
}
"""Its global indexes; ArtCafe never reads them."""

THROUGHPUT: Final = {"ReadCapacityUnits": 5, "WriteCapacityUnits": 5}


class Form(StrEnum):
    """The way the tables were created."""

    PLAIN = "plain"
    DEV = "dev"
    """With the four `-dev` tables."""
    INDEXES = "indexes"
    """By the older system's own code: provisioned capacity and global indexes."""
    AS_SCRIPTED = "as-scripted"
    """By its shell scripts, with their keys and without a time to live."""


def name_of(table: str, form: Form) -> str:
    """Return the name of a table in a form."""
    return f"{table}-dev" if form is Form.DEV and table in TWINS else table


def make_tables(client: Any, form: Form) -> None:
    """Create the nine tables and wait until they are usable."""
    for table, keys in KEYS.items():
        client.create_table(**_creation(table, SCRIPTED.get(table, keys) if form is Form.AS_SCRIPTED else keys, form))
        client.get_waiter("table_exists").wait(TableName=name_of(table, form), WaiterConfig={"Delay": 1})
    if form is not Form.AS_SCRIPTED:
        expiry = {"Enabled": True, "AttributeName": "ttl"}
        client.update_time_to_live(TableName="artcafe-Challenges", TimeToLiveSpecification=expiry)


def _creation(table: str, keys: Sequence[str], form: Form) -> dict[str, Any]:
    indexes = INDEXES.get(table, {}) if form is Form.INDEXES else {}
    attributes = sorted({*keys, *(name for of in indexes.values() for name in of)})
    request: dict[str, Any] = {
        "TableName": name_of(table, form),
        "AttributeDefinitions": [{"AttributeName": each, "AttributeType": "S"} for each in attributes],
        "KeySchema": _key_schema(keys),
    }
    if form is not Form.INDEXES:
        return {**request, "BillingMode": "PAY_PER_REQUEST"}
    request["ProvisionedThroughput"] = THROUGHPUT
    if indexes:
        request["GlobalSecondaryIndexes"] = [_index(name, of) for name, of in indexes.items()]
    return request


def _index(name: str, keys: Sequence[str]) -> dict[str, Any]:
    return {
        "IndexName": name,
        "KeySchema": _key_schema(keys),
        "Projection": {"ProjectionType": "ALL"},
        "ProvisionedThroughput": THROUGHPUT,
    }


def _key_schema(keys: Sequence[str]) -> list[dict[str, str]]:
    return [{"AttributeName": key, "KeyType": role} for key, role in zip(keys, ("HASH", "RANGE"), strict=False)]
