"""How a server of a fleet begins on DynamoDB: with the tables that an operator has made, or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import boto3

from tests.aws import Aws


def test_serve_names_the_tables_that_are_missing_and_the_command_that_makes_them(aws: Aws, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 40)
    secret.chmod(0o600)
    flags = aws.tables_flags()
    command = [
        sys.executable,
        "-m",
        "artcafe",
        "serve",
        "--data-dir",
        str(tmp_path / "data"),
        "--secret-file",
        str(secret),
        *flags,
    ]
    command += ["--nats-urls", "nats://127.0.0.1:9", "--listen", "127.0.0.1:0", "--gateway-listen", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 3, done.stderr
    assert "lacks artcafe-agents, artcafe-tenants, " in done.stderr
    assert "make them: artcafe tables apply" in done.stderr
    operator = boto3.client("dynamodb", flags[1].removeprefix("dynamodb:"), endpoint_url=aws.url)
    assert operator.list_tables()["TableNames"] == [], "it has made none"
