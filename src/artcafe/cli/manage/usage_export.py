"""Usage as CSV, and as rows of the dataset Cost and Usage of FOCUS 1.4.

FOCUS is the FinOps Open Cost and Usage Specification; version 1.4 was ratified on 4 June 2026
(https://focus.finops.org/focus-specification/v1-4/). The rows have its mandatory columns, the recommended ones that apply, and
the conditional ones for measured usage and unit prices. Columns of our own have its prefix `x_`.

Prices are the operator's. FOCUS allows no empty cost: without prices every unit price is 0, and so is every cost.
"""

from __future__ import annotations

import csv
import hashlib
import io
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import click

from artcafe.rules.usage import Period, PeriodKind, parse_period, period_of
from artcafe.sdk.usage_records import Usage, UsageItem

FOCUS_VERSION: Final = "1.4"

CSV_COLUMNS: Final = ("tenant_id", "period", "name", "value", "exact", "agent", "channel")

UNITS: Final[Mapping[str, str]] = {
    "messages_stored": "Messages",
    "bytes_stored": "B",
    "messages_live": "Messages",
    "deliveries": "Deliveries",
    "requests": "Requests",
    "api_calls": "Requests",
    "connection_minutes": "Connection-Minutes",
}
"""The unit of each metric that adds up, in FOCUS's unit format. The others are measured, and have no quantity in a period."""
DESCRIPTIONS: Final[Mapping[str, str]] = {
    "messages_stored": "Messages stored",
    "bytes_stored": "Bytes of messages stored",
    "messages_live": "Live messages published",
    "deliveries": "Messages delivered",
    "requests": "Commands on sockets",
    "api_calls": "REST requests",
    "connection_minutes": "Minutes of open connections",
}

FOCUS_COLUMNS: Final = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "EffectiveCost",
    "HostProviderName",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingQuantity",
    "PricingUnit",
    "ServiceCategory",
    "ServiceName",
    "ServiceProviderName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceDetails",
    "SkuPriceId",
    "x_AgentId",
    "x_ChannelId",
    "x_IsExact",
    "x_RowId",
)


@dataclass(frozen=True, slots=True)
class Price:
    """The price of `per` units of a metric."""

    price: Decimal
    per: int = 1


@dataclass(frozen=True, slots=True)
class Prices:
    """The operator's unit prices, by metric, in one currency (ISO 4217), and the name of who sends the invoice."""

    currency: str = "USD"
    provider: str = "ArtCafe"
    prices: Mapping[str, Price] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Prices:
        """Read the prices from a TOML file. Raises click.UsageError with what is wrong in it."""
        try:
            found = tomllib.loads(path.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
            raise click.UsageError(f"{path} is not a TOML file: {exc}") from exc
        for name in found.keys() - {"currency", "provider", "prices"}:
            raise click.UsageError(f"{path}: {name} is unknown; allowed are currency, provider and prices")
        currency, provider = found.get("currency", "USD"), found.get("provider", "ArtCafe")
        if not (isinstance(currency, str) and len(currency) == 3 and currency.isascii() and currency.isupper()):
            raise click.UsageError(f"{path}: currency must be three capital letters, such as EUR")
        if not isinstance(provider, str) or not provider.strip():
            raise click.UsageError(f"{path}: provider must be the name of who sends the invoice")
        table = found.get("prices", {})
        if not isinstance(table, dict):
            raise click.UsageError(f"{path}: prices must be a table, such as [prices]")
        return cls(currency, provider, {name: _price(path, name, value) for name, value in table.items()})

    def of(self, metric: str) -> Price:
        """Return the price of a metric: 0 without one."""
        return self.prices.get(metric, Price(Decimal(0)))


def _price(path: Path, name: str, value: Any) -> Price:
    if name not in UNITS:
        raise click.UsageError(f"{path}: {name} has no price; allowed are {', '.join(UNITS)}")
    given = value if isinstance(value, dict) else {"price": value}
    number, per = given.get("price"), given.get("per", 1)
    try:
        price = Decimal(number) if isinstance(number, str) and given.keys() <= {"price", "per"} else None
    except InvalidOperation:
        price = None
    if price is None or not price.is_finite() or price < 0 or not isinstance(per, int) or isinstance(per, bool) or per < 1:
        example = f'{name} = "0.01" or {name} = {{ price = "0.50", per = 1000000 }}'
        raise click.UsageError(f"{path}: the price of {name} must be a number in quotes, not below 0, such as {example}")
    return Price(price, per)


def end_of(period: str) -> datetime:
    """Return the end of a period that the server has accepted."""
    return parse_period(period).end


def as_csv(tenant_id: str, found: Usage) -> str:
    """Return usage as CSV with a heading. An empty value is unknown."""
    rows = [
        {
            "tenant_id": tenant_id,
            "period": item.period,
            "name": item.name,
            "value": "" if item.value is None else str(item.value),
            "exact": "true" if item.exact else "false",
            "agent": item.agent or "",
            "channel": item.channel or "",
        }
        for item in found.items
    ]
    return _csv(CSV_COLUMNS, rows)


def as_focus(tenant_id: str, tenant_name: str, found: Usage, prices: Prices) -> str:
    """Return usage as CSV with the columns of FOCUS. Unknown values and measured metrics have no row; null is an empty field."""
    rows = [
        _focus_row(tenant_id, tenant_name, item, item.value, prices)
        for item in found.items
        if item.value is not None and item.name in UNITS
    ]
    return _csv(FOCUS_COLUMNS, rows)


def _focus_row(tenant_id: str, tenant_name: str, item: UsageItem, value: int, prices: Prices) -> dict[str, str]:
    period = parse_period(item.period)
    month = period_of(period.start, PeriodKind.MONTH)
    price, unit = prices.of(item.name), UNITS[item.name]
    quantity = Decimal(value) / price.per
    cost = _number(quantity * price.price)
    pricing_unit = unit if price.per == 1 else f"{price.per} {unit}"
    sku = f"artcafe.{item.name}"
    return {
        "BilledCost": cost,
        "BillingAccountId": tenant_id,
        "BillingAccountName": tenant_name,
        "BillingCurrency": prices.currency,
        "BillingPeriodEnd": _time(month.end),
        "BillingPeriodStart": _time(month.start),
        "ChargeCategory": "Usage",
        "ChargeClass": "",
        "ChargeDescription": _description(item, period, price, pricing_unit, prices.currency),
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": _time(period.end),
        "ChargePeriodStart": _time(period.start),
        "ConsumedQuantity": str(value),
        "ConsumedUnit": unit,
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "HostProviderName": prices.provider,
        "InvoiceIssuerName": prices.provider,
        "ListCost": cost,
        "ListUnitPrice": _number(price.price),
        "PricingQuantity": _number(quantity),
        "PricingUnit": pricing_unit,
        "ServiceCategory": "Integration",
        "ServiceName": "ArtCafe",
        "ServiceProviderName": prices.provider,
        "ServiceSubcategory": "Messaging",
        "SkuId": sku,
        "SkuMeter": DESCRIPTIONS[item.name],
        "SkuPriceDetails": "",
        "SkuPriceId": f"{sku}/{price.per}",
        "x_AgentId": item.agent or "",
        "x_ChannelId": item.channel or "",
        "x_IsExact": "true" if item.exact else "false",
        "x_RowId": _row_id(tenant_id, item),
    }


def _description(item: UsageItem, period: Period, price: Price, pricing_unit: str, currency: str) -> str:
    return f"{DESCRIPTIONS[item.name]} in {period.text}, at {_number(price.price)} {currency} for {pricing_unit}"


def _row_id(tenant_id: str, item: UsageItem) -> str:
    """Return the id of a row: the same for each export of the same part of a metric in a period."""
    parts = (tenant_id, item.period, item.name, item.agent or "", item.channel or "")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _number(number: Decimal) -> str:
    """Return a number without an exponent and without trailing zeros."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _csv(columns: tuple[str, ...], rows: list[dict[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
