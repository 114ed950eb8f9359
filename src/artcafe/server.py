"""The composition root: opens resources, runs services, gateway and REST in one task group, and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any, Final

from artcafe import plan_catalogue
from artcafe.assembly import ServiceKeys, Services, ServiceSettings, service_name
from artcafe.config import Settings
from artcafe.connection_source import ConnectionSource, HandedConnections, OwnListeners
from artcafe.data_dir import DataDir, make_secret, read_secret
from artcafe.errors import OurFault, StartRefused, Unavailable
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.embedded.certificate import client_context
from artcafe.fabric.fabric import Fabric
from artcafe.gateway.admission import Admission
from artcafe.gateway.listener import Gateway
from artcafe.identity.local import LocalIdentity
from artcafe.identity.oidc import OidcIdentity
from artcafe.identity.port import Identity
from artcafe.listeners import ListenerSettings
from artcafe.model import UserId
from artcafe.monitoring.listener import MetricsListener
from artcafe.monitoring.process_gauges import run_process_gauges
from artcafe.monitoring.sampler import Sampler
from artcafe.observe import metrics
from artcafe.observe.clock import now
from artcafe.observe.exposition import Column, render
from artcafe.observe.logs import log
from artcafe.observe.loop_delay import LoopDelay
from artcafe.observe.tracing import open_tracing
from artcafe.resources import (
    Addresses,
    check_settings,
    listening,
    listening_for_metrics,
    metrics_url_of,
    open_nats,
    open_plans,
    open_tables,
)
from artcafe.rest import app as rest
from artcafe.rest.server import RestServer
from artcafe.rules.origins import Origins
from artcafe.rules.plans import Plans
from artcafe.rules.secrets import derive
from artcafe.services.platform_state import ThisServer
from artcafe.services.tenants import PerPerson
from artcafe.services.terms import Current
from artcafe.supervision import keep_all
from artcafe.tables.engine.measured import MeasuredTables
from artcafe.tables.engine.port import Engine
from artcafe.tables.sqlite.engine import Sqlite
from artcafe.tables.store import Store

NATS_START_S: Final = 10.0
LEAVE_S: Final = 1.0
SWEEP_S: Final = 60


async def serve(settings: Settings, until: asyncio.Event, ready: Callable[[Addresses], None], *, embedded: bool) -> None:
    """Run one server until the event is set, then stop it in order.

    `embedded` creates a missing secret, and runs nats-server as a child process if no `nats_urls` are set; else both must exist.
    Raises `StartRefused` with a remedy if the server cannot start, in an ExceptionGroup if a task raised it; nothing is left
    running then.
    """
    front, plans = check_settings(settings, embedded=embedded), open_plans(settings)
    folder = DataDir.acquire(settings.data_dir)
    try:
        metrics.CELLS.name_tenants(settings.metrics_tenants)
        if embedded:
            make_secret(settings.secret_path)
        secret = read_secret(settings.secret_path)
        identity, current_terms = await _identity(settings, secret), _terms(settings)
        with listening(settings.listen, "--listen") as listener, listening_for_metrics(settings) as scraped:
            accounts = Accounts(derive(secret, "nats"), settings.environment)
            # Open the tables first, so that a wrong endpoint is reported before a nats-server is started.
            async with open_tables(settings, make_missing=embedded) as tables, open_nats(settings, front, accounts) as nats:
                fabric = Fabric(nats.urls, accounts, tls=nats.tls, is_embedded=nats.is_embedded)
                source = OwnListeners(settings, front, listener, folder, metrics_url_of(settings, scraped))
                opened = _Opened(settings, front, secret, identity, current_terms, plans, tables, fabric, source)
                metrics.PROCESSES.of().set(1)
                await _serve(opened, until, ready, None if scraped is None else MetricsListener(scraped, _own_metrics))
    finally:
        folder.release()


async def serve_handed(
    settings: Settings, until: asyncio.Event, ready: Callable[[Addresses], None], handed: HandedConnections
) -> None:
    """Run one of several server processes until the event is set. Their supervisor has opened what they share (`process_group`).

    Raises `StartRefused` as `serve` does.
    """
    secret, plans = read_secret(settings.secret_path), plan_catalogue.read(settings.plans_file)
    identity, current_terms = await _identity(settings, secret), _terms(settings)
    accounts = Accounts(derive(secret, "nats"), settings.environment)
    tls = client_context(accounts) if handed.is_embedded else handed.front.nats_tls
    fabric = Fabric(handed.nats_urls, accounts, tls=tls, is_embedded=handed.is_embedded)
    async with open_tables(settings, make_missing=False, denied=handed.denied) as tables:
        opened = _Opened(settings, handed.front, secret, identity, current_terms, plans, tables, fabric, handed)
        await _serve(opened, until, ready)


async def _identity(settings: Settings, secret: bytes) -> Identity:
    """Return the identity provider of people. Raises `StartRefused` for inconsistent settings."""
    if settings.issuer is not None:
        return await OidcIdentity.open(settings.issuer, settings.client_ids, settings.jwks_url)
    for name, given in (("JWKS_URL", settings.jwks_url), ("CLIENT_IDS", settings.client_ids)):
        if given:
            raise StartRefused(
                f"{name} is set, but ISSUER is not, so the issuer of the tokens is unknown", "set ARTCAFE_ISSUER too, or neither"
            )
    return LocalIdentity(derive(secret, "local-identity"))


def _terms(settings: Settings) -> Current | None:
    """Return the terms that people must accept. Raises `StartRefused` for inconsistent settings, or an unreadable text."""
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


@dataclass(frozen=True, slots=True)
class _Opened:
    """Everything that a server stands on, open for as long as it runs."""

    settings: Settings
    front: ListenerSettings
    secret: bytes = field(repr=False)
    identity: Identity
    terms: Current | None
    plans: Plans
    tables: Engine
    fabric: Fabric
    source: ConnectionSource

    def service_settings(self) -> ServiceSettings:
        """Return the settings of the services."""
        settings = self.settings
        process, processes = self.source.process
        return ServiceSettings(
            service_name=service_name(self.secret, settings.environment),
            challenges_per_min=settings.challenges_per_min,
            make_challenge_buckets=self.front.limits.challenges,
            cursor_s=settings.cursor_seconds,
            meter_s=settings.meter_s,
            per_person=PerPerson(settings.tenants_per_person, settings.tenants_per_day),
            terms=self.terms,
            plans=self.plans,
            checks=self.source.checks,
            permissions=None if isinstance(self.tables, Sqlite) else self.tables,
            tracing=open_tracing(settings.tracing),
            webhook_networks=settings.webhook_networks,
            operators=tuple(map(UserId, settings.operators)),
            this=ThisServer(process=process, processes=processes, connections=lambda: self.front.connections.count),
        )

    def admission(self) -> Admission:
        """Return the admission of the gateway's connections."""
        settings = self.settings
        return Admission(
            self.front.proxies,
            settings.allowed_origins,
            settings.connects_per_s,
            settings.own_hosts,
            make_buckets=self.front.limits.connects,
        )

    def rest_settings(self, addresses: Addresses) -> rest.RestSettings:
        """Return the settings of the HTTP API."""
        return rest.RestSettings(
            version=version("artcafe"),
            gateway_url=addresses.gateway_url,
            page_key=derive(self.secret, "page-cursors"),
            issuer=self.settings.issuer,
            console_client_id=self.settings.console_client_id,
            console_scope=self.settings.console_scope,
            console_token_origin=self.settings.console_token_origin,
            public_url=self.settings.public_url,
            local_url=addresses.url,
            origins=Origins(self.settings.allowed_origins, self.settings.own_rest_hosts),
            proxies=self.front.proxies,
            requests_per_s=self.settings.requests_per_s,
            make_buckets=self.front.limits.requests,
        )


def _own_metrics() -> bytes:
    return render([Column(1, metrics.CELLS.values)], {})


async def _serve(
    opened: _Opened,
    until: asyncio.Event,
    ready: Callable[[Addresses], None],
    metrics_listener: MetricsListener | None = None,
) -> None:
    """Serve until the event is set; then drain the gateway, end REST and the background loops, and leave NATS."""
    front, tables, fabric, source = opened.front, opened.tables, opened.fabric, opened.source
    async with asyncio.TaskGroup() as group:
        running = group.create_task(fabric.run())
        await _reach_nats(fabric)
        keys = ServiceKeys.derived_from(opened.secret)
        services = Services(Store(MeasuredTables(tables)), fabric, opened.identity, keys, now, opened.service_settings(), group)
        gateway = Gateway(services, group, admission=opened.admission(), connections=front.connections)
        addresses = await source.open(gateway)
        api = RestServer(services, opened.rest_settings(addresses), front.connections, front.tls)
        background = {"gateway": gateway.run, "gateway_changes": gateway.access_updates.run}
        if isinstance(tables, Sqlite):
            background["tables"] = partial(_sweep, tables)
        if opened.settings.metrics_listen is not None:
            background |= _gauges(Sampler(services, gateway, front.connections, tables))
        if metrics_listener is not None:
            background["metrics"] = metrics_listener.run
        loops = [group.create_task(services.run()), group.create_task(keep_all(background))]
        serving = group.create_task(source.serve(gateway, api))
        source.announce(addresses)
        ready(addresses)
        await until.wait()

        log.info("server.draining")
        services.pulls.waits.drain()
        services.streams.drain()
        await gateway.drain()
        api.should_exit = True
        await serving
        for loop in loops:
            loop.cancel()
        await _close(fabric, services)
        await running


def _gauges(sampler: Sampler) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
    """Return the loops that set the gauges of a server process."""
    return {
        "gauges": sampler.run,
        "nats_gauges": sampler.run_nats,
        "process_gauges": run_process_gauges,
        "loop_delay": LoopDelay(metrics.LOOP_DELAY.of().set).run,
    }


async def _close(fabric: Fabric, services: Services) -> None:
    """Give back the messages of queues, write the audit entries and the usage counted so far, announce the end to the other
    servers, and leave NATS."""
    await services.queue_hub.close()
    if services.meter is not None:
        await services.meter.release()
    await services.counters.flush()
    await services.usage_counters.close()
    with contextlib.suppress(OurFault, TimeoutError):  # else the others detect it, and read the tables until then
        async with asyncio.timeout(LEAVE_S):
            await fabric.announcements.announce_end()
    fabric.close()


async def _reach_nats(fabric: Fabric) -> None:
    """Wait until NATS can be used, and update the replicas of its streams. Raises `StartRefused`."""
    try:
        await fabric.update_replicas(NATS_START_S)
    except Unavailable as exc:
        raise StartRefused(
            f"NATS cannot be used: {fabric.problem or exc}",
            "is it up at --nats-urls, on what 'artcafe nats config' printed for this secret and environment?",
        ) from exc


async def _sweep(tables: Sqlite) -> None:
    """Delete expired rows every minute, until cancelled. DynamoDB deletes them itself."""
    while True:
        await asyncio.sleep(SWEEP_S)
        try:
            await tables.sweep(now())
        except Unavailable as exc:
            log.warning("tables.not_swept", error=str(exc))
