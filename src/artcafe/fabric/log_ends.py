"""The ends of all tenants' logs, asked from NATS in a few requests instead of one for each tenant."""

from __future__ import annotations

from typing import NamedTuple

from artcafe.fabric.log_state import NO_LOG, LogEnd
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.nats.stream_reports import read_stream_reports
from artcafe.fabric.tenant_log import EPOCH, STREAM
from artcafe.model import Epoch


class LogEnds(NamedTuple):
    """The ends of all tenants' logs, each as the log's leader has it."""

    by_key: dict[str, LogEnd]
    """By the key of the tenant's account."""
    names: dict[str, str]
    """The names of these accounts, by key."""
    is_complete: bool
    """Whether every NATS server has answered, so that other tenants have no log."""

    def of(self, account_key: str) -> LogEnd | None:
        """Return the end of a tenant's log; None if it is not known now."""
        return self.by_key.get(account_key, NO_LOG if self.is_complete else None)


async def read_log_ends(system: NatsConnection) -> LogEnds:
    """Ask the NATS servers for the ends of all logs. Leave out a log without a leader.

    Raise `Unavailable` or `NatsConnectionLost`.
    """
    reports = await read_stream_reports(system, leaders_only=True)
    by_key, names = dict[str, LogEnd](), dict[str, str]()
    for account in [account for accounts in reports.by_server.values() for account in accounts]:
        for stream in account.stream_detail:
            if stream.name == STREAM:
                names[account.id] = account.name
                by_key[account.id] = LogEnd(Epoch(stream.config.metadata.get(EPOCH, "")), stream.state.last_seq)
    return LogEnds(by_key, names, reports.is_complete)
