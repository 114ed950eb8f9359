"""The catalog's tables on DynamoDB: describe them, compare them with the catalog, and create missing ones.

Existing tables are never altered or deleted: they belong to the operator.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from artcafe import errors
from artcafe.observe.logs import log
from artcafe.tables.catalog import RETIRED, TABLES, Environment, RetiredTable, Table, tags_of
from artcafe.tables.dynamodb.client import CallRefused, DynamoDbClient, Endpoint

CREATE_S: Final = 180.0
"""The timeout for a new table to become active; DynamoDB needs some seconds."""

LOOK_AGAIN_S: Final = 0.5

ON_DEMAND: Final = "PAY_PER_REQUEST"

USABLE: Final = frozenset({"ACTIVE", "UPDATING"})
"""The states of a table with readable and writable rows (API reference, TableDescription, TableStatus)."""

REMEDIES: Final = {
    "CREATING": "wait until it is created",
    "DELETING": "wait until it is deleted; 'artcafe tables apply' then creates it again, and a backup has its rows",
    "INACCESSIBLE_ENCRYPTION_CREDENTIALS": "give DynamoDB access to the KMS key of the table again",
    "ARCHIVING": "restore the table from the backup that DynamoDB makes of it",
    "ARCHIVED": "restore the table from the backup that DynamoDB made of it",
}
"""What an operator can do about a table in another state."""

REKEY: Final = "a key cannot be changed: create the table again and move its rows, or use another region or account"


@dataclass(frozen=True, slots=True)
class TableDescription:
    """A table as DynamoDB describes it. `keys` are pairs of name and type (`S`, `N`, `B`), the partition key first.

    `ttl` is the expiry attribute, or None. `items` and `size_bytes` are DynamoDB's figures, some hours old.
    """

    name: str
    status: str
    keys: tuple[tuple[str, str], ...]
    ttl: str | None
    billing: str
    items: int
    size_bytes: int
    arn: str

    @property
    def is_usable(self) -> bool:
        """Return whether DynamoDB reads and writes the rows now."""
        return self.status in USABLE

    @property
    def remedy(self) -> str:
        """Return what an operator can do about an unusable table."""
        return REMEDIES.get(self.status, f"see what it means: aws dynamodb describe-table --table-name {self.name}")


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference between an existing table and the catalog, and its remedy. `is_fatal`: ArtCafe cannot use the table.
    `is_advice`: the table is complete without it."""

    table: str
    problem: str
    is_fatal: bool
    remedy: str = "artcafe tables apply"
    is_advice: bool = False


class Schema:
    """The catalog's tables of one environment on one endpoint.

    Every method raises `errors.TablesRefused` if DynamoDB refuses (a missing permission), and `errors.Unavailable`.
    """

    def __init__(self, client: DynamoDbClient, environment: Environment) -> None:
        """Use `client`; its owner closes it."""
        self._client, self._environment = client, environment

    @classmethod
    @asynccontextmanager
    async def opened(cls, endpoint: Endpoint, environment: Environment) -> AsyncIterator[Schema]:
        """Open a schema with its own client, for a command. Raises `errors.StartRefused` like `DynamoDbClient.open`."""
        client = await DynamoDbClient.open(endpoint)
        try:
            yield cls(client, environment)
        finally:
            await client.close()

    async def describe_all(self) -> dict[Table, TableDescription | None]:
        """Return the description of every table of the catalog, in its order; None for a missing table."""
        return {table: await self.describe(table) for table in TABLES}

    async def describe(self, table: Table) -> TableDescription | None:
        """Return the description of a table, or None if it is missing."""
        name = table.name_in(self._environment)
        try:
            described = (await self._client.call("describe_table", {"TableName": name}))["Table"]
            expiry = (await self._client.call("describe_time_to_live", {"TableName": name}))["TimeToLiveDescription"]
        except CallRefused as refused:
            if refused.code == "ResourceNotFoundException":
                return None
            raise self._refusal("describe", name, refused) from refused
        types = {each["AttributeName"]: each["AttributeType"] for each in described["AttributeDefinitions"]}
        keys = sorted(described["KeySchema"], key=lambda key: str(key["KeyType"]) != "HASH")
        return TableDescription(
            name=name,
            status=described["TableStatus"],
            keys=tuple((key["AttributeName"], types[key["AttributeName"]]) for key in keys),
            ttl=expiry.get("AttributeName") if expiry["TimeToLiveStatus"] in {"ENABLED", "ENABLING"} else None,
            billing=described.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED"),
            items=described.get("ItemCount", 0),
            size_bytes=described.get("TableSizeBytes", 0),
            arn=described["TableArn"],
        )

    async def has_recovery(self, table: Table) -> bool:
        """Return whether point-in-time recovery is enabled."""
        name = table.name_in(self._environment)
        answer = await self._call("describe_continuous_backups", name, {"TableName": name})
        recovery = answer["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
        return bool(recovery.get("PointInTimeRecoveryStatus") == "ENABLED")

    async def deleted(self) -> list[RetiredTable]:
        """Return the remaining tables of an older system."""
        names = set(await self.names())
        return [each for each in RETIRED if each.name in names]

    async def names(self) -> list[str]:
        """Return the names of all tables in this account and region, ArtCafe's or not."""
        names: list[str] = []
        request: dict[str, Any] = {}
        while True:
            answer = await self._call("list_tables", "all tables", request)
            names += answer["TableNames"]
            if "LastEvaluatedTableName" not in answer:
                return names
            request = {"ExclusiveStartTableName": answer["LastEvaluatedTableName"]}

    async def create(self, tables: Iterable[Table], on_created: Callable[[str], None] = lambda name: None) -> list[str]:
        """Create missing tables, wait until they are usable, and return their names. May be repeated.

        `on_created` is called with each name when the table is ready. Existing tables are left unchanged; a table being created
        by another process is waited for.
        """
        named = {table: table.name_in(self._environment) for table in tables}
        made = [table for table, name in named.items() if await self._create_table(table, name)]
        for table, name in named.items():
            await self._wait_active(table)
            if table in made:
                await self.enable_ttl(table)
                await self._enable_recovery(name)
                on_created(name)
        return [named[table] for table in made]

    async def enable_ttl(self, table: Table) -> bool:
        """Enable the time to live if the catalog has one; return whether it was off. May be repeated."""
        description = await self.describe(table)
        if table.ttl is None or description is None or description.ttl is not None:
            return False
        specification = {"AttributeName": table.ttl, "Enabled": True}
        request = {"TableName": description.name, "TimeToLiveSpecification": specification}
        await self._call("update_time_to_live", description.name, request)
        return True

    async def _create_table(self, table: Table, name: str) -> bool:
        """Request the table; return False if it exists."""
        try:
            await self._client.call("create_table", create_request(table, self._environment))
        except CallRefused as refused:
            if refused.code == "ResourceInUseException":
                return False
            raise self._refusal("create", name, refused) from refused
        return True

    async def _wait_active(self, table: Table) -> None:
        until = time.monotonic() + CREATE_S
        while True:
            description = await self.describe(table)
            if description is not None and description.status == "ACTIVE":
                return
            if time.monotonic() > until:
                raise errors.Unavailable(f"the new table {table.name_in(self._environment)}")
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _enable_recovery(self, name: str) -> None:
        """Enable point-in-time recovery; retries, because a newly active table may not accept it yet."""
        until = time.monotonic() + CREATE_S
        specification = {"PointInTimeRecoveryEnabled": True}
        while True:
            try:
                await self._client.call(
                    "update_continuous_backups", {"TableName": name, "PointInTimeRecoverySpecification": specification}
                )
            except CallRefused as refused:
                if refused.code != "ContinuousBackupsUnavailableException" or time.monotonic() > until:
                    raise self._refusal("turn on point-in-time recovery of", name, refused) from refused
            else:
                return
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _call(self, operation: str, what: str, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._client.call(operation, request)
        except CallRefused as refused:
            raise self._refusal(operation.replace("_", " "), what, refused) from refused

    def _refusal(self, doing: str, what: str, refused: CallRefused) -> errors.TablesRefused:
        return errors.TablesRefused(
            f"{self._client.endpoint} refuses to {doing} {what}: {refused}",
            "grant the credentials in use the permissions in docs/dynamodb.md",
        )


def create_request(table: Table, environment: Environment) -> dict[str, Any]:
    """Return the parameters of CreateTable: the catalog's keys, on-demand billing, and tags."""
    name = table.name_in(environment)
    roles = zip(table.key_attributes, ("HASH", "RANGE"), strict=False)
    return {
        "TableName": name,
        "AttributeDefinitions": [{"AttributeName": key, "AttributeType": "S"} for key in table.key_attributes],
        "KeySchema": [{"AttributeName": key, "KeyType": role} for key, role in roles],
        "BillingMode": ON_DEMAND,
        "Tags": [{"Key": key, "Value": value} for key, value in tags_of(name).items()],
    }


def differences(found: Mapping[Table, TableDescription | None]) -> list[Difference]:
    """Return the differences between existing tables and the catalog, ignoring missing tables."""
    return [
        difference
        for table, description in found.items()
        if description is not None
        for difference in _compare(table, description)
    ]


def _compare(table: Table, description: TableDescription) -> list[Difference]:
    found: list[Difference] = []
    wanted = tuple((key, "S") for key in table.key_attributes)
    if description.keys != wanted:
        problem = f"its key is {_format_key(description.keys)} but must be {_format_key(wanted)}"
        found.append(Difference(description.name, problem, True, REKEY))
    if not description.is_usable:
        problem = f"its state is {description.status}; its rows cannot be read or written"
        found.append(Difference(description.name, problem, description.status != "CREATING", description.remedy))
    if table.ttl and description.ttl is None:
        problem = f"its time to live on {table.ttl} is off: expired rows are never removed"
        found.append(Difference(description.name, problem, False, is_advice=table.ttl_is_optional))
    elif description.ttl != table.ttl:
        found.append(
            Difference(description.name, f"its time to live is on {description.ttl}, which ArtCafe does not expect", False)
        )
    return found


def _format_key(keys: Sequence[tuple[str, str]]) -> str:
    return " and ".join(f"{name} ({kind})" for name, kind in keys)


async def ensure_tables(client: DynamoDbClient, environment: Environment, *, make_missing: bool) -> None:
    """Check the tables at server start, and create missing ones if allowed.

    Raises `errors.StartRefused` with a remedy for a missing table, wrong keys, or tables that cannot be described.
    """
    schema = Schema(client, environment)
    try:
        found = await schema.describe_all()
        missing = [table for table, description in found.items() if description is None]
        unready = [table for table, description in found.items() if description is None or description.status == "CREATING"]
        if missing and not make_missing:
            names = ", ".join(table.name_in(environment) for table in missing)
            remedy = f"create {'it' if len(missing) == 1 else 'them'}: artcafe tables apply"
            raise errors.StartRefused(f"{client.endpoint} lacks {names}", remedy)
        for difference in differences(found):
            if difference.is_fatal:
                raise errors.StartRefused(
                    f"the table {difference.table} in {client.endpoint} cannot be used: {difference.problem}", difference.remedy
                )
            log.warning("tables.differ", table=difference.table, problem=difference.problem)
        if unready:
            log.info("tables.creating", tables=len(unready))
            await schema.create(unready, lambda name: log.info("tables.created", table=name))
    except errors.TablesRefused as exc:
        raise errors.StartRefused(exc.problem, exc.remedy) from exc
    except errors.Unavailable as exc:
        raise errors.StartRefused(
            f"{client.endpoint} cannot be used: {exc.__cause__ or exc}",
            "check the endpoint, the network and the credentials found by AWS's chain (aws sts get-caller-identity)",
        ) from exc
