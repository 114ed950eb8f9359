"""A nats-server that the test runs itself, for a server that is given `--nats-urls`: to flush otherwise, or to be cut off."""

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
"""JetStream's `sync_interval` where nobody sets it (https://docs.nats.io/running-a-nats-service/configuration)."""


class OutsideNats:
    """What `artcafe up` runs as its child on this data folder, run by the test, with another `sync_interval` if wanted."""

    def __init__(self, data: Path, sync_interval: str = "always") -> None:
        self._folder = data / "nats"
        self._folder.mkdir(parents=True)
        make_secret(data / "secret")
        self._conf = self._folder / "nats.conf"
        self.port = some_free_port()
        told = configuration(self._folder, self.port, Accounts(derive(read_secret(data / "secret"), "nats"), "prod"))
        assert isinstance(told["jetstream"], dict)
        told["jetstream"]["sync_interval"] = sync_interval
        self._conf.write_text(json.dumps(told))
        with self._conf.open() as file:
            os.fsync(file.fileno())  # What is under test is how messages are flushed.
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when it takes connections, which it does once it has read its files."""
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
        """Waits for the end of one that was killed."""
        assert self._process is not None
        self._process.wait(10)

    def kill(self) -> None:
        """May be repeated."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self.ended()


@contextmanager
def outside_nats(data: Path, sync_interval: str = "always") -> Iterator[OutsideNats]:
    """One that runs, and has ended afterwards."""
    nats = OutsideNats(data, sync_interval)
    try:
        nats.start()
        yield nats
    finally:
        nats.kill()
