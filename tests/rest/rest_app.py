"""A REST server for tests: real tables, a real nats-server, HTTP on loopback, and keys from ssh-keygen; without the gateway.

It runs on its own event loop in a thread, so that tests are synchronous calls which do not block the server.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import uvicorn

from artcafe.assembly import ServiceKeys, Services, ServiceSettings
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.embedded.server import EmbeddedNats
from artcafe.fabric.fabric import Fabric
from artcafe.identity.local import LocalIdentity
from artcafe.model import Role, TenantId, TenantStatus, UserId
from artcafe.observe.clock import now
from artcafe.rest.app import RestSettings, build
from artcafe.rest.deadline import DeadlineProtocol
from artcafe.services.readiness import Checks, Readiness
from artcafe.services.terms import Current
from artcafe.tables.catalog import Environment
from artcafe.tables.sqlite.engine import Sqlite
from artcafe.tables.store import Store
from tests import ssh_keygen
from tests.plain_http import NO_AUTHORITIES

BOUND_S = 20
GATEWAY_URL = "ws://127.0.0.1:8081/v1/connect"
SETTINGS = RestSettings(version="1.2.3", gateway_url=GATEWAY_URL, page_key=bytes(range(32)))

R = TypeVar("R")


class RestApp:
    """The server, as a context manager. All its data is deleted at the end."""

    identity = LocalIdentity(b"i" * 32)

    def __init__(self, folder: Path, terms: Current | None = None, operators: tuple[UserId, ...] = ()) -> None:
        """Set up the server. Users created here accept the `terms`, except with `user(…, accepts=False)`."""
        self._folder, self._terms, self._operators = folder, terms, operators
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), name="REST server")
        self._ready = threading.Event()
        self._numbers = itertools.count(1)
        self._clients = ExitStack()
        self.nats: EmbeddedNats
        self.fabric: Fabric
        self.services: Services
        self.store: Store
        self.url: str

    def __enter__(self) -> RestApp:
        self._thread.start()
        assert self._ready.wait(BOUND_S * 2), "the server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._clients.close()
        self._loop.call_soon_threadsafe(self._leave.set)
        self._thread.join(BOUND_S * 2)
        assert not self._thread.is_alive()

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine on the server's event loop, for actions without a route."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(BOUND_S)

    async def _live(self) -> None:
        self._loop, self._leave = asyncio.get_running_loop(), asyncio.Event()
        accounts = Accounts(b"s" * 32, "dev")
        self.nats = nats = EmbeddedNats(self._folder / "nats", accounts)
        await nats.start()
        tables = await Sqlite.open(self._folder / "tables.db", Environment.DEV)
        try:
            async with asyncio.TaskGroup() as group:
                self.fabric = Fabric([nats.url], accounts)
                group.create_task(self.fabric.run())
                await self.fabric.wait_up(BOUND_S)
                self.store = Store(tables)
                keys = ServiceKeys(agent_tokens=b"t" * 32, invitations=b"v" * 32)
                settings = ServiceSettings(service_name="test", terms=self._terms, operators=self._operators)
                self.services = Services(self.store, self.fabric, self.identity, keys, now, settings, group)
                self.audit, self.tokens = self.services.audit, self.services.tokens
                # Without the first, each answer to a publish would wait 0.25 s for the audience.
                loops = [group.create_task(loop()) for loop in (self.services.audiences.run, self.services.streams.run)]
                # asyncio sets TCP_NODELAY only for an explicit protocol; without it every second packet waits 40 ms for an ACK.
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
                    listener.bind(("127.0.0.1", 0))
                    listener.listen()  # uvicorn does so later, and until then a first request would be refused
                    self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
                    server = uvicorn.Server(_config(self.services))
                    serving = group.create_task(server.serve([listener]))
                    self._ready.set()
                    await self._leave.wait()
                    self.services.streams.drain()
                    server.should_exit = True
                    await serving
                for loop in loops:
                    loop.cancel()
                await self.services.queue_hub.close()
                self.fabric.close()
        finally:
            await tables.close()
            await nats.stop()

    def services_with(self, checks: Checks) -> Services:
        """Return the services with other checks of readiness."""
        services = copy(self.services)
        services.readiness = Readiness(checks)
        return services

    @contextmanager
    def ending_streams(self, tenant_id: str) -> Iterator[None]:
        """End each stream of a tenant some milliseconds after its beginning, for requests that read whole responses."""

        async def end_all() -> None:
            while True:
                self.services.streams.close_tenant(TenantId(tenant_id))
                await asyncio.sleep(0.005)

        ending = asyncio.run_coroutine_threadsafe(end_all(), self._loop)
        try:
            yield
        finally:
            ending.cancel()

    # --- tenants and callers -------------------------------------------------------------------------------------------

    def client(self, token: str | None = None) -> Caller:
        """Return a caller with a token, or without one."""
        return self._clients.enter_context(Caller(self.url, token))

    def person(self) -> Caller:
        """Return a new user."""
        return self.user(f"person-{next(self._numbers)}@example.com")

    def user(self, user: str, *, accepts: bool = True) -> Caller:
        """Return the user with this `sub`."""
        caller = self.client(self.identity.issue(user, now()))
        if accepts and self._terms is not None:
            assert caller.post("/v1/terms/acceptances").status_code == 201
        return caller

    def tenant(self) -> Tenant:
        """Create a tenant with a new owner."""
        owner = self.person()
        made = owner.post("/v1/tenants", json={"name": f"Tenant {next(self._numbers)}"})
        assert made.status_code == 201, made.text
        return Tenant(self, owner, made.json()["id"])

    def suspend(self, tenant_id: str) -> None:
        """Suspend a tenant as the operator, and notify the server."""
        tenant = self.store.tenant(TenantId(tenant_id))

        async def suspend() -> None:
            await tenant.transact([tenant.set_status(TenantStatus.SUSPENDED, now())])
            self.services.invalidation.notify(tenant.id)

        self.run(suspend())

    def key(self) -> Path:
        """Return a new SSH key."""
        return ssh_keygen.make_key(self._folder / f"key{next(self._numbers)}")


class Caller(httpx2.Client):
    """An HTTP client with an optional token."""

    def __init__(self, url: str, token: str | None) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        super().__init__(base_url=url, headers=headers, timeout=BOUND_S, trust_env=False, verify=NO_AUTHORITIES)
        self.token = token

    def begun(self, path: str) -> httpx2.Response:
        """Return the response of a stream with its first part only, or the whole refusal."""
        with self.stream("GET", path) as response:
            content = next(response.iter_bytes()) if response.is_success else response.read()
            return httpx2.Response(response.status_code, headers=response.headers, content=content)


@dataclass(frozen=True)
class Tenant:
    """A tenant of the server, with helpers to fill it."""

    rest_app: RestApp
    owner: Caller
    id: str

    @property
    def path(self) -> str:
        """The tenant's path."""
        return f"/v1/tenants/{self.id}"

    def member(self, role: Role, name: str = "") -> Caller:
        """Return a new user with this role in the tenant."""
        address = f"{name or role}-{next(self.rest_app._numbers)}@example.com"
        member = self.rest_app.user(address)
        accepted = member.post("/v1/invitations/acceptances", json={"token": self.invite(address, role)["token"]})
        assert accepted.status_code == 201, accepted.text
        return member

    def invite(self, address: str, role: Role = Role.MEMBER) -> dict[str, str]:
        """Create an invitation, and return it with its token."""
        made = self.owner.post(f"{self.path}/members", json={"address": address, "role": role})
        assert made.status_code == 201, made.text
        return dict(made.json())

    def agent(self, **fields: Any) -> Agent:
        """Register an agent with a new key."""
        key = self.rest_app.key()
        body = {"name": "An agent", "public_key": ssh_keygen.public_line(key), **fields}
        made = self.owner.post(f"{self.path}/agents", json=body)
        assert made.status_code == 201, made.text
        return Agent(self, made.json()["id"], key)

    def channel(self, **fields: Any) -> str:
        """Create a channel, and return its id."""
        made = self.owner.post(f"{self.path}/channels", json={"name": "A channel", **fields})
        assert made.status_code == 201, made.text
        return str(made.json()["id"])

    def call_tool(self, caller: Caller, tool: str, **arguments: object) -> httpx2.Response:
        """Call a tool of the tenant's MCP over HTTP."""
        params = {"name": tool, "arguments": arguments}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        return caller.post(f"{self.path}/mcp", json=body)

    def subscribed(self, channel: str, agent: Agent) -> str:
        """Create a subscription, and return its path."""
        path = f"{self.path}/channels/{channel}/subscriptions/{agent.id}"
        assert self.owner.put(path).status_code == 201
        return path


@dataclass(frozen=True)
class Agent:
    """An agent of a tenant, with its key."""

    tenant: Tenant
    id: str
    key: Path

    @property
    def path(self) -> str:
        """The agent's path."""
        return f"{self.tenant.path}/agents/{self.id}"

    def another_key(self) -> str:
        """Add a key, and return its id."""
        made = self.tenant.owner.post(
            f"{self.path}/keys", json={"public_key": ssh_keygen.public_line(self.tenant.rest_app.key())}
        )
        assert made.status_code == 201, made.text
        return str(made.json()["id"])

    def challenge(self) -> dict[str, str]:
        """Request a challenge."""
        body = {"tenant_id": self.tenant.id, "agent_id": self.id}
        answer = self.tenant.rest_app.client().post("/v1/auth/challenges", json=body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def prove(self, posed: Mapping[str, str]) -> httpx2.Response:
        """Sign a challenge with the agent's key, and return the response."""
        proof = {"challenge_id": posed["challenge_id"], "signature": ssh_keygen.sign(self.key, posed["challenge"].encode())}
        return self.tenant.rest_app.client().post("/v1/auth/tokens", json=proof)

    def login(self) -> Caller:
        """Log in, and return a caller with the agent's token."""
        answer = self.prove(self.challenge())
        assert answer.status_code == 200, answer.text
        return self.tenant.rest_app.client(answer.json()["access_token"])


def _config(services: Services) -> uvicorn.Config:
    return uvicorn.Config(
        build(services, SETTINGS),
        http=DeadlineProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )
