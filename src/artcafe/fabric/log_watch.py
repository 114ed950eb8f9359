"""Detection of stored messages that have not arrived, in the logs of all open tenants, mostly by one request for all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from artcafe.errors import NatsConnectionLost, OurFault
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.log_ends import LogEnds, read_log_ends
from artcafe.fabric.nats.connection import NatsConnection, unreachable
from artcafe.fabric.tenant_fabric import TenantFabric
from artcafe.model import Seq, TenantId
from artcafe.observe.logs import log

CHECK_S: Final = 5.0
"""How often the logs are checked. Republishing is at most once: if a leader dies between storing and republishing, only the next
message would show the gap."""
PAUSE_S: Final = 0.005
"""Pause between two logs to be checked, so that many of them do not delay messages."""
LOGS_A_CHECK: Final = 32
"""The ends of so many logs cost as much to read as the check of one tenant (decision record 73)."""


class LogWatch:
    """Has the readers of a tenant check its log when it has messages that have not arrived here."""

    def __init__(
        self,
        system: NatsConnection,
        accounts: Accounts,
        open_tenants: Callable[[], Sequence[TenantFabric]],
        *,
        check_s: float = CHECK_S,
    ) -> None:
        self._system, self._accounts, self._open_tenants, self._check_s = system, accounts, open_tenants, check_s
        self._keys: dict[TenantId, str] = {}
        """The keys of the followed tenants' accounts, from their first check on."""
        self._known_logs = 0
        """The number of logs in NATS, as last read."""

    async def run(self) -> None:
        """Watch the logs of the open tenants until cancelled."""
        while True:
            begun, due = time.monotonic(), await self._due()
            for tenant in due:
                tenant.readers.check_soon()
                if tenant.tenant_id not in self._keys:  # one at a time: a key is derived in some 0.3 ms
                    self._keys[tenant.tenant_id] = self._accounts.account_key(tenant.tenant_id)
                await asyncio.sleep(min(PAUSE_S, self._check_s / len(due)))
            await asyncio.sleep(max(0.0, self._check_s - (time.monotonic() - begun)))

    async def _due(self) -> list[TenantFabric]:
        """Return the tenants whose logs may have messages that have not arrived: all of them while NATS does not answer, or if
        they have a small part of the logs in NATS."""
        followed = [each for each in self._open_tenants() if each.readers.is_following]
        if not followed or len(followed) * LOGS_A_CHECK < self._known_logs:
            return followed
        try:
            ends = await self._read()
        except OurFault as exc:
            log.debug("log_watch.ends_unknown", error=repr(exc))
            return followed
        self._keys = {each.tenant_id: self._keys[each.tenant_id] for each in followed if each.tenant_id in self._keys}
        return [each for each in followed if self._is_due(each, ends)]

    def _is_due(self, tenant: TenantFabric, ends: LogEnds) -> bool:
        key = self._keys.get(tenant.tenant_id)
        end = None if key is None else ends.of(key)
        return end is None or not tenant.readers.lacks_nothing(end)

    async def _read(self) -> LogEnds:
        try:
            ends = await read_log_ends(self._system)
        except NatsConnectionLost as exc:
            raise unreachable() from exc
        self._known_logs = len(ends.by_key)
        return ends

    async def log_ends(self) -> dict[TenantId, Seq]:
        """Return the last sequence of each log, also of tenants that are not open. Raise `Unavailable`.

        Leave out tenants whose id is not the name of their account: ids of an older system with other characters than those of
        `Accounts.account_name`.
        """
        ends = await self._read()
        named = {TenantId(name): key for key, name in ends.names.items() if ends.by_key[key].seq}
        return {each: ends.by_key[key].seq for each, key in named.items() if self._accounts.account_key(each) == key}
