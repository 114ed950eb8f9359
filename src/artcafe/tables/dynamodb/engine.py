"""The table engine for a fleet: the port on DynamoDB. `client` makes the calls, and `schema` manages the tables.

Each verb is one call. A transaction carries a token, so that a retry after a lost answer does not apply it twice. A single write
has no token: its retry meets the result of the first attempt, so every write is built to be safe to retry.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, Final

from artcafe.errors import Unavailable
from artcafe.tables.catalog import TABLES, Environment, Table
from artcafe.tables.dynamodb import permissions
from artcafe.tables.dynamodb.client import CallRefused, Consumed, DynamoDbClient, Endpoint, backoff_delays, reasons_of
from artcafe.tables.dynamodb.expressions import Expressions
from artcafe.tables.dynamodb.permissions import NO_ROW, TablePermission
from artcafe.tables.dynamodb.values import Attribute, from_attributes, to_attributes
from artcafe.tables.engine.conditions import Condition
from artcafe.tables.engine.port import ConditionFailed, ItemPage, Query, ScanPage
from artcafe.tables.engine.values import Item, Unstorable
from artcafe.tables.engine.writes import Check, Delete, ItemKey, Put, Update, Write, check_table_key, check_transaction

MAX_BATCH_KEYS: Final = 100
"""The limit of BatchGetItem."""

_ACTIONS: Final[dict[type[Write], str]] = {Put: "Put", Update: "Update", Delete: "Delete", Check: "ConditionCheck"}
_CONDITION_FAILED: Final = {"ConditionalCheckFailedException", "ConditionalCheckFailed"}
_UNSTORABLE: Final = ("Item size to update", "Number overflow", "Number underflow", "significant digits", "Nesting Levels")
"""Messages of DynamoDB for an update with too large a result; their error code is the same for every invalid request."""


class DynamoDb:
    """A table engine on one endpoint, created by `DynamoDb.open`. Belongs to the loop it was opened on."""

    def __init__(self, client: DynamoDbClient, environment: Environment) -> None:
        """Take over `client`: the engine closes it."""
        self._client, self._environment = client, environment

    @classmethod
    async def open(
        cls, endpoint: Endpoint, environment: Environment, consumed: Callable[[Consumed], None] | None = None
    ) -> DynamoDb:
        """Open an engine on existing tables. Raises `errors.StartRefused` like `DynamoDbClient.open`."""
        return cls(await DynamoDbClient.open(endpoint, consumed), environment)

    async def get(self, table: Table, keys: Sequence[ItemKey], *, consistent: bool = False) -> list[Item | None]:
        """Read items as `Tables.get` does."""
        for key in keys:
            check_table_key(table, key)
        distinct = list(dict.fromkeys(keys))
        if len(distinct) == 1:
            found = {distinct[0]: await self._get_one(table, distinct[0], consistent)}
        else:
            found = {}
            for start in range(0, len(distinct), MAX_BATCH_KEYS):
                found |= await self._get_batch(table, distinct[start : start + MAX_BATCH_KEYS], consistent)
        return [found.get(key) for key in keys]

    async def query(
        self,
        table: Table,
        partition: str,
        *,
        prefix: str = "",
        after: str | None = None,
        limit: int = 50,
        descending: bool = False,
        where: Condition | None = None,
        consistent: bool = False,
    ) -> ItemPage:
        """Query as `Tables.query` does."""
        query = Query(table, partition, prefix, after, limit, descending, where, consistent)
        sort_key = table.key_attributes[1]
        answer = await self._client.items("query", self._query(query, sort_key))
        last: dict[str, Attribute] | None = answer.get("LastEvaluatedKey")
        return ItemPage([from_attributes(item) for item in answer["Items"]], None if last is None else last[sort_key]["S"])

    async def scan_page(
        self, table: Table, *, after: str | None = None, limit: int = 1000, where: Condition | None = None
    ) -> ItemPage:
        """Scan a page as `Tables.scan_page` does."""
        asked, expressions = ScanPage(table, after, limit, where), Expressions()
        request: dict[str, Any] = {"TableName": self._name(table), "Limit": asked.limit, "ConsistentRead": True}
        if asked.where is not None:
            request["FilterExpression"] = expressions.condition(asked.where)
        if asked.after is not None:
            request["ExclusiveStartKey"] = _key(table, ItemKey(asked.after))
        answer = await self._client.items("scan", request | expressions.parameters())
        last = answer.get("LastEvaluatedKey")
        found: list[Item] = [from_attributes(item) for item in answer["Items"]]
        return ItemPage(found, next=str(from_attributes(last)[table.partition_key]) if last else None)

    async def put(self, write: Put) -> None:
        """Write an item as `Tables.put` does."""
        await self._write("put_item", write)

    async def update(self, write: Update) -> Item:
        """Update an item as `Tables.update` does."""
        answer = await self._write("update_item", write, ReturnValues="ALL_NEW")
        return from_attributes(answer["Attributes"])

    async def delete(self, write: Delete) -> Item | None:
        """Delete an item as `Tables.delete` does."""
        answer = await self._write("delete_item", write, ReturnValues="ALL_OLD")
        return from_attributes(answer["Attributes"]) if answer.get("Attributes") else None

    async def transact(self, writes: Sequence[Write]) -> None:
        """Apply the writes as `Tables.transact` does."""
        check_transaction(writes)
        actions = [{_ACTIONS[type(write)]: self._request(write)} for write in writes]
        try:
            await self._client.items("transact_write_items", {"TransactItems": actions, "ClientRequestToken": str(uuid.uuid4())})
        except CallRefused as refused:
            raise self._failure("transact_write_items", refused, reasons_of(refused)) from refused

    async def scan(self, table: Table) -> AsyncIterator[Item]:
        """Scan a table as `Scans.scan` does."""
        request: dict[str, Any] = {"TableName": self._name(table)}
        while True:
            answer = await self._client.items("scan", request)
            for item in answer["Items"]:
                yield from_attributes(item)
            if not answer.get("LastEvaluatedKey"):
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def close(self) -> None:
        """Close the engine as `Tables.close` does."""
        await self._client.close()

    # --- permissions ---

    @property
    def denied(self) -> list[str]:
        """Return the permissions as `Engine.denied` does."""
        return permissions.texts_of(self._client.denials)

    async def try_permissions(self, scanned: Sequence[Table], only: Collection[str] | None = None) -> None:
        """Try the permissions as `Engine.try_permissions` does."""
        wanted = [(action, table) for table in TABLES for action in permissions.SERVER_ACTIONS]
        wanted += [("Scan", table) for table in scanned]
        named = [TablePermission(action, self._name(table)) for action, table in wanted]
        await self._try([each for each in named if only is None or str(each) in only])

    async def retry_denied(self) -> None:
        """Try the denied permissions again, as `Engine.retry_denied` does."""
        await self._try(list(self._client.denials))

    async def _try(self, wanted: Sequence[TablePermission]) -> None:
        """Make a call for each permission: those of a table one after the other, so that few connections are opened."""

        async def attempt(table: Table) -> None:
            key = _key(table, ItemKey(NO_ROW, table.sort_key and NO_ROW))
            for permission in wanted:
                if permission.table == self._name(table):
                    with suppress(CallRefused, Unavailable):  # The false condition of a write; a denial is noted.
                        await self._client.items(*permissions.trial(permission, key))

        async with asyncio.TaskGroup() as group:
            for table in TABLES:
                group.create_task(attempt(table))

    # --- reads ---

    async def _get_one(self, table: Table, key: ItemKey, consistent: bool) -> Item | None:
        request = {"TableName": self._name(table), "Key": _key(table, key), "ConsistentRead": consistent}
        answer = await self._client.items("get_item", request)
        return from_attributes(answer["Item"]) if "Item" in answer else None

    async def _get_batch(self, table: Table, keys: Sequence[ItemKey], consistent: bool) -> dict[ItemKey, Item]:
        """Read up to 100 keys. DynamoDB may return only some of them, above 16 MB or when throttling; request the rest again."""
        wanted = {self._name(table): {"Keys": [_key(table, key) for key in keys], "ConsistentRead": consistent}} if keys else {}
        found: dict[ItemKey, Item] = {}
        pauses = backoff_delays()
        while wanted:
            answer = await self._client.items("batch_get_item", {"RequestItems": wanted})
            items = [from_attributes(item) for item in answer["Responses"].get(self._name(table), [])]
            found |= {_key_in(table, item): item for item in items}
            wanted = answer.get("UnprocessedKeys", {})
            if wanted and not items:
                pause_s = next(pauses, None)
                if pause_s is None:
                    raise self._client.unavailable("batch_get_item", "UnprocessedKeys", "not all keys were read")
                await asyncio.sleep(pause_s)
        return found

    def _query(self, query: Query, sort_key: str) -> dict[str, Any]:
        table, expressions = query.table, Expressions()
        keys = f"{expressions.name(table.partition_key)} = {expressions.value({'S': query.partition})}"
        if query.prefix:
            keys += f" AND begins_with({expressions.name(sort_key)}, {expressions.value({'S': query.prefix})})"
        request = {
            "TableName": self._name(table),
            "KeyConditionExpression": keys,
            "Limit": query.limit,
            "ScanIndexForward": not query.descending,
            "ConsistentRead": query.consistent,
        }
        if query.where is not None:
            request["FilterExpression"] = expressions.condition(query.where)
        if query.after is not None:
            request["ExclusiveStartKey"] = _key(table, ItemKey(query.partition, query.after))
        return request | expressions.parameters()

    # --- writes ---

    async def _write(self, operation: str, write: Put | Update | Delete, **wanted: str) -> dict[str, Any]:
        try:
            return await self._client.items(operation, self._request(write) | wanted)
        except CallRefused as refused:
            reason = {"Code": refused.code, "Message": refused.message, "Item": refused.answer.get("Item")}
            raise self._failure(operation, refused, [reason]) from refused

    def _request(self, write: Write) -> dict[str, Any]:
        """Return the request parameters common to a single write and a transaction's write."""
        expressions = Expressions()
        request: dict[str, Any] = {"TableName": self._name(write.table)}
        if isinstance(write, Put):
            request["Item"] = to_attributes(write.item)
        else:
            request["Key"] = _key(write.table, write.key)
        if isinstance(write, Update):
            request["UpdateExpression"] = expressions.changes(write.changes)
        guard = write.guard
        if guard is not None:
            request["ConditionExpression"] = expressions.condition(guard)
            request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        return request | expressions.parameters()

    def _failure(self, operation: str, refused: CallRefused, reasons: Sequence[dict[str, Any]]) -> Exception:
        """Return the error of a refused write: a false condition, too large a result, or an unexpected error.

        A condition takes precedence over a value, because every engine evaluates conditions first.
        """
        failed = {index: reason.get("Item") for index, reason in enumerate(reasons) if reason.get("Code") in _CONDITION_FAILED}
        if failed:
            return ConditionFailed({index: from_attributes(item) if item else None for index, item in failed.items()})
        messages = [refused.message, *(reason.get("Message") or "" for reason in reasons)]
        for message in messages:
            if any(sign in message for sign in _UNSTORABLE):
                return Unstorable("item", message)
        return self._client.unavailable(operation, refused.code, " ".join(filter(None, messages)))

    def _name(self, table: Table) -> str:
        return table.name_in(self._environment)


def _key(table: Table, key: ItemKey) -> dict[str, Attribute]:
    attributes: dict[str, Attribute] = {table.partition_key: {"S": key.partition}}
    if table.sort_key is not None:
        attributes[table.sort_key] = {"S": key.sort}
    return attributes


def _key_in(table: Table, item: Item) -> ItemKey:
    partition, sort = item[table.partition_key], item[table.sort_key] if table.sort_key else None
    assert isinstance(partition, str), "the tables' keys are text, which was checked at the start"
    assert sort is None or isinstance(sort, str), "as above"
    return ItemKey(partition, sort)
