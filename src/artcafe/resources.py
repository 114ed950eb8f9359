"""Open a server's resources: checked settings, a listening socket, the tables, and NATS.

A server (`server`) and the supervisor of several server processes (`process_group`) open the same things. This module does not
import REST or the gateway's sessions: the supervisor needs 25 MB less without them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass

from artcafe import plan_catalogue
from artcafe.config import Address, Settings
from artcafe.errors import PlansInvalid, StartRefused
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.embedded.server import EmbeddedNats
from artcafe.fabric.fabric import Broker
from artcafe.gateway.upgrade_request import PATH
from artcafe.listeners import ListenerSettings, allow_descriptors, local_url
from artcafe.observe.clock import now
from artcafe.observe.logs import log
from artcafe.rules.open_connections import capacity
from artcafe.rules.plan_check import Capacity, oversold
from artcafe.rules.plans import Plans
from artcafe.supervision import Supervisor
from artcafe.tables.catalog import TENANTS, Environment, Table
from artcafe.tables.engine.port import Engine
from artcafe.tables.open import open_engine

Adopt = Callable[[socket.socket], Awaitable[None]]
"""Serve a connection that another process has accepted."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running server is reached."""

    url: str
    gateway_url: str
    metrics_url: str | None = None
    """None if there are no metrics, or if a supervisor serves them."""


def check_settings(settings: Settings, *, embedded: bool) -> ListenerSettings:
    """Return what both listeners are opened with. Raises `StartRefused` for wrong settings, before anything is opened."""
    front = ListenerSettings.of(settings, now(), allow_descriptors())
    if not embedded and not settings.nats_urls:
        raise StartRefused(
            "--nats-urls (ARTCAFE_NATS_URLS) is not set, and a server of a fleet runs no NATS of its own",
            "set it to the fleet's NATS servers, or use 'artcafe up' for everything on one machine",
        )
    return front


def open_plans(settings: Settings) -> Plans:
    """Return the catalogue of plans. Raises `PlansInvalid` for a file with faults, or that sells more than this installation can
    keep; of the shipped catalogue, which fits most machines, such a number is only logged."""
    plans = plan_catalogue.read(settings.plans_file)
    if faults := oversold(plans, capacity_of(settings)):
        if settings.plans_file is not None:
            raise PlansInvalid(f"the file of plans {settings.plans_file}", faults)
        log.warning("plans.oversold", faults="; ".join(faults))
    return plans


def capacity_of(settings: Settings) -> Capacity:
    """Return what an installation with these settings can keep."""
    if settings.nats_urls:
        return Capacity()
    processes = settings.processes if isinstance(settings.processes, int) else os.cpu_count() or 1
    folder = settings.data_dir.absolute()
    disk = next(each for each in (folder, *folder.parents) if each.exists())
    return Capacity(processes * capacity(allow_descriptors()), shutil.disk_usage(disk).total)


@contextlib.contextmanager
def listening(address: Address, flag: str) -> Iterator[socket.socket]:
    """Listen on an address that `flag` names. Raises `StartRefused`."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listener = socket.create_server((address.host, address.port), family=family, backlog=4096)
    except OSError as exc:
        raise cannot_listen(address, flag, exc) from exc
    with listener:
        yield listener


@contextlib.contextmanager
def listening_for_metrics(settings: Settings) -> Iterator[socket.socket | None]:
    """Listen for Prometheus. None if that is off, or if the default address is taken, as by another server of this machine.

    Raises `StartRefused` for an address that was chosen.
    """
    address = settings.metrics_listen
    if address is None:
        yield None
        return
    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(listening(address, "--metrics-listen"))
        except StartRefused as exc:
            if "metrics_listen" in settings.model_fields_set:
                raise
            log.warning("metrics.not_served", problem=exc.problem, remedy="choose another address with --metrics-listen, or off")
            yield None
            return
        if not address.is_loopback:
            log.warning("metrics.public", address=str(address), remedy="let only Prometheus reach it: it has no TLS and no login")
        yield listener


def metrics_url_of(settings: Settings, listener: socket.socket | None) -> str | None:
    """Return the URL of the metrics for this machine."""
    if settings.metrics_listen is None or listener is None:
        return None
    return f"{local_url('http', Address(settings.metrics_listen.host, listener.getsockname()[1]))}/metrics"


def cannot_listen(address: Address, flag: str, exc: OSError) -> StartRefused:
    """Return why the address cannot be listened on, and what to do."""
    return StartRefused(
        f"cannot listen on {address}: {os.strerror(exc.errno).lower() if exc.errno else exc}",
        f"stop what uses it, or choose another with {flag} {address.host}:PORT (0 takes a free one)",
    )


@contextlib.asynccontextmanager
async def open_tables(settings: Settings, *, make_missing: bool, denied: Collection[str] | None = None) -> AsyncIterator[Engine]:
    """Open the table engine, and close it at the end. Raises `StartRefused` where the tables cannot be used.

    A missing permission is logged, and stops no start: it may be one for a rare call. `denied`: the permissions that another
    process with the same settings has found missing, so that only those are tried.
    """
    location, endpoint, environment = settings.tables_location, settings.dynamodb_endpoint, Environment(settings.environment)
    tables = await open_engine(location, endpoint, environment, make_missing=make_missing)
    try:
        await tables.try_permissions(scanned=scanned_tables(settings), only=denied)
        yield tables
    finally:
        await tables.close()


def scanned_tables(settings: Settings) -> list[Table]:
    """Return the tables that a server reads whole: that of the tenants, for its operators."""
    return [TENANTS] if settings.operators else []


@contextlib.asynccontextmanager
async def open_nats(settings: Settings, front: ListenerSettings, accounts: Accounts) -> AsyncIterator[Broker]:
    """Yield where NATS is reached: at the fleet's servers, or at a child that is ended with this."""
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


def addresses_of(
    settings: Settings, front: ListenerSettings, port: int, gateway_port: int, metrics_url: str | None = None
) -> Addresses:
    """Return where the two listeners are reached that have these ports."""
    return Addresses(
        front.url("http", Address(settings.listen.host, port)),
        settings.public_gateway_url or front.url("ws", Address(settings.gateway_listen.host, gateway_port)) + PATH,
        metrics_url,
    )
