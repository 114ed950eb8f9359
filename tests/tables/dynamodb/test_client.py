"""Opening the client."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.loaders import JSONFileLoader

from artcafe.tables.dynamodb.client import DynamoDbClient, Endpoint
from tests.aws import Aws


async def test_only_the_first_client_of_a_process_reads_the_description_of_the_service(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    load_file = JSONFileLoader.load_file

    def noted(self: JSONFileLoader, path: str) -> Any:
        read.append(path)
        return load_file(self, path)

    monkeypatch.setattr(JSONFileLoader, "load_file", noted)
    opened = [await DynamoDbClient.open(Endpoint(aws.new_region(), aws.url))]
    before = len(read)
    opened += [await DynamoDbClient.open(Endpoint(aws.new_region(), aws.url))]
    assert read[before:] == []
    for each in opened:
        assert (await each.call("list_tables", {}))["TableNames"] == []
        await each.close()
