"""The composition root: settings → adapters → services → edges, one task group over all of it, and the order in which it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Final, cast

import uvicorn

from artcafe.config import Address, Settings
from artcafe.data_dir import DataDir, make_secret, read_secret
from artcafe.delivery.hub import Hub
from artcafe.errors import OurFault, StartRefused, Unavailable
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.embedded.server import EmbeddedNats
from artcafe.fabric.fabric import Broker, Fabric
from artcafe.gateway.admission import Admission
from artcafe.gateway.desk import Desk
from artcafe.gateway.listener import Gateway
from artcafe.gateway.upgrade_request import PATH
from artcafe.identity.local import LocalIdentity
from artcafe.identity.oidc import OidcIdentity
from artcafe.identity.port import Identity
from artcafe.listeners import ListenerSettings, allow_descriptors
from artcafe.observe.clock import now
from artcafe.observe.logs import log
from artcafe.rest import app as rest
from artcafe.rest.deadline import DeadlineProtocol
from artcafe.rules.secrets import derive
from artcafe.rules.tokens import Tokens
from artcafe.services.agents import Agents
from artcafe.services.audit import Audit
from artcafe.services.changes import Changes
from artcafe.services.channels import Channels
from artcafe.services.connections import Connections
from artcafe.services.cursors import Cursors
from artcafe.services.history import History
from artcafe.services.invitations import Invitations
from artcafe.services.keys import AgentKeys
from artcafe.services.login import Login
from artcafe.services.login_throttle import LoginThrottle
from artcafe.services.member_login import MemberLogin
from artcafe.services.members import Members
from artcafe.services.messaging import Messaging
from artcafe.services.presence import Presence
from artcafe.services.readiness import Readiness
from artcafe.services.record_cache import RecordCache
from artcafe.services.retention import Retention
from artcafe.services.shares import Shares
from artcafe.services.subscriptions import Subscriptions
from artcafe.services.tenants import PerPerson, Tenants
from artcafe.services.terms import Current, Terms
from artcafe.services.version_watch import VersionWatch
from artcafe.supervision import Supervisor
from artcafe.tables.catalog import Environment
from artcafe.tables.engine.port import Engine
from artcafe.tables.open import open_engine
from artcafe.tables.sqlite.engine import Sqlite
from artcafe.tables.store import Store

NATS_START_S: Final = 10.0
REST_DRAIN_S: Final = 5
KEEP_ALIVE_S: Final = 10
LEAVE_S: Final = 1.0
SWEEP_S: Final = 60


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running server is reached."""

    url: str
    gateway_url: str


async def serve(settings: Settings, until: asyncio.Event, ready: Callable[[Addresses], None], *, embedded: bool) -> None:
    """Runs one server until the event is set, then ends it in order.

    `embedded`: makes the secret and runs nats-server as a child where no `nats_urls` are given; else both must be there.
    Raises `StartRefused` with what to do when it cannot start (from a task, so within an ExceptionGroup, where it got that far);
    then nothing is left running.
    """
    front = _check(settings, embedded=embedded)
    folder = DataDir.acquire(settings.data_dir)
    try:
        if embedded:
            make_secret(settings.secret_path)
        secret = read_secret(settings.secret_path)
        identity, current_terms = await _identity(settings, secret), _terms(settings)
        with _listening(settings.listen, "--listen") as listener:
            accounts = Accounts(derive(secret, "nats"), settings.environment)
            # The tables first: a wrong endpoint is told before a nats-server is started.
            async with _tables(settings, make_missing=embedded) as tables, _nats(settings, front, accounts) as nats:
                fabric = Fabric(nats.urls, accounts, tls=nats.tls, is_embedded=nats.is_embedded)
                await _serve(settings, front, secret, identity, current_terms, tables, fabric, listener, folder, until, ready)
    finally:
        folder.release()


def _check(settings: Settings, *, embedded: bool) -> ListenerSettings:
    """What both doors are made of. Raises `StartRefused` for settings that cannot be right, before anything is opened."""
    front = ListenerSettings.of(settings, now(), allow_descriptors())
    if not embedded and not settings.nats_urls:
        raise StartRefused(
            "--nats-urls (ARTCAFE_NATS_URLS) is not set, and a server of a fleet runs no NATS of its own",
            "set it to the fleet's NATS servers, or use 'artcafe up' for everything on one machine",
        )
    return front


async def _identity(settings: Settings, secret: bytes) -> Identity:
    """Who vouches for people. Raises `StartRefused` for a setting that cannot be right."""
    if settings.issuer is not None:
        return await OidcIdentity.open(settings.issuer, settings.client_ids, settings.jwks_url)
    for name, given in (("JWKS_URL", settings.jwks_url), ("CLIENT_IDS", settings.client_ids)):
        if given:
            raise StartRefused(
                f"{name} is set, but ISSUER is not: whose tokens it is about is open", "set ARTCAFE_ISSUER too, or neither"
            )
    return LocalIdentity(derive(secret, "local-identity"))


def _terms(settings: Settings) -> Current | None:
    """What people must accept. Raises `StartRefused` for settings that cannot be right, or a text that cannot be read."""
    version, file = settings.terms_version, settings.terms_file
    if version is None:
        if file or settings.terms_grace_until:
            raise StartRefused(
                "TERMS_FILE or TERMS_GRACE_UNTIL is set, but TERMS_VERSION is not: nobody would be asked to accept anything",
                "set ARTCAFE_TERMS_VERSION too, such as 2026-11, or none of the three",
            )
        return None
    try:
        text = file.read_text("utf-8") if file else None
    except (OSError, UnicodeDecodeError) as exc:
        raise StartRefused(f"TERMS_FILE, {file}, cannot be read as text: {exc}", "name a file of UTF-8 text") from exc
    return Current(version=version, text=text, grace_until=settings.terms_grace_until)


@contextlib.contextmanager
def _listening(address: Address, flag: str) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listener = socket.create_server((address.host, address.port), family=family, backlog=4096)
    except OSError as exc:
        raise _not_listening(address, flag, exc) from exc
    with listener:
        yield listener


def _not_listening(address: Address, flag: str, exc: OSError) -> StartRefused:
    return StartRefused(
        f"cannot listen on {address}: {os.strerror(exc.errno).lower() if exc.errno else exc}",
        f"stop what uses it, or choose another with {flag} {address.host}:PORT (0 takes a free one)",
    )


@contextlib.asynccontextmanager
async def _tables(settings: Settings, *, make_missing: bool) -> AsyncIterator[Engine]:
    """The engine, as long as this lasts. Raises `StartRefused` where the tables cannot be used."""
    place, endpoint, environment = settings.tables_place, settings.dynamodb_endpoint, Environment(settings.environment)
    tables = await open_engine(place, endpoint, environment, make_missing=make_missing)
    try:
        yield tables
    finally:
        await tables.close()


@contextlib.asynccontextmanager
async def _nats(settings: Settings, front: ListenerSettings, accounts: Accounts) -> AsyncIterator[Broker]:
    """The NATS servers to use: the fleet's, or a child that lives as long as this."""
    if settings.nats_urls:
        yield Broker(settings.nats_urls, front.nats_tls)
        return
    child = EmbeddedNats(settings.data_dir / "nats", accounts)
    await child.start()
    try:
        async with asyncio.TaskGroup() as group:
            supervisor = group.create_task(Supervisor("nats").keep(child.run))
            try:
                yield Broker(child.urls, child.tls, is_embedded=True)
            finally:
                supervisor.cancel()
    finally:
        await child.stop()


async def _serve(
    settings: Settings,
    front: ListenerSettings,
    secret: bytes,
    identity: Identity,
    current_terms: Current | None,
    tables: Engine,
    fabric: Fabric,
    listener: socket.socket,
    folder: DataDir,
    until: asyncio.Event,
    ready: Callable[[Addresses], None],
) -> None:
    """Until told to end; then everything that was made here is ended, and NATS is left."""
    async with asyncio.TaskGroup() as group:
        running = group.create_task(fabric.run())
        await _reach_nats(fabric)
        store = Store(tables)
        changes = _changes(fabric, Audit(fabric.audit_log, store, now))
        record_cache, subscriptions = RecordCache(store, changes), Subscriptions(store, changes, now, fabric.position)
        service_name = f"artcafe:{settings.environment}:{derive(secret, 'service-name', 8).hex()}"
        tokens = Tokens(derive(secret, "agent-tokens"), service_name)
        login = Login(store, record_cache, tokens, now, service_name, changes.audit, LoginThrottle(settings.challenges_per_min))
        cursors = Cursors(store, settings.cursor_seconds)
        presence, retention = Presence(fabric, now), _retention(store, fabric, changes)

        hub, history = Hub(fabric, group, retention.removed_to), History(record_cache, fabric, retention)
        messaging, tenants = Messaging(record_cache, fabric, now), _tenants(settings, store, changes, fabric, record_cache)
        terms = Terms(store, changes.audit, now, current_terms)
        people = Connections(record_cache), MemberLogin(identity, tenants, terms, changes.audit, now)
        gateway = Gateway(
            Desk(
                login,
                record_cache,
                subscriptions,
                messaging,
                cursors,
                hub,
                now,
                presence,
                history,
                *people,
                changes.audit.counters,
                _shares(fabric),
            ),
            group,
            admission=Admission(front.proxies, settings.allowed_origins, settings.connects_per_s, settings.own_hosts),
            connections=front.connections,
        )
        changes.subscribe(gateway.access_updates.changed)
        watch = VersionWatch(
            store, changes, lambda: gateway.access_updates.tenants() | record_cache.tenants(), fabric.announcements
        )
        fabric.on_tenant_failure(gateway.send_back)
        port = await _open_gateway(gateway, settings.gateway_listen, front.tls)
        addresses = Addresses(
            front.url("http", Address(*listener.getsockname()[:2])),
            settings.public_gateway_url or front.url("ws", Address(settings.gateway_listen.host, port)) + PATH,
        )
        services = rest.Services(
            login=login,
            tenants=tenants,
            terms=terms,
            members=Members(store, changes),
            invitations=Invitations(store, changes, now, derive(secret, "invitations")),
            agents=Agents(store, changes, now),
            keys=AgentKeys(store, changes, now),
            channels=Channels(store, changes, now, fabric),
            subscriptions=subscriptions,
            messaging=messaging,
            history=history,
            presence=presence,
            audit=changes.audit,
            identity=identity,
            health=Readiness(store, fabric, now).states,
            clock=now,
            gateway_url=addresses.gateway_url,
        )
        api = _Rest(
            services,
            rest.Settings(
                version=version("artcafe"),
                page_key=derive(secret, "page-cursors"),
                issuer=settings.issuer,
                proxies=front.proxies,
                requests_per_s=settings.requests_per_s,
            ),
            front,
        )
        background: dict[str, Callable[[], Awaitable[None]]] = {
            "identity": identity.run,
            "gateway": gateway.run,
            "gateway_changes": gateway.access_updates.run,
            "cursors": cursors.run,
            "retention": retention.run,
            "audit": changes.audit.counters.run,
            "record_cache": record_cache.run,
            "changes": watch.run,
        }
        if isinstance(tables, Sqlite):
            background["tables"] = partial(_sweep, tables)
        loops = [group.create_task(Supervisor(name).keep(loop)) for name, loop in background.items()]
        serving = group.create_task(api.serve(sockets=[listener]))
        folder.write_server_info(addresses.url, addresses.gateway_url, settings.issuer)
        ready(addresses)
        await until.wait()

        log.info("server.draining")
        await gateway.drain()
        api.should_exit = True
        await serving
        for loop in loops:
            loop.cancel()
        await _close(fabric, changes.audit)
        await running


async def _close(fabric: Fabric, audit: Audit) -> None:
    """Tells the audit what is only counted yet, and leaves NATS."""
    await audit.counters.flush()
    with contextlib.suppress(OurFault, TimeoutError):  # the others notice by themselves, and then read the tables for a while
        async with asyncio.timeout(LEAVE_S):
            await fabric.announcements.announce_end()
    fabric.close()


async def _reach_nats(fabric: Fabric) -> None:
    """Raises `StartRefused` where NATS cannot be used."""
    try:
        await fabric.update_replicas(NATS_START_S)
    except Unavailable as exc:
        raise StartRefused(
            f"NATS cannot be used: {fabric.problem or exc}",
            "is it up at --nats-urls, on what 'artcafe nats config' printed for this secret and environment?",
        ) from exc


def _tenants(settings: Settings, store: Store, changes: Changes, fabric: Fabric, record_cache: RecordCache) -> Tenants:
    per_person = PerPerson(settings.tenants_per_person, settings.tenants_per_day)
    return Tenants(store, changes, now, fabric, record_cache, per_person)


def _changes(fabric: Fabric, audit: Audit) -> Changes:
    """The changes of this server, told to the others, and theirs told here."""
    changes = Changes(audit, fabric.announcements.announce)
    fabric.announcements.listen(changes.on_remote_change)
    return changes


def _retention(store: Store, fabric: Fabric, changes: Changes) -> Retention:
    """The retention of this server, which bounds every tenant's log, and hears what changes."""
    retention = Retention(store, fabric, now)
    fabric.limit_storage(retention.storage_bytes)
    changes.subscribe(retention.changed)
    return retention


def _shares(fabric: Fabric) -> Shares:
    """Make the shares of this server, by which its group commits go too."""
    shares = Shares()
    fabric.set_group_limit(lambda: shares.most_a_group)
    return shares


async def _open_gateway(gateway: Gateway, address: Address, tls: ssl.SSLContext | None) -> int:
    """The port at which agents connect from here on."""
    try:
        return await gateway.listen(*address, tls=tls)
    except OSError as exc:
        raise _not_listening(address, "--gateway-listen", exc) from exc


async def _sweep(tables: Sqlite) -> None:
    """Removes expired challenges, as DynamoDB does by itself."""
    while True:
        await asyncio.sleep(SWEEP_S)
        try:
            await tables.sweep(now())
        except Unavailable as exc:
            log.warning("tables.not_swept", error=str(exc))


class _Rest(uvicorn.Server):
    """uvicorn without its signal handlers: when to end is the caller's to say."""

    def __init__(self, services: rest.Services, settings: rest.Settings, front: ListenerSettings) -> None:
        api, tls = rest.build(services, settings), front.tls
        super().__init__(
            uvicorn.Config(
                api,
                # uvicorn calls it, and looks at nothing else of it; a class is what its stub names.
                http=cast(type[asyncio.Protocol], partial(DeadlineProtocol, connections=front.connections)),
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # uvicorn's own reading believes any proxy of this machine: `rules.clients` does it.
                ssl_context_factory=None if tls is None else lambda _config, _default: tls,
                timeout_graceful_shutdown=REST_DRAIN_S,
                timeout_keep_alive=KEEP_ALIVE_S,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
