from __future__ import annotations

import pytest

from artcafe.tables.catalog import CHALLENGES, RETIRED, TABLES, USAGE_METRICS, Environment, Table

SEED = [
    ("artcafe-agents", "tenant_id", "id", "artcafe-agents-dev"),
    ("artcafe-tenants", "id", None, "artcafe-tenants-dev"),
    ("artcafe-user-tenants", "user_id", "tenant_id", None),
    ("artcafe-user-tenant-index", "tenant_id", "user_id", None),
    ("artcafe-channels", "tenant_id", "id", "artcafe-channels-dev"),
    ("artcafe-channel-subscriptions", "tenant_id", "id", None),
    ("artcafe-usage-metrics", "tenant_id", "metric_id", "artcafe-usage-metrics-dev"),
    ("artcafe-terms-acceptance", "user_id", "version", None),
    ("artcafe-Challenges", "challenge_id", None, None),
]


def test_catalog_matches_the_existing_tables() -> None:
    assert [(table.name, table.partition_key, table.sort_key, table.dev_twin) for table in TABLES] == SEED


def test_prod_uses_the_existing_names() -> None:
    assert [table.name_in(Environment.PROD) for table in TABLES] == [name for name, *_ in SEED]


def test_dev_uses_its_four_tables_and_shares_the_rest() -> None:
    assert [table.name_in(Environment.DEV) for table in TABLES] == [twin or name for name, _, _, twin in SEED]


def test_only_usage_and_challenges_expire() -> None:
    assert [(table, table.ttl) for table in TABLES if table.ttl] == [(USAGE_METRICS, "ttl"), (CHALLENGES, "ttl")]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_key_attribute_is_not_listed_twice(table: Table) -> None:
    assert not set(table.key_attributes) & set(table.attributes)
    assert table.attributes
    assert table.purpose


def test_deleted_tables_match_the_older_system_and_are_unused() -> None:
    assert {table.name for table in RETIRED} == {
        "artcafe-ssh-keys",
        "artcafe-subscribers",
        "artcafe-subscriptions",
        "artcafe-organizations",
        "artcafe-users",
        "artcafe-user-tenants-index",
        "artcafe-ssh-keys-dev",
    }
    used = {table.name_in(environment) for table in TABLES for environment in Environment}
    assert not used & {table.name for table in RETIRED}
    assert all(table.replaced_by for table in RETIRED)
