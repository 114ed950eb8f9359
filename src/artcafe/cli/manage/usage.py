"""`artcafe usage …`: show, recount and export what a tenant used."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import click

from artcafe.cli.manage import usage_export
from artcafe.cli.manage.command_context import CommandContext, in_tenant
from artcafe.cli.manage.usage_export import Prices
from artcafe.cli.terminal.exit_codes import DIFFERENT, ArtcafeCommand
from artcafe.cli.terminal.output import as_text, show_table
from artcafe.sdk.usage_records import RecountComparison, Recounted, Usage, UsageItem

By = Literal["agent", "channel"]
Every = Literal["day", "hour"]
CallbackT = TypeVar("CallbackT", bound=Callable[..., Any])

METRICS: Final = (
    "messages_stored",
    "bytes_stored",
    "messages_live",
    "deliveries",
    "requests",
    "api_calls",
    "connection_minutes",
    "peak_connections",
    "agents",
    "channels",
    "storage_bytes",
)
"""The names in `rules.usage.Metric`, for the help."""


class UsageGroup(click.Group):
    """A group whose default command is `show`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["show", *args]
        return super().parse_args(ctx, args)


def query_options(command: CallbackT) -> CallbackT:
    """Add the options that select usage."""
    options = (
        click.option(
            "--period", metavar="PERIOD", help="A month, day or hour of UTC, such as 2026-11.  [default: the current month]"
        ),
        click.option("--metric", metavar="NAME", help=f"Only this metric: {', '.join(METRICS)}."),
        click.option("--by", type=click.Choice(["agent", "channel"]), help="Divide each metric by agent (or user) or channel."),
        click.option("--every", type=click.Choice(["day", "hour"]), help="List each day or hour in the period."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group(cls=UsageGroup, context_settings={"help_option_names": ["-h", "--help"]})
def usage() -> None:
    """Read what a tenant used, as one of its admins. Without a command: 'artcafe usage show'.

    \b
    Example:
      artcafe usage --period 2026-11
    """


@usage.command(cls=ArtcafeCommand)
@query_options
@in_tenant
async def show(context: CommandContext, period: str | None, metric: str | None, by: By | None, every: Every | None) -> None:
    """Show what the tenant used.

    An empty VALUE is unknown: nothing was counted. EXACT says what may be missing from the value.

    \b
    Examples:
      artcafe usage show
      artcafe usage show --period 2026-11-28 --metric deliveries --by agent
      artcafe usage show --period 2026-11 --every day --json
    """
    found = await context.scope.usage.get(period=period, metric=metric, by=by, every=every)
    headings = ["METRIC", "PERIOD", *([by.upper()] if by else []), "VALUE", "EXACT"]
    show_table(context, found, headings, [_cells(item, by) for item in found.items])
    if not found.items:
        context.note("nothing was counted")
    if found.as_of is not None:
        later = " in the totals; the parts of stored messages follow within 10 minutes" if by else ""
        context.note(f"everything before {as_text(found.as_of)} is counted{later}")


def _cells(item: UsageItem, by: By | None) -> list[object]:
    names = {"agent": item.agent_handle or item.agent, "channel": item.channel_handle or item.channel}
    part = [] if by is None else [names[by]]
    return [item.name, item.period, *part, "" if item.value is None else f"{item.value:,}", _exactness(item)]


def _exactness(item: UsageItem) -> str:
    if item.value is None:
        return ""
    if item.exact or item.bound is None:
        return "yes" if item.exact else "no"
    if item.bound.servers is not None:
        return f"no: may lack {item.bound.seconds} s of {item.bound.servers} server(s)"
    return "no: an unknown number is missing" if item.bound.missing is None else f"no: at most {item.bound.missing:,} missing"


@usage.command(cls=ArtcafeCommand)
@click.option("--period", metavar="PERIOD", help="A month, day or hour of UTC, such as 2026-11.  [default: the current month]")
@in_tenant
async def recount(context: CommandContext, period: str | None) -> None:
    """Count the messages in the tenant's own log again, and compare them with its usage.

    Prints each hour (or day, or month) that is not equal, with its sequences, and exits with 5 if one of them is 'different'.
    'removed' is no error: messages were counted, and removed later by retention or with their channel.

    \b
    Example:
      artcafe usage recount --period 2026-11
    """
    found = await context.scope.usage.recount(period=period)
    rows = [_compared_cells(each) for each in (*found.compared, *found.sums) if each.verdict != "equal"]
    if context.as_json or rows:
        show_table(context, found, COMPARED, rows)
    context.note(_summary(found))
    if not found.equal:
        click.get_current_context().exit(DIFFERENT)


COMPARED: Final = (
    "PERIOD",
    "RESULT",
    "COUNTED",
    "FOUND",
    "COUNTED BYTES",
    "FOUND BYTES",
    "REMOVED",
    "COUNTED SEQS",
    "FOUND SEQS",
)


def _compared_cells(each: RecountComparison) -> list[object]:
    return [
        each.period,
        each.verdict,
        each.counted_messages,
        each.found_messages,
        each.counted_bytes,
        each.found_bytes,
        each.removed,
        _range(each.counted_first_seq, each.counted_last_seq),
        _range(each.found_first_seq, each.found_last_seq),
    ]


def _range(first: int | None, last: int | None) -> str:
    return "" if first is None else f"{first}-{last}"


def _summary(found: Recounted) -> str:
    read = f"{found.messages_read:,} messages of {found.period} read, up to sequence {found.up_to:,}"
    if not found.equal:
        return f"{read}: the usage is different"
    return f"{read}: the usage is equal" if found.whole else f"{read}: no difference, but some could not be compared"


@usage.command(cls=ArtcafeCommand)
@click.option("--period", metavar="PERIOD", required=True, help="A month, day or hour of UTC, such as 2026-11.")
@click.option("--format", "format_", type=click.Choice(["csv", "focus"]), default="csv", show_default=True)
@click.option("--by", type=click.Choice(["agent", "channel"]), help="Divide each metric by agent (or user) or channel.")
@click.option("--every", type=click.Choice(["day", "hour"]), help="Export each day or hour in the period.")
@click.option(
    "--prices",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="With 'focus': a TOML file with the unit prices. Without it every price is 0.",
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write this file instead of standard output.")
@in_tenant
async def export(
    context: CommandContext,
    period: str,
    format_: Literal["csv", "focus"],
    by: By | None,
    every: Every | None,
    prices: Path | None,
    output: Path | None,
) -> None:
    """Export a period as CSV, or as rows that conform to FOCUS 1.4, the FinOps Open Cost and Usage Specification.

    A period that is over gives the same bytes each time, from a minute after its end. A row keeps its id (x_RowId in FOCUS).

    \b
    Examples:
      artcafe usage export --period 2026-11 --output usage-2026-11.csv
      artcafe usage export --period 2026-11 --format focus --prices prices.toml
    """
    if prices is not None and format_ != "focus":
        raise click.UsageError("--prices is for --format focus: the other format has no costs")
    price_list = Prices.read(prices) if prices is not None else Prices()
    found = await context.scope.usage.get(period=period, by=by, every=every)
    if format_ == "csv":
        text = usage_export.as_csv(context.tenant, found)
    else:
        tenant = await context.scope.get()
        text = usage_export.as_focus(tenant.id, tenant.name, found, price_list)
    _note_if_not_final(context, period, found)
    if output is None:
        click.echo(text.encode(), nl=False)
    else:
        _write(output, text)
        context.note(f"{output} has {text.count(chr(10)) - 1} rows")


def _note_if_not_final(context: CommandContext, period: str, found: Usage) -> None:
    if found.as_of is None or found.as_of < usage_export.end_of(period):
        until = "nothing is counted yet" if found.as_of is None else f"everything before {as_text(found.as_of)} is counted"
        click.echo(f"artcafe: {period} is not over, so a later export may differ; {until}", err=True)


def _write(path: Path, text: str) -> None:
    """Write a file completely or not at all."""
    with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(text.encode())
            file.close()
            Path(file.name).replace(path)
        except BaseException:
            os.unlink(file.name)
            raise
