"""`artcafe platform audit …`: read the platform's own audit or any tenant's, as the operator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import click
import msgspec

from artcafe.cli.installation.location import Installation, with_installation
from artcafe.cli.manage.audit import COLUMNS, SHOWN, check_chain, until_option, warn_if_incomplete
from artcafe.cli.operate.operator_context import OperatorContext, connect
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.output import as_json, limit_option, show_all
from artcafe.model import TenantId
from artcafe.rules.pages import MAX_LIMIT, PageRequest
from artcafe.sdk.records import AuditEntry
from artcafe.services.audit import ChainedEntry

HELP: Final = {"help_option_names": ["-h", "--help"]}

tenant_option = click.option(
    "--tenant", metavar="TENANT", help="Read the audit of this tenant, even of a deleted one.  [default: the platform's own]"
)


@click.group(context_settings=HELP)
def audit() -> None:
    """Read the audit of the platform or of a tenant.

    The platform's audit records accepted terms, deleted, suspended and resumed tenants, and attempts by strangers to a tenant. It
    is read from the NATS of a data folder, with or without a running server, or of a fleet, which
    ARTCAFE_NATS_URLS and ARTCAFE_SECRET_FILE name.

    \b
    Example:
      artcafe platform audit list --data-dir ./artcafe-data
    """


@audit.command("list", cls=ArtcafeCommand)
@limit_option
@tenant_option
@with_installation
async def list_entries(installation: Installation, tenant: str | None, limit: int | None) -> int:
    """List entries, newest first: 20, or as many as --limit.

    \b
    Example:
      artcafe platform audit list --tenant ten_… --data-dir ./artcafe-data
    """
    async with connect(installation) as context:
        entries = _entries(context, tenant, most=limit or SHOWN, oldest_first=False)
        await show_all(installation, entries, COLUMNS, none="the audit is empty")
    return 0


@audit.command(cls=ArtcafeCommand)
@tenant_option
@with_installation
async def export(installation: Installation, tenant: str | None) -> int:
    """Print the whole audit as JSON lines, oldest first. 'artcafe audit check' verifies such a file.

    \b
    Example:
      artcafe platform audit export --data-dir ./artcafe-data >audit.jsonl
    """
    async with connect(installation) as context:
        async for entry in _entries(context, tenant, most=None, oldest_first=True):
            click.echo(as_json(entry).encode())
    return 0


@audit.command(cls=ArtcafeCommand)
@until_option
@tenant_option
@with_installation
async def verify(installation: Installation, tenant: str | None, until: str | None) -> int:
    """Verify that no entry was changed, removed or added.

    The output is the number and digest of the last entry. Pass them to --until next time, to detect a truncated end.

    \b
    Example:
      artcafe platform audit verify --data-dir ./artcafe-data --until 41:9f86d081884c7d65…
    """
    async with connect(installation) as context:
        entries = [entry async for entry in _entries(context, tenant, most=None, oldest_first=True)]
    check_chain(entries, until, json=installation.as_json)
    if tenant is not None:
        warn_if_incomplete(entries)
    return 0


async def _entries(
    context: OperatorContext, tenant: str | None, *, most: int | None, oldest_first: bool
) -> AsyncIterator[AuditEntry]:
    """Yield the entries of an audit: at most `most`, or all for None."""
    after: str | None = None
    while most is None or most > 0:
        page_request = PageRequest(MAX_LIMIT if most is None else min(most, MAX_LIMIT), after)
        page = await context.audit.list_any(TenantId(tenant) if tenant else None, page_request, oldest_first=oldest_first)
        for line in page.items:
            yield _shown(line)
        if page.next is None:
            return
        after, most = page.next, None if most is None else most - len(page.items)


def _shown(line: ChainedEntry) -> AuditEntry:
    """Return the entry as REST returns it."""
    return msgspec.convert({**msgspec.to_builtins(line.entry), "digest": line.digest}, AuditEntry)
