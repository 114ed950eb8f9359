"""A nats-server that the test runs itself, for a server with `--nats-urls`: to use another flush interval, or to cut the
connection."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from artcafe.data_dir import make_secret, read_secret
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.embedded.process import configuration, find_binary, some_free_port
from artcafe.rules.secrets import derive
from tests.children import started_with_parent
from tests.faults.processes import wait_for

NATS_DEFAULT_FLUSH: Final = "2m"
"""JetStream's default `sync_interval` (https://docs.nats.io/running-a-nats-service/configuration)."""


class SeparateNats:
    """The nats-server that `artcafe up` runs as its child on this data folder, run by the test, with another `sync_interval` if
    wanted."""

    def __init__(self, data: Path, sync_interval: str = "always") -> None:
        self._folder = data / "nats"
        self._folder.mkdir(parents=True)
        make_secret(data / "secret")
        self._conf = self._folder / "nats.conf"
        self.port = some_free_port()
        settings = configuration(self._folder, self.port, Accounts(derive(read_secret(data / "secret"), "nats"), "prod"))
        assert isinstance(settings["jetstream"], dict)
        settings["jetstream"]["sync_interval"] = sync_interval
        self._conf.write_text(json.dumps(settings))
        with self._conf.open() as file:
            os.fsync(file.fileno())  # The flush interval is under test.
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; return when it accepts connections, which it does after reading its files."""
        command: list[str | Path] = [find_binary(), "-c", self._conf]
        self._process = started_with_parent(command, stderr=subprocess.DEVNULL, start_new_session=True)
        wait_for(self._answers, "an answer of nats-server")

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def ended(self) -> None:
        """Wait for the end of a killed server."""
        assert self._process is not None
        self._process.wait(10)

    def kill(self) -> None:
        """Kill it. Can be repeated."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self.ended()


@contextmanager
def separate_nats(data: Path, sync_interval: str = "always") -> Iterator[SeparateNats]:
    """Run one within this block; it has ended afterwards."""
    nats = SeparateNats(data, sync_interval)
    try:
        nats.start()
        yield nats
    finally:
        nats.kill()
