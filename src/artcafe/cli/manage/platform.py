"""`artcafe platform …`: read the state of the platform over REST. `cli.operate.platform_audit` reads its audit from NATS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

import click
import msgspec

from artcafe.cli.manage.command_context import CommandContext, as_user
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.lazy_group import SERVER, LazyCommand, LazyGroup
from artcafe.cli.terminal.output import Columns, align, as_json, as_text, limit_option, show_all, size_text
from artcafe.sdk.operator_records import Dependency, FleetServer, NatsServer, PlatformState, SuspendedTenant

T = TypeVar("T", bound=msgspec.Struct)

LAZY: Final = {
    "audit": LazyCommand(
        "artcafe.cli.operate.platform_audit", "audit", "Read the audit of the platform or of a tenant.", extra=SERVER
    )
}
SERVERS: Final[Columns[FleetServer]] = {
    "SERVER": lambda each: each.id,
    "STATE": lambda each: each.state,
    "HOST": lambda each: each.host,
    "PROCESS": lambda each: None if each.process is None else f"{each.process} of {each.processes}",
    "VERSION": lambda each: each.version,
    "STARTED": lambda each: each.started_at,
    "CONNECTIONS": lambda each: each.connections,
    "SESSIONS": lambda each: each.sessions,
}
NATS: Final[Columns[NatsServer]] = {
    "NATS": lambda each: each.name,
    "STATE": lambda each: "up" if each.answers else "silent",
    "LEADER": lambda each: each.is_leader,
    "CURRENT": lambda each: each.is_current,
    "LAG": lambda each: each.lag,
    "JETSTREAM": lambda each: each.jetstream,
    "VERSION": lambda each: each.version,
    "STARTED": lambda each: each.started_at,
    "STREAMS": lambda each: each.streams,
    "STORED": lambda each: size_text(each.stored_bytes),
}
READINESS: Final[Columns[Dependency]] = {
    "DEPENDENCY": lambda each: each.name,
    "READY": lambda each: each.is_ready,
    "PROBLEM": lambda each: each.problem,
}
TENANTS: Final[Columns[SuspendedTenant]] = {
    "TENANT": lambda each: each.id,
    "PLAN": lambda each: each.plan,
    "SUSPENDED": lambda each: each.suspended_at,
    "CREATED": lambda each: each.created_at,
}


@click.group(cls=LazyGroup, lazy_commands=LAZY, context_settings={"help_option_names": ["-h", "--help"]})
def platform() -> None:
    """Read the state and the audit of the platform, as its operator."""


@platform.command(cls=ArtcafeCommand)
@as_user
async def state(context: CommandContext) -> None:
    """Show the servers of the fleet, the NATS servers, and whether the server that answers is ready.

    For the users in the server's setting OPERATORS. An empty cell is unknown. CURRENT and LAG (operations) are the view of the
    leader of the NATS cluster.

    \b
    Examples:
      artcafe platform state
      artcafe platform state --json
    """
    found = await context.rest.platform_state()
    if context.as_json:
        click.echo(as_json(found).encode())
        return
    for note in _notes(found):
        context.note(note)
    blocks = [_lines(SERVERS, found.servers), _lines(NATS, found.nats.servers or ()), _lines(READINESS, found.readiness)]
    click.echo("\n\n".join("\n".join(lines) for lines in blocks if lines))


@platform.command(cls=ArtcafeCommand)
@limit_option
@as_user
async def suspended(context: CommandContext, limit: int | None) -> None:
    """List the suspended tenants, in no order.

    For the users in the server's setting OPERATORS. It reads the rows of all tenants, which is charged with tables on DynamoDB.

    \b
    Example:
      artcafe platform suspended
    """
    await show_all(context, context.rest.suspended_tenants(limit=limit), TENANTS, none="no tenant is suspended")


def _notes(state: PlatformState) -> list[str]:
    """Return what the tables do not show."""
    notes = [] if state.is_complete else ["NATS cannot be reached, so other servers may be missing"]
    if state.nats.problem:
        notes.append(f"NATS: {state.nats.problem}")
    elif state.nats.servers is None:
        notes.append("NATS: no server answers")
    return notes


def _lines(columns: Columns[T], items: Sequence[T]) -> list[str]:
    rows = [[as_text(show(each)) for show in columns.values()] for each in items]
    return align([list(columns), *rows]) if rows else []
