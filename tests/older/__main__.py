"""Write the tables and rows of the older system to a DynamoDB endpoint.

    python -m tests.older --endpoint http://127.0.0.1:4566 --keys DIR [--region us-east-1] [--dev|--indexes|--as-scripted]

Writes the agents' private keys to DIR, and `manifest.json` with the meaning of each row.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import boto3
import click
import msgspec

from tests.older.attributes import attribute_of
from tests.older.keys import KeyRing
from tests.older.manifest import RowManifest
from tests.older.rows import OlderRows
from tests.older.schema import Form, make_tables, name_of


def write_older_rows(client: Any, keys: Path, form: Form = Form.PLAIN) -> RowManifest:
    """Create the tables in a form, write every row, and return their manifest. The tables of its shell scripts get no rows."""
    make_tables(client, form)
    if form is Form.AS_SCRIPTED:
        return RowManifest()
    older = OlderRows(KeyRing(keys))
    for table, item in older.rows:
        client.put_item(TableName=name_of(table, form), Item={name: attribute_of(value) for name, value in item.items()})
    (keys / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(older.manifest)))
    return older.manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--keys", type=Path, required=True, help="a folder for the private keys and manifest.json")
    forms = parser.add_mutually_exclusive_group()
    for form in (Form.DEV, Form.INDEXES, Form.AS_SCRIPTED):
        forms.add_argument(f"--{form}", dest="form", action="store_const", const=form)
    chosen = parser.parse_args()
    credentials = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    client = boto3.client("dynamodb", chosen.region, endpoint_url=chosen.endpoint, **credentials)
    manifest = write_older_rows(client, chosen.keys, chosen.form or Form.PLAIN)
    click.echo(f"{len(manifest.rows)} rows; keys and manifest in {chosen.keys}")


if __name__ == "__main__":
    main()
