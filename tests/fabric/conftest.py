"""One real nats-server for tests that do not damage it. Each test creates its own tenant."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator

import pytest

from artcafe.fabric.accounts import Accounts
from artcafe.fabric.embedded.process import configuration, find_binary, some_free_port
from tests.children import ended_with_parent
from tests.fabric.nats_env import Nats

START_S = 10.0


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    folder = tmp_path_factory.mktemp("nats")
    accounts, port = Accounts(bytes(range(32)), "dev"), some_free_port()
    (folder / "nats.conf").write_text(json.dumps(configuration(folder, port, accounts)))
    with subprocess.Popen(ended_with_parent([find_binary(), "-c", folder / "nats.conf"])) as process:
        try:
            until = time.monotonic() + START_S
            while "Server is ready" not in _text(folder / "nats.log"):
                assert process.poll() is None, _text(folder / "nats.log")
                assert time.monotonic() < until, _text(folder / "nats.log")
            yield Nats(f"nats://127.0.0.1:{port}", accounts)
        finally:
            process.terminate()


def _text(path: object) -> str:
    try:
        with open(str(path)) as file:
            return file.read()
    except FileNotFoundError:
        return ""
