"""Tables, audits and announcements for an operator's command, which works on the tables and on the platform's NATS account."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from artcafe.assembly import ServiceKeys, ServiceSettings, TableServices, service_name
from artcafe.cli.installation.data_dir_nats import connect_nats
from artcafe.cli.installation.location import Installation
from artcafe.config import Settings
from artcafe.data_dir import read_secret
from artcafe.errors import TablesRefused, Unavailable
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.announcements import Announcements
from artcafe.fabric.embedded.process import recorded
from artcafe.fabric.fabric import Broker, Fabric
from artcafe.listeners import nats_tls
from artcafe.observe.clock import now
from artcafe.rules.plans import Plans
from artcafe.rules.secrets import derive
from artcafe.services.audit import Audit
from artcafe.tables.store import Store

UP_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class OperatorContext:
    """The tables, the audits, the messages, the catalogue of plans, and announcements to all servers."""

    store: Store
    audit: Audit
    announcements: Announcements
    fabric: Fabric
    plans: Plans


@asynccontextmanager
async def connect(installation: Installation) -> AsyncIterator[OperatorContext]:
    """Open tables and NATS of an installation, with or without running servers.

    Raises Unavailable when NATS is unreachable, and StartRefused or TablesRefused with a remedy.
    """
    secret, environment = read_secret(installation.settings.secret_path), installation.settings.environment
    accounts = Accounts(derive(secret, "nats"), environment)
    async with installation.engine() as engine, open_nats(installation.settings, accounts) as nats, asyncio.TaskGroup() as group:
        fabric = Fabric(nats.urls, accounts, tls=nats.tls, is_embedded=nats.is_embedded)
        group.create_task(fabric.run())
        try:
            try:
                await fabric.update_replicas(UP_S)
            except Unavailable:
                raise Unavailable(f"NATS at {', '.join(nats.urls)} ({fabric.problem or 'no answer'})") from None
            settings = ServiceSettings(service_name=service_name(secret, environment), plans=installation.plans())
            keys = ServiceKeys.derived_from(secret)
            services = TableServices(Store(engine), fabric.audit_log, fabric, keys, now, settings)
            yield OperatorContext(services.store, services.audit, fabric.announcements, fabric, services.plans)
        finally:
            fabric.close()


@asynccontextmanager
async def open_nats(settings: Settings, accounts: Accounts) -> AsyncIterator[Broker]:
    """Yield the fleet's NATS servers, or the data folder's. Raises StartRefused or TablesRefused with a remedy."""
    if settings.nats_urls:
        yield Broker(settings.nats_urls, nats_tls(settings))
        return
    if recorded(settings.data_dir / "nats" / "nats.conf") is None:
        raise TablesRefused(
            f"{settings.data_dir} has no NATS of 'artcafe up', so NATS cannot be reached",
            "name the data folder with --data-dir, or a fleet with ARTCAFE_NATS_URLS and ARTCAFE_SECRET_FILE",
        )
    async with connect_nats(settings, accounts, _ignore_notice) as broker:
        yield broker


def _ignore_notice(_text: str) -> None:
    """Ignore the notice of a running server, which is the normal case for these commands."""
