"""`artcafe tables cost`: print DynamoDB's capacity units for each operation, and the monthly costs of a fleet."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec

from artcafe.cli.installation.location import Installation, with_installation
from artcafe.cli.tables.cost_probe import CostProbe, Measured
from artcafe.cli.terminal.confirm import confirm
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.output import counted, show_table, yes_option
from artcafe.services.retention import READ_S
from artcafe.services.version_watch import READ_AT_ONCE, READ_EVERY_S
from artcafe.tables.catalog import Environment
from artcafe.tables.dynamodb.client import Consumed, Endpoint
from artcafe.tables.dynamodb.engine import DynamoDb
from artcafe.tables.engine.capacity import MeteredTables, Units
from artcafe.tables.sqlite.engine import Sqlite

F = TypeVar("F", bound=Callable[..., Any])

DAYS: Final = 30
DAY_S: Final = 86_400
SWEPT_CHANNELS: Final = 15
"""Channels per read unit: about 270 bytes each, in the 4 KB of a read unit."""
WRITING: Final = frozenset({"put_item", "update_item", "delete_item", "transact_write_items"})
BY_RULES: Final = "calculated from item sizes by DynamoDB's published rules, on a temporary file"
PRICES_AS_OF: Final = "25 November 2026"
PRICE_PAGE: Final = "https://aws.amazon.com/dynamodb/pricing/on-demand/"
BY_DYNAMODB: Final = "charged by {installation} (ReturnConsumedCapacity)"
ASSUMED: Final = (0.125, 0.625, 0.25)
"""US dollars for a million read units, a million write units, and a gigabyte-month."""


class Prices(msgspec.Struct, frozen=True, kw_only=True):
    """Prices in US dollars, not requested from AWS. The defaults are us-east-1 on-demand prices, halved in November 2024."""

    million_reads: float
    million_writes: float
    gigabyte_month: float
    assumed_as_of: str | None = None
    """The date of the default prices; None for prices from options."""
    look_up: str = PRICE_PAGE


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """The size and load of a fleet."""

    tenants: int
    agents: int
    subscriptions: int
    messages_per_day: float
    logins_per_day: float
    rest_logins_per_day: float
    changes_per_day: float
    servers: int
    cursor_write_s: float


class BillItem(msgspec.Struct, frozen=True, kw_only=True):
    """One item of the bill: executions in a month, units and dollars."""

    what: str
    times: float
    reads: float
    writes: float
    dollars: float


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """The output of the command."""

    measured: str
    operations: list[Measured]
    fleet: Fleet
    prices: Prices
    month: list[BillItem]
    dollars: float


def _number(flag: str, default: float, help: str) -> Callable[[F], F]:
    kind = click.IntRange(min=0) if isinstance(default, int) else click.FloatRange(min=0)
    return click.option(flag, type=kind, default=default, show_default=True, metavar="N", help=help)


@click.command(cls=ArtcafeCommand)
@_number("--tenants", 10, "Tenants with connected agents.")
@_number("--agents", 1000, "Agents, connected all day.")
@_number("--subscriptions", 1, "Subscriptions of each agent.")
@_number("--messages-per-day", 1000.0, "Messages per day to each subscription.")
@_number("--logins-per-day", 4.0, "Gateway logins of each agent per day.")
@_number("--rest-logins-per-day", 0.0, "REST logins of each agent per day.")
@_number("--changes-per-day", 100.0, "Agents registered and subscribed per day, in total.")
@_number("--servers", 2, "Servers; each of them watches every tenant.")
@click.option(
    "--cursor-write-s",
    type=click.FloatRange(min=0.1, max=600),
    metavar="S",
    help="Interval of cursor writes.  [default: the setting, or 60]",
)
@_number("--price-million-reads", ASSUMED[0], "US dollars for a million read units.")
@_number("--price-million-writes", ASSUMED[1], "US dollars for a million write units.")
@_number("--price-gigabyte", ASSUMED[2], "US dollars for a gigabyte-month.")
@yes_option
@with_installation
async def cost(
    installation: Installation,
    tenants: int,
    agents: int,
    subscriptions: int,
    messages_per_day: float,
    logins_per_day: float,
    rest_logins_per_day: float,
    changes_per_day: float,
    servers: int,
    cursor_write_s: float | None,
    price_million_reads: float,
    price_million_writes: float,
    price_gigabyte: float,
    yes: bool,
) -> int:
    """Print the read and write units of each operation, and the monthly costs of a fleet described by the options.

    With tables on DynamoDB, each operation is executed there once in a temporary tenant, after a confirmation and for less than
    one cent, and the units are those reported by DynamoDB. Otherwise the units are calculated from item sizes. Publishing and
    delivery use no tables except for cursors. The default prices are assumptions: look up and pass the current prices of your
    region.

    \b
    Examples:
      artcafe tables cost --agents 5000 --messages-per-day 20000 --cursor-write-s 60
      artcafe tables cost --tables dynamodb:eu-central-1 --yes --json
    """
    seconds = cursor_write_s or installation.settings.cursor_write_s or 60.0
    fleet = Fleet(
        tenants=tenants,
        agents=agents,
        subscriptions=subscriptions,
        messages_per_day=messages_per_day,
        logins_per_day=logins_per_day,
        rest_logins_per_day=rest_logins_per_day,
        changes_per_day=changes_per_day,
        servers=servers,
        cursor_write_s=seconds,
    )
    given = (price_million_reads, price_million_writes, price_gigabyte)
    prices = Prices(
        million_reads=price_million_reads,
        million_writes=price_million_writes,
        gigabyte_month=price_gigabyte,
        assumed_as_of=PRICES_AS_OF if given == ASSUMED else None,
    )
    measured = await (_on_dynamodb(installation, yes=yes) if installation.is_dynamodb else _on_file())
    month = bill_of(measured, fleet, prices)
    how = BY_DYNAMODB.format(installation=installation) if installation.is_dynamodb else BY_RULES
    total = round(sum(each.dollars for each in month), 2)
    _print(installation, Bill(measured=how, operations=measured, fleet=fleet, prices=prices, month=month, dollars=total))
    return 0


def bill_of(measured: list[Measured], fleet: Fleet, prices: Prices) -> list[BillItem]:
    """Return the items of the bill for 30 days."""
    by_name = {each.operation: each for each in measured}
    followed = fleet.agents * fleet.subscriptions
    # A moved cursor is written at most once every `cursor_write_s`.
    cursor_writes = followed * min(fleet.messages_per_day, DAY_S / fleet.cursor_write_s)
    often = {
        "write a cursor": cursor_writes,
        "watch a tenant for changes": min(fleet.tenants, READ_AT_ONCE) * fleet.servers * DAY_S / READ_EVERY_S,
        "sweep a tenant's messages": fleet.tenants * fleet.servers * DAY_S / READ_S,
        "log in on the socket": fleet.agents * fleet.logins_per_day,
        "begin the subscriptions": fleet.agents * fleet.logins_per_day,
        "log in over REST": fleet.agents * fleet.rest_logins_per_day,
        "register an agent": fleet.changes_per_day,
        "subscribe": fleet.changes_per_day * fleet.subscriptions,
    }
    return [_bill_item(by_name[name], times * DAYS, prices) for name, times in often.items() if times]


def _bill_item(measured: Measured, times: float, prices: Prices) -> BillItem:
    reads, writes = measured.reads * times, measured.writes * times
    dollars = (reads * prices.million_reads + writes * prices.million_writes) / 1e6
    return BillItem(what=measured.operation, times=times, reads=reads, writes=writes, dollars=round(dollars, 4))


# --- measuring -----------------------------------------------------------------------------------------------------------


async def _on_file() -> list[Measured]:
    units = Units()
    with tempfile.TemporaryDirectory() as folder:
        tables = MeteredTables(await Sqlite.open(Path(folder) / "tables.sqlite", Environment.PROD), units)
        try:
            return await CostProbe(tables, units).measure()
        finally:
            await tables.close()


async def _on_dynamodb(installation: Installation, *, yes: bool) -> list[Measured]:
    confirm(f"Create a temporary tenant in {installation}, measure with it, and delete it", yes=yes)
    units = Units()

    def charged(consumed: Consumed) -> None:
        if consumed.operation in WRITING:
            units.writes += sum(consumed.units.values())
        else:
            units.reads += sum(consumed.units.values())

    async with installation.engine():
        pass  # Opening raises an error with a remedy when tables are missing.
    endpoint = Endpoint(installation.region, installation.settings.dynamodb_endpoint)
    tables = await DynamoDb.open(endpoint, installation.environment, charged)
    try:
        return await CostProbe(tables, units).measure()
    finally:
        await tables.close()


# --- output --------------------------------------------------------------------------------------------------------------


def _print(installation: Installation, bill: Bill) -> None:
    operations = [[each.operation, f"{each.reads:g}", f"{each.writes:g}"] for each in bill.operations]
    free = [["publish, deliver", "0", "0"]]
    show_table(installation, bill, ["OPERATION", "READ UNITS", "WRITE UNITS"], [*operations, *free])
    if installation.as_json:
        return
    click.echo(f"\nUnits {bill.measured}.\n")
    shares = [
        [each.what, f"{each.times:,.0f}", f"{each.reads:,.0f}", f"{each.writes:,.0f}", f"{each.dollars:,.2f}"]
        for each in bill.month
    ]
    show_table(installation, bill, ["PER MONTH", "TIMES", "READ UNITS", "WRITE UNITS", "DOLLARS"], shares)
    prices = bill.prices
    assumed = "from options" if prices.assumed_as_of is None else f"assumed: us-east-1 on demand, {prices.assumed_as_of}"
    click.echo(
        f"\n${bill.dollars:,.2f} a month, and ${prices.gigabyte_month:g} for each GB stored, at ${prices.million_reads:g} for a"
        f" million read units and ${prices.million_writes:g} for a million write units"
        f"\n(prices {assumed}; look up current prices at {prices.look_up},\nand pass them with --price-…)."
        f"\nThe fleet: {_described(bill.fleet)}."
        f"\nNot included: NATS, servers, backups, traffic, and reads by users and commands. A sweep is measured with one"
        f"\nchannel; every {SWEPT_CHANNELS} more channels in a tenant cost one more read unit."
    )


def _described(fleet: Fleet) -> str:
    where = f"{counted(fleet.agents, 'agent')} in {counted(fleet.tenants, 'tenant')}"
    return (
        f"{where} on {counted(fleet.servers, 'server')}, each agent with {counted(fleet.subscriptions, 'subscription')}"
        f" and {fleet.logins_per_day:g} connections a day,\n{fleet.messages_per_day:,.0f} messages a day to each subscription,"
        f" cursors written every {fleet.cursor_write_s:g} s at most"
    )
