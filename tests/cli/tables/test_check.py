from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import boto3
import pytest

from artcafe.model import HandleKind
from artcafe.tables.catalog import AGENTS, CHANNELS, TENANTS, USER_TENANT_INDEX, USER_TENANTS, Environment, Table
from artcafe.tables.engine.values import Item
from artcafe.tables.engine.writes import ItemKey, Put
from artcafe.tables.handle_claims import claim_item
from artcafe.tables.open import open_engine
from tests.aws import Aws
from tests.cli.tables.shell import TablesResult, run
from tests.faulty_aws import Fault, faulty
from tests.services.service_env import new_key

DIFFERENT, REFUSED, UNREACHABLE, USAGE = 5, 3, 4, 2


class Cloud:
    """A separate DynamoDB region, accessed by commands and by boto3."""

    def __init__(self, aws: Aws) -> None:
        self.url, self.region = aws.url, aws.new_region()
        self.boto: Any = boto3.client("dynamodb", region_name=self.region, endpoint_url=aws.url)

    @property
    def tables_setting(self) -> str:
        return f"dynamodb:{self.region}"

    def run(self, *arguments: str, **environ: str) -> TablesResult:
        return run(*arguments, ARTCAFE_TABLES=self.tables_setting, ARTCAFE_DYNAMODB_ENDPOINT=self.url, **environ)

    def make(self, name: str, *keys: str) -> None:
        """Create a table without the commands."""
        kinds = zip(keys, ("HASH", "RANGE"), strict=False)
        self.boto.create_table(
            TableName=name,
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
            KeySchema=[{"AttributeName": key, "KeyType": kind} for key, kind in kinds],
            BillingMode="PAY_PER_REQUEST",
        )

    def put(self, table: Table, **item: Any) -> None:
        """Write an item, such as one of an older system."""
        asyncio.run(self._put(table, item))

    async def _put(self, table: Table, item: Item) -> None:
        engine = await open_engine(self.tables_setting, self.url, Environment.PROD, make_missing=False)
        await engine.put(Put(table, item))
        await engine.close()

    def item(self, table: Table, key: ItemKey) -> Item | None:
        return asyncio.run(self._item(table, key))

    async def _item(self, table: Table, key: ItemKey) -> Item | None:
        engine = await open_engine(self.tables_setting, self.url, Environment.PROD, make_missing=False)
        (found,) = await engine.get(table, [key], consistent=True)
        await engine.close()
        return found


@pytest.fixture
def cloud(aws: Aws) -> Cloud:
    return Cloud(aws)


def test_missing_tables_are_planned_and_created_once(cloud: Cloud) -> None:
    assert {each["state"] for each in cloud.run("list", "--json").json} == {"missing"}
    planned = cloud.run("plan", "--json")
    assert (planned.code, len(planned.json)) == (DIFFERENT, 9)
    assert (cloud.run("apply").code, cloud.boto.list_tables()["TableNames"]) == (
        USAGE,
        [],
    )  # There is no terminal for the prompt.
    assert cloud.run("check").code == DIFFERENT

    made = cloud.run("apply", "--yes", "--json")
    assert (made.code, made.json) == (0, planned.json)
    assert len(cloud.boto.list_tables()["TableNames"]) == 9
    expiry = cloud.boto.describe_time_to_live(TableName="artcafe-Challenges")["TimeToLiveDescription"]
    assert (expiry["AttributeName"], expiry["TimeToLiveStatus"]) == ("ttl", "ENABLED")

    assert {each["state"] for each in cloud.run("list", "--json").json} == {"active"}
    assert (cloud.run("plan", "--json").code, cloud.run("plan", "--json").json) == (0, [])
    assert cloud.run("apply", "--yes").code == 0
    checked = cloud.run("check", "--rows", "--json")
    assert (checked.code, checked.json["problems"], checked.json["findings"]) == (0, [], [])


def test_disabled_time_to_live_is_enabled(cloud: Cloud) -> None:
    cloud.run("apply", "--yes")
    off = {"Enabled": False, "AttributeName": "ttl"}
    cloud.boto.update_time_to_live(TableName="artcafe-Challenges", TimeToLiveSpecification=off)
    (problem,) = cloud.run("check", "--json").json["problems"]
    assert (problem["table"], problem["remedy"]) == ("artcafe-Challenges", "artcafe tables apply")
    assert [(each["table"], each["action"]) for each in cloud.run("plan", "--json").json] == [("artcafe-Challenges", "expire")]
    assert cloud.run("apply", "--yes").code == 0
    assert cloud.run("check").code == 0


def test_different_keys_and_tables_of_an_older_system_are_reported_and_kept(cloud: Cloud) -> None:
    cloud.make("artcafe-agents", "id", "tenant_id")
    cloud.make("artcafe-subscribers", "id")
    cloud.make("artcafe-user-tenants-index", "id")
    cloud.make("somebody-elses", "id")
    before = cloud.run("apply", "--yes")
    assert before.code == 0
    done = cloud.run("check", "--json")
    found = {each["table"]: each for each in done.json["problems"] if not each["is_advice"]}
    assert done.code == DIFFERENT
    assert found.keys() == {"artcafe-agents", "artcafe-subscribers", "artcafe-user-tenants-index"}
    assert "id (S) and tenant_id (S)" in found["artcafe-agents"]["says"]
    assert "artcafe-channel-subscriptions" in found["artcafe-subscribers"]["says"]
    assert "somebody-elses" not in found
    assert "artcafe-subscribers" in cloud.run("check").out
    assert {"artcafe-subscribers", "artcafe-user-tenants-index"} <= set(cloud.boto.list_tables()["TableNames"])


def test_disabled_point_in_time_recovery_is_reported_as_advice(cloud: Cloud) -> None:
    cloud.run("apply", "--yes")
    off = {"PointInTimeRecoveryEnabled": False}
    cloud.boto.update_continuous_backups(TableName="artcafe-tenants", PointInTimeRecoverySpecification=off)
    done = cloud.run("check", "--json")
    assert (done.code, [(each["table"], each["is_advice"]) for each in done.json["problems"]]) == (0, [("artcafe-tenants", True)])


def test_dev_environment_creates_its_own_tables_and_shares_the_others(cloud: Cloud) -> None:
    cloud.run("apply", "--yes")
    planned = cloud.run("plan", "--json", "--environment", "dev")
    assert [each["table"] for each in planned.json] == [
        "artcafe-agents-dev",
        "artcafe-tenants-dev",
        "artcafe-channels-dev",
        "artcafe-usage-metrics-dev",
    ]
    assert cloud.run("apply", "--yes", ARTCAFE_ENVIRONMENT="dev").code == 0
    assert len(cloud.boto.list_tables()["TableNames"]) == 13


def test_inconsistent_rows_are_reported_and_repaired(cloud: Cloud) -> None:
    cloud.run("apply", "--yes")
    cloud.put(TENANTS, id="acme", name="Acme")
    cloud.put(USER_TENANTS, user_id="alice", tenant_id="acme", role="owner")
    cloud.put(AGENTS, tenant_id="acme", id="bot", public_key=new_key(), channels=["general"])
    cloud.put(CHANNELS, tenant_id="acme", id="general")
    checked = cloud.run("check", "--rows", "--json")
    assert (checked.code, checked.json["mended"]) == (DIFFERENT, 0)
    assert {each["what"] for each in checked.json["findings"]} == {"membership", "channel_map", "count", "key_claim", "handle"}
    assert cloud.run("check", "--repair").code == USAGE  # There is no terminal for the prompt.
    assert "agent_count" not in (cloud.item(TENANTS, ItemKey("acme")) or {})

    repaired = cloud.run("check", "--repair", "--yes", "--json")
    assert (repaired.code, repaired.json["mended"]) == (0, len(checked.json["findings"]))
    row = cloud.item(TENANTS, ItemKey("acme"))
    assert row is not None
    assert (row["agent_count"], row["channel_count"], row["member_count"]) == (1, 1, 1)
    again = cloud.run("check", "--repair", "--json")
    assert (again.code, again.json["findings"]) == (0, [])


def test_count_that_a_repaired_membership_changes_is_repaired_in_the_same_run(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    assert run("apply", "--data-dir", folder, "--yes").code == 0

    async def write_rows() -> None:
        tables = await open_engine(f"sqlite:{folder / 'tables.sqlite'}", None, Environment.PROD, make_missing=False)
        counts = {"agent_count": 0, "channel_count": 0, "member_count": 0}
        await tables.put(Put(TENANTS, {"id": "acme", **counts}))  # The counts match the index, which lacks the member.
        await tables.put(Put(USER_TENANTS, {"user_id": "alice", "tenant_id": "acme", "role": "owner"}))
        await tables.close()

    asyncio.run(write_rows())
    findings = run("check", "--rows", "--data-dir", folder, "--json").json["findings"]
    assert [each["what"] for each in findings] == ["membership"]
    repaired = run("check", "--repair", "--yes", "--data-dir", folder, "--json")
    assert (repaired.code, repaired.json["mended"]) == (0, 2)
    assert [each["what"] for each in repaired.json["findings"]] == ["membership", "count"]
    assert run("check", "--rows", "--data-dir", folder, "--json").json["findings"] == []


def test_tenant_option_checks_one_tenant(cloud: Cloud) -> None:
    cloud.run("apply", "--yes")
    cloud.put(TENANTS, id="acme")
    cloud.put(TENANTS, id="other")
    findings = cloud.run("check", "--tenant", "acme", "--json").json["findings"]
    assert {each["tenant_id"] for each in findings} == {"acme"}


@pytest.mark.parametrize("state", ["DELETING", "ARCHIVED", "INACCESSIBLE_ENCRYPTION_CREDENTIALS", "SOMETHING_NEW"])
def test_unusable_table_state_is_reported_by_check_plan_and_apply(cloud: Cloud, state: str) -> None:
    cloud.run("apply", "--yes")
    with faulty(cloud.url) as proxy:
        proxy.states["artcafe-agents"] = state
        environ = {"ARTCAFE_TABLES": cloud.tables_setting, "ARTCAFE_DYNAMODB_ENDPOINT": proxy.url}
        done = run("check", "--rows", "--json", **environ)
        (problem,) = [each for each in done.json["problems"] if not each["is_advice"]]
        assert (done.code, problem["table"], done.json["findings"]) == (DIFFERENT, "artcafe-agents", None)
        assert state in problem["says"]
        for command in (["plan"], ["apply", "--yes"]):
            refused = run(*command, **environ)
            assert (refused.code, state in refused.err, "artcafe-agents" in refused.err) == (REFUSED, True, True), command


@pytest.mark.parametrize("state", ["ACTIVE", "UPDATING"])
def test_table_in_update_is_usable(cloud: Cloud, state: str) -> None:
    cloud.run("apply", "--yes")
    with faulty(cloud.url) as proxy:
        proxy.states["artcafe-agents"] = state
        for command in ("check", "plan"):
            assert run(command, ARTCAFE_TABLES=cloud.tables_setting, ARTCAFE_DYNAMODB_ENDPOINT=proxy.url).code == 0


def test_unknown_tenant_is_refused(cloud: Cloud) -> None:
    cloud.run("apply", "--yes")
    done = cloud.run("check", "--tenant", "no-such-tenant")
    assert (done.code, "there is no tenant no-such-tenant" in done.err) == (REFUSED, True)


def test_rows_that_need_a_decision_are_reported_and_kept(cloud: Cloud) -> None:
    cloud.run("apply", "--yes")
    cloud.put(TENANTS, id="acme", agent_count=1, channel_count=0, member_count=0, subscription_plan="basic")
    cloud.put(AGENTS, tenant_id="acme", id="bot", handle="bot", status="asleep")
    cloud.put(AGENTS, **claim_item("acme", HandleKind.AGENT, "bot", "bot"))
    cloud.put(AGENTS, tenant_id="gone", id="lost", public_key=new_key())
    cloud.put(USER_TENANTS, user_id="eve", tenant_id="acme", role="admin", active=0)
    for arguments in (["--rows"], ["--repair", "--yes"], ["--repair", "--yes"]):
        done = cloud.run("check", *arguments, "--json")
        found = {(each["what"], each["key"]) for each in done.json["findings"]}
        assert found == {("plan", "acme"), ("status", "bot"), ("key", "bot"), ("orphan", "lost"), ("membership", "acme eve")}
        assert (done.code, done.json["mended"]) == (DIFFERENT, 0)


def test_repair_terminates_and_reports_only_its_repairs(cloud: Cloud) -> None:
    cloud.run("apply", "--yes")
    cloud.put(TENANTS, id="acme", agent_count=0, channel_count=0, member_count=1)
    cloud.put(USER_TENANTS, user_id="bob", tenant_id="acme", role="member")
    cloud.put(USER_TENANT_INDEX, user_id="bob", tenant_id="acme", role="member", joined_at="2025-05-18T12:00:00Z")
    counted = []
    for _ in range(3):
        done = cloud.run("check", "--repair", "--yes", "--json")
        counted.append((done.code, done.json["mended"], len(done.json["findings"])))
    assert counted == [(0, 1, 1), (0, 0, 0), (0, 0, 0)]


def test_tables_in_a_file_are_created_listed_and_checked(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    assert run("plan", "--data-dir", folder).code == DIFFERENT
    assert not (folder / "tables.sqlite").exists()
    assert run("apply", "--data-dir", folder, "--yes").code == 0
    assert run("plan", "--data-dir", folder).code == 0
    listed = run("list", "--data-dir", folder, "--json").json
    assert [(each["state"], each["rows"]) for each in listed] == [("active", 0)] * 9
    assert "artcafe-Challenges" in run("list", "--data-dir", folder).out
    checked = run("check", "--rows", "--data-dir", folder)
    assert (checked.code, "no problems found" in checked.err) == (0, True)


# --- errors ----------------------------------------------------------------------------------------------------------


def test_missing_credentials_print_the_remedies(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    done = cloud.run("list")
    assert (done.code, "AWS_PROFILE" in done.err, "Traceback" in done.err) == (REFUSED, True, False)
    assert cloud.run("list", "--json").error == "tables_refused"


@pytest.mark.parametrize(
    ("permission", "arguments"),
    [
        ("DescribeTable", ["list"]),
        ("DescribeTable", ["check"]),
        ("CreateTable", ["apply", "--yes"]),
        ("ListTables", ["check"]),
        ("Scan", ["check", "--rows"]),
    ],
)
def test_missing_permission_is_named_with_the_documentation(cloud: Cloud, permission: str, arguments: list[str]) -> None:
    if permission != "CreateTable":
        cloud.run("apply", "--yes")
    with faulty(cloud.url) as proxy:
        proxy.strike(Fault.DENIED, permission)
        done = run(*arguments, ARTCAFE_TABLES=cloud.tables_setting, ARTCAFE_DYNAMODB_ENDPOINT=proxy.url)
    assert (done.code, "AccessDeniedException" in done.err, "docs/dynamodb.md" in done.err) == (REFUSED, True, True), done.err


def test_permissions_of_a_server_are_tried_with_the_credentials_in_use(cloud: Cloud) -> None:
    cloud.run("apply", "--yes")
    with faulty(cloud.url) as proxy:
        settings = {"ARTCAFE_TABLES": cloud.tables_setting, "ARTCAFE_DYNAMODB_ENDPOINT": proxy.url}
        proxy.denied = {("UpdateItem", "artcafe-agents"), ("Scan", "artcafe-tenants")}
        done = run("check", "--permissions", **settings)
        assert done.code == DIFFERENT
        assert re.search(
            r"artcafe-agents +the credentials in use lack dynamodb:UpdateItem +allow it .*docs/dynamodb\.md", done.out
        )
        assert "dynamodb:Scan" not in done.out, "only a server with operators scans"
        assert "dynamodb:Scan" in run("check", "--permissions", ARTCAFE_OPERATORS="root", **settings).out
        assert run("check", **settings).code == 0
        proxy.spare()
        assert run("check", "--permissions", ARTCAFE_OPERATORS="root", **settings).code == 0


def test_unreachable_endpoint_exits_with_4() -> None:
    for arguments in (["list"], ["plan"], ["apply", "--yes"], ["check", "--rows"]):
        done = run(*arguments, "--json", ARTCAFE_TABLES="dynamodb:us-east-1", ARTCAFE_DYNAMODB_ENDPOINT="http://127.0.0.1:9")
        assert (done.code, done.error) == (UNREACHABLE, "tables_unreachable"), arguments


def test_invalid_region_or_endpoint_exits_with_2() -> None:
    assert run("list", ARTCAFE_TABLES="dynamodb:moon").code == USAGE
    assert run("list", ARTCAFE_TABLES="postgres:here").code == USAGE
    assert run("list", ARTCAFE_DYNAMODB_ENDPOINT="http://127.0.0.1:9").code == USAGE


def test_rows_are_not_checked_when_tables_are_missing(cloud: Cloud) -> None:
    done = cloud.run("check", "--repair", "--yes", "--json")
    assert (done.code, done.json["findings"]) == (DIFFERENT, None)


@pytest.mark.parametrize("command", ["list", "plan", "apply", "check", "export", "copy", "cost"])
def test_help_of_every_command_has_an_example(command: str) -> None:
    done = run(command, "--help")
    assert (done.code, f"artcafe tables {command} " in done.out.split("Example")[1]) == (0, True)
