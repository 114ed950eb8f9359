"""A real server for tests: `artcafe up` as a child process."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from artcafe.data_dir import read_secret, read_server_info
from artcafe.identity.local import LocalIdentity
from artcafe.rules.secrets import derive
from artcafe.sdk.client import Client
from artcafe.testing.tenant_fixture import TenantFixture

START_S: Final = 60.0
"""A start takes about two seconds, and more on a machine that runs other tests."""
STOP_S: Final = 20.0
POLL_S: Final = 0.02
TAIL: Final = 3000
"""Characters of the log in an error."""
_UNUSED: Final = "127.0.0.1:0"


class ServerFixture:
    """`artcafe up` on free ports of this machine, with all of its data in `folder`. Use it in `with`.

    It ends with the block, or with this process, even if that is killed. `folder/log` has its log.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._data = folder, folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._names = itertools.count(1)
        self.url = ""
        """The REST address, for agents too."""
        self.gateway_url = ""

    def __repr__(self) -> str:
        return f"ServerFixture({self.url!r})"

    def __enter__(self) -> Self:
        """Start the server, and return when it is ready. Raises RuntimeError with its log if it cannot start."""
        arguments = ["up", "--data-dir", str(self._data), "--listen", _UNUSED, "--gateway-listen", _UNUSED]
        arguments += ["--metrics-listen", _UNUSED]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("ARTCAFE_")}
        with (self._folder / "log").open("ab") as log:
            command = [sys.executable, "-m", "artcafe.testing.process", *arguments]
            # A session of its own: Ctrl-C stops the tests, which still need the server for their cleanup.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environ, start_new_session=True
            )
        try:
            self._wait_ready(self._process)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self._stop()

    def token(self, user: str) -> str:
        """Return an access token of a user, who need not exist yet."""
        identity = LocalIdentity(derive(read_secret(self._data / "secret"), "local-identity"))
        return identity.issue(user, datetime.now(UTC))

    def client(self, user: str) -> Client:
        """Return a client of a user, to be used in `async with`."""
        return Client(self.url, self.token(user))

    def tenant(self, name: str | None = None, *, owner: str | None = None) -> TenantFixture:
        """Create a tenant. Its owner is a new user unless one is named."""
        number = next(self._names)
        owner = owner or f"owner-{number}@example.com"
        return TenantFixture.create(self.url, self.token(owner), name or f"Tenant {number}")

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + START_S
        while not (addresses := read_server_info(self._data)):
            if process.poll() is not None or time.monotonic() > until:
                log = (self._folder / "log").read_text(errors="replace")[-TAIL:]
                raise RuntimeError(f"the server for the tests did not start (artcafe[server] must be installed):\n{log}")
            threading.Event().wait(POLL_S)
        self.url, self.gateway_url = addresses["url"], addresses["gateway_url"]

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
