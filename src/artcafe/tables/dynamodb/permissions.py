"""The permissions on tables that AWS grants by its policies: those that a call needs, and that DynamoDB has denied."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from artcafe.observe.logs import log

DENIED: Final = "AccessDeniedException"
"""The error code of a call that the policies do not allow. It stays so until somebody changes them."""

ACTIONS: Final[Mapping[str, str]] = {
    "get_item": "GetItem",
    "batch_get_item": "BatchGetItem",
    "query": "Query",
    "scan": "Scan",
    "put_item": "PutItem",
    "update_item": "UpdateItem",
    "delete_item": "DeleteItem",
}
"""The action of each operation on items. A transaction needs those of its writes instead."""
WRITE_ACTIONS: Final[Mapping[str, str]] = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "ConditionCheck": "ConditionCheckItem",
}
"""The action of each write of a transaction."""

SERVER_ACTIONS: Final = ("GetItem", "BatchGetItem", "Query", "PutItem", "UpdateItem", "DeleteItem", "ConditionCheckItem")
"""The actions that a server needs on every table (docs/dynamodb.md). One with `OPERATORS` also scans the tenants."""

NO_ROW: Final = "permission-check"
"""Both keys of the row that a trial names. It is never written."""

_NAMED: Final = re.compile(r"not authorized to perform: dynamodb:(\w+) on resource: \S*:table/([^\s/]+)")
"""How DynamoDB's message names the permission: of several, the first that it misses."""


class TablePermission(NamedTuple):
    """The permission for an action on a table."""

    action: str
    table: str

    def __str__(self) -> str:
        return f"dynamodb:{self.action} on {self.table}"


def needed(operation: str, request: Mapping[str, Any]) -> Iterator[TablePermission]:
    """Yield the permissions that a call of an operation on items needs."""
    for write in request.get("TransactItems", ()):
        for kind, each in write.items():
            yield TablePermission(WRITE_ACTIONS[kind], each["TableName"])
    for table in request.get("RequestItems", ()):
        yield TablePermission(ACTIONS[operation], table)
    if "TableName" in request:
        yield TablePermission(ACTIONS[operation], request["TableName"])


def trial(permission: TablePermission, key: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the operation and the request of a call that needs a permission, and changes nothing.

    `key` has the attributes of `NO_ROW`, the partition key first. A write has a false condition: that the row exists.
    """
    action, table = permission
    partition, names = next(iter(key)), {"#k": next(iter(key))}
    named, guard = {"TableName": table}, {"ConditionExpression": "attribute_exists(#k)", "ExpressionAttributeNames": names}
    match action:
        case "BatchGetItem":
            return "batch_get_item", {"RequestItems": {table: {"Keys": [key]}}}
        case "Query":
            values = {"ExpressionAttributeNames": names, "ExpressionAttributeValues": {":k": key[partition]}, "Limit": 1}
            return "query", {**named, "KeyConditionExpression": "#k = :k", **values}
        case "Scan":
            return "scan", {**named, "Limit": 1}
        case "PutItem":
            return "put_item", {**named, **guard, "Item": key}
        case "UpdateItem":
            return "update_item", {**named, **guard, "Key": key}
        case "DeleteItem":
            return "delete_item", {**named, **guard, "Key": key}
        case "ConditionCheckItem":
            return "transact_write_items", {"TransactItems": [{"ConditionCheck": {**named, **guard, "Key": key}}]}
        case _:
            return "get_item", {**named, "Key": key}


class Denials:
    """The permissions that DynamoDB has denied to this process, until a call with them succeeds. Each is logged once."""

    def __init__(self, where: str) -> None:
        """`where` is the endpoint, for the log."""
        self._where = where
        self._denied: dict[TablePermission, None] = {}

    def __iter__(self) -> Iterator[TablePermission]:
        return iter(tuple(self._denied))

    def note(self, operation: str, request: Mapping[str, Any], message: str) -> None:
        """Record and log what a denied call misses. A message of another service than AWS may not name it."""
        named = _NAMED.search(message)
        missing = [TablePermission(*named.groups())] if named else list(dict.fromkeys(needed(operation, request)))
        for permission in missing:
            if permission not in self._denied:
                self._denied[permission] = None
                action = f"dynamodb:{permission.action}"
                log.error("tables.denied", where=self._where, action=action, table=permission.table, message=message)

    def clear(self, operation: str, request: Mapping[str, Any]) -> None:
        """Remove the permissions with which a call has succeeded."""
        for permission in self._denied.keys() & set(needed(operation, request)) if self._denied else ():
            del self._denied[permission]
            log.info("tables.allowed", where=self._where, action=f"dynamodb:{permission.action}", table=permission.table)


def texts_of(denied: Iterable[TablePermission]) -> list[str]:
    """Return permissions as text, in the order of their tables."""
    return [str(each) for each in sorted(denied, key=lambda each: (each.table, each.action))]
