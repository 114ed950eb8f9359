"""The platform as a user runs it: `artcafe up` as a process on free ports, and what a test needs around it.

A fleet of several `artcafe serve` is `tests/fleet.py`.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from artcafe.data_dir import read_secret
from artcafe.identity.local import LocalIdentity
from artcafe.observe.clock import now
from artcafe.rules.secrets import derive
from artcafe.sdk.agent import Agent
from artcafe.sdk.client import Client
from tests import ssh_keygen
from tests.children import plain_environ, started_with_parent
from tests.forked import ForkedProcess, run_artcafe, start_artcafe

WAIT_S = 30.0
"""For a start on a machine that is busy with other tests."""


@dataclass
class Cast:
    """A tenant with agents and channels, in the order of creation: the first agent is `agents[0]`."""

    tenant: str
    agents: list[str]
    channels: list[str]
    keys: list[Path]
    url: str
    token: str = field(repr=False)

    def agent(self, number: int = 0, **options: object) -> Agent:
        """Return the SDK's agent, not connected yet."""
        return Agent(self.url, tenant=self.tenant, agent=self.agents[number], key=self.keys[number], **options)  # type: ignore[arg-type]  # options are the test's

    def rest(self) -> Client:
        """Return a REST client of the tenant's owner."""
        return Client(self.url, self.token)


class Platform:
    """One `artcafe up` on a data folder, which may be killed and restarted; or one `artcafe serve`."""

    def __init__(
        self,
        folder: Path,
        flags: Sequence[str] = (),
        *,
        command: str = "up",
        secret: Path | None = None,
        descriptors: int | None = None,
        python: Path | str | None = None,
        default_metrics: bool = False,
    ) -> None:
        """`secret` is the file that `serve` gets in `flags`; `up` makes its own. `descriptors` limits its open files. `python` is
        the interpreter that executes the command, of this or another version; None: it is forked (`tests.forked`), for tests
        that measure nothing. `default_metrics`: the metrics at their default address, else at a free one."""
        self._limit = [] if descriptors is None else ["bash", "-c", f'ulimit -n {descriptors}; exec "$@"', "-"]
        self.folder, self._flags, self._command = folder, list(flags), command
        # Another version may not know the flag.
        is_other = python is not None and str(python) != sys.executable
        self._metrics = [] if default_metrics or is_other else ["--metrics-listen", "127.0.0.1:0"]
        self.data = folder / "data"
        self.secret = secret or self.data / "secret"
        self.process: ForkedProcess | subprocess.Popen[bytes] | None = None
        self.url = self.gateway_url = ""
        self.metrics_url: str | None = None
        self._ports = ("0", "0")
        self._casts = 0
        self._python = python

    def set_flags(self, flags: Sequence[str]) -> None:
        """Use these flags from the next start on."""
        self._flags = list(flags)

    def start(self) -> None:
        """Start it; return when it prints its addresses. After the first time it uses the same ports again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.data / "server.json").unlink(missing_ok=True)
        rest, gateway = self._ports
        arguments = [self._command, "--data-dir", str(self.data), "--log-level", "info"]
        arguments += ["--listen", f"127.0.0.1:{rest}", "--gateway-listen", f"127.0.0.1:{gateway}"]
        arguments += [*self._metrics, *self._flags]
        environ = plain_environ()
        with (self.folder / "log").open("ab") as log:
            if self._limit or self._python is not None:
                command = [*self._limit, self._python or sys.executable, "-m", "artcafe", *arguments]
                self.process = started_with_parent(command, stdout=log, stderr=log, env=environ, start_new_session=True)
            else:
                self.process = start_artcafe(arguments, stdout=log, stderr=log, env=environ)
        until = time.monotonic() + WAIT_S
        while not (self.data / "server.json").exists():
            assert self.process.poll() is None, (
                f"artcafe {self._command} ended with {self.process.returncode}:\n{self.log()[-3000:]}"
            )
            assert time.monotonic() < until, f"artcafe {self._command} is not ready:\n{self.log()[-3000:]}"
            threading.Event().wait(0.02)
        told = json.loads((self.data / "server.json").read_text())
        self.url, self.gateway_url = told["url"], told["gateway_url"]
        self.metrics_url = told.get("metrics_url")
        self._ports = (self.url.rpartition(":")[2], self.gateway_url.split(":")[2].split("/")[0])

    def kill(self) -> None:
        """Kill only the server with SIGKILL; its nats-server ends a moment later."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """Stop it with Ctrl-C, and return the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(20)

    @property
    def agents_url(self) -> str:
        """The address for agents and people."""
        return self.url

    def a_gateway(self) -> str:
        """Return the gateway for an agent that does not use REST."""
        return self.gateway_url

    @property
    def nats_pid(self) -> int:
        return int((self.data / "nats" / "nats.pid").read_text())

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def token(self, user: str) -> str:
        """Return an access token of the local identity, as the command prints it."""
        done = run_artcafe("token", "--user", user, "--data-dir", self.data)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    async def tenant_with(self, agents: int = 1, channels: int = 1, *, subscribed: bool = True, kind: str = "ed25519") -> Cast:
        """Create a tenant of a new user, with agents (real keys) and channels, and subscribe every agent to every channel."""
        self._casts += 1
        # As in `token`, without a process for each tenant.
        identity = LocalIdentity(derive(read_secret(self.secret), "local-identity"))
        token = identity.issue(f"owner-{self._casts}@example.com", now())
        folder = self.folder / f"cast-{self._casts}"
        folder.mkdir()
        cast = Cast("", [], [], [], self.agents_url, token)
        async with Client(self.url, token) as rest:
            # With a key it is repeated while a new cluster elects the leader of its audit.
            cast.tenant = (await rest.create_tenant(f"Tenant {self._casts}", key=secrets.token_hex(8))).id
            for number in range(agents):
                key = ssh_keygen.make_key(folder / f"agent-{number}", kind)
                public = key.with_suffix(".pub").read_text()
                cast.keys.append(key)
                cast.agents.append((await rest.tenant(cast.tenant).agents.create(f"agent {number}", public)).id)
            for number in range(channels):
                cast.channels.append((await rest.tenant(cast.tenant).channels.create(f"channel {number}")).id)
            for channel in cast.channels if subscribed else []:
                for agent in cast.agents:
                    await rest.tenant(cast.tenant).subscriptions.create(channel, agent)
        return cast


@contextmanager
def running(
    folder: Path,
    flags: Sequence[str] = (),
    descriptors: int | None = None,
    python: Path | str | None = None,
    *,
    default_metrics: bool = False,
) -> Iterator[Platform]:
    """Run a platform within this block; everything it started ends afterwards."""
    platform = Platform(folder, flags, descriptors=descriptors, python=python, default_metrics=default_metrics)
    platform.start()
    try:
        yield platform
    finally:
        if platform.process is not None and platform.process.poll() is None:
            platform.stop()
        pid_file = platform.data / "nats" / "nats.pid"
        if pid_file.exists() and _is_nats(int(pid_file.read_text())):
            os.kill(int(pid_file.read_text()), signal.SIGKILL)


def _is_nats(pid: int) -> bool:
    try:
        return b"nats-server" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
