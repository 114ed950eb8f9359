"""Start of a server on DynamoDB: it fails with a remedy when tables are missing or the endpoint is unreachable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import boto3

from artcafe.fabric.embedded.process import some_free_port
from tests.aws import Aws


def test_serve_names_missing_tables_and_the_command_to_create_them(aws: Aws, tmp_path: Path) -> None:
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
    assert "create them: artcafe tables apply" in done.stderr
    operator = boto3.client("dynamodb", flags[1].removeprefix("dynamodb:"), endpoint_url=aws.url)
    assert operator.list_tables()["TableNames"] == [], "serve creates no tables"


def test_up_reports_an_unreachable_endpoint_before_starting_anything(aws: Aws, tmp_path: Path) -> None:
    nowhere, data = f"http://127.0.0.1:{some_free_port()}", tmp_path / "data"
    command = [sys.executable, "-m", "artcafe", "up", "--data-dir", str(data), *aws.tables_flags(nowhere)]
    command += ["--listen", "127.0.0.1:0", "--gateway-listen", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 3, done.stderr
    assert f"artcafe: DynamoDB at {nowhere} cannot be used: Could not connect to the endpoint URL" in done.stderr
    assert "check the endpoint" in done.stderr
    assert not (data / "nats").exists()
