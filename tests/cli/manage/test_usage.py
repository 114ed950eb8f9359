"""`artcafe usage …` against a running platform, and its exports."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from artcafe.cli.manage import usage_export
from artcafe.cli.manage.usage import METRICS
from artcafe.cli.manage.usage_export import Price, Prices
from artcafe.rules.usage import Metric
from artcafe.sdk.usage_records import Usage, UsageItem
from tests.cli.manage.shell_user import Person
from tests.platform import Cast, Platform

MONTH = "2026-10"


@pytest.fixture(scope="module")
def cast(platform: Platform) -> Cast:
    return asyncio.run(platform.tenant_with(agents=0, channels=0))


@pytest.fixture
def admin(cast: Cast) -> Person:
    return Person({"URL": cast.url, "TOKEN": cast.token, "TENANT": cast.tenant})


def test_show_is_the_default_command(admin: Person) -> None:
    shown = admin.run("usage", "--metric", "deliveries")
    assert re.search(r"METRIC +PERIOD +VALUE +EXACT\ndeliveries +\d{4}-\d\d", shown.stdout), shown
    assert admin.run("usage", "show", "--metric", "deliveries").stdout == shown.stdout


def test_json_has_the_items_and_the_time_of_the_count(admin: Person) -> None:
    found = admin.run("usage", "--json", "--period", MONTH, "--every", "day", "--metric", "api_calls").json
    assert [item["period"] for item in found["items"]] == [f"{MONTH}-{day:02}" for day in range(1, 32)]
    assert set(found) == {"items", "as_of"}


def test_metrics_in_the_help_are_those_of_the_server() -> None:
    assert [metric.value for metric in Metric] == list(METRICS)


def test_invalid_values_are_refused_with_the_allowed_ones(admin: Person) -> None:
    refused = admin.run("usage", "--period", "yesterday", "--json")
    assert (refused.code, refused.error["code"]) == (3, "invalid")
    assert "2026-11-28T10" in refused.error["message"]
    refused = admin.run("usage", "--metric", "messages")
    assert refused.code == 3
    assert "messages_stored, bytes_stored" in refused.stderr


def test_export_of_an_ended_period_has_the_same_bytes_each_time(admin: Person, tmp_path: Path) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    for path in (one, two):
        done = admin.run("usage", "export", "--period", MONTH, "--output", str(path))
        assert (done.code, "not over" in done.stderr) == (0, False), done.stderr
    assert one.read_bytes() == two.read_bytes()
    assert len(one.read_text().splitlines()) == 1 + len(Metric)


def test_export_of_a_period_that_is_not_over_says_so(admin: Person) -> None:
    done = admin.run("usage", "export", "--period", f"{datetime.now(UTC):%Y-%m}")
    assert "is not over" in done.stderr
    assert done.stdout.startswith("tenant_id,period,name,value,exact,agent,channel\n")


def test_prices_belong_to_focus(admin: Person, tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text('currency = "EUR"\n')
    prices = str(tmp_path / "prices.toml")
    assert admin.run("usage", "export", "--period", MONTH, "--prices", prices).code == 2
    done = admin.run("usage", "export", "--period", MONTH, "--format", "focus", "--prices", prices)
    assert (done.code, done.stdout) == (0, ",".join(usage_export.FOCUS_COLUMNS) + "\n"), "nothing was counted then"


# --- formats ---


def item(name: str, value: int | None, period: str = MONTH, **more: Any) -> UsageItem:
    return UsageItem(name=name, value=value, period=period, timestamp=None, exact=True, **more)


def usage(*items: UsageItem) -> Usage:
    return Usage(items, datetime(2026, 11, 28, tzinfo=UTC))


PRICES = Prices(
    currency="EUR",
    provider="Example Ltd",
    prices={"messages_stored": Price(Decimal("0.50"), 1_000_000), "connection_minutes": Price(Decimal("0.0001"))},
)
USED = usage(
    item("messages_stored", 2_500_000),
    item("bytes_stored", 10**15),
    item("messages_live", None),
    item("connection_minutes", 44_640, agent="agt_1"),
    item("deliveries", 3, period="2026-10-31", channel="chn_1"),
    item("peak_connections", 7),
    item("storage_bytes", 12, highest=90),
)


def focus_rows(found: Usage = USED, prices: Prices = PRICES) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(usage_export.as_focus("ten_1", 'Acme, "Ltd"', found, prices))))


def test_csv_has_a_row_for_each_item_and_an_empty_value_for_unknown() -> None:
    rows = list(csv.DictReader(io.StringIO(usage_export.as_csv("ten_1", USED))))
    assert [row["value"] for row in rows] == ["2500000", str(10**15), "", "44640", "3", "7", "12"]
    assert rows[3]["agent"] == "agt_1"


def test_focus_costs_are_the_product_of_quantity_and_price() -> None:
    rows = {row["SkuMeter"]: row for row in focus_rows()}
    stored = rows["Messages stored"]
    assert (stored["PricingQuantity"], stored["PricingUnit"], stored["ListUnitPrice"]) == ("2.5", "1000000 Messages", "0.5")
    assert {stored[name] for name in ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost")} == {"1.25"}
    assert (stored["BillingAccountName"], stored["BillingCurrency"]) == ('Acme, "Ltd"', "EUR")
    assert rows["Minutes of open connections"]["BilledCost"] == "4.464"
    assert rows["Bytes of messages stored"]["BilledCost"] == "0"


def test_focus_skips_unknown_values_and_measured_metrics() -> None:
    assert [row["SkuId"] for row in focus_rows()] == [
        "artcafe.messages_stored",
        "artcafe.bytes_stored",
        "artcafe.connection_minutes",
        "artcafe.deliveries",
    ]


def test_focus_row_ids_are_stable_and_differ_by_period_metric_and_part() -> None:
    ids = [row["x_RowId"] for row in focus_rows()]
    assert ids == [row["x_RowId"] for row in focus_rows(prices=Prices())]
    assert len(set(ids)) == len(ids)
    (other,) = focus_rows(usage(item("connection_minutes", 44_640)))
    assert other["x_RowId"] not in ids


def test_focus_periods_are_those_of_the_item_and_its_month() -> None:
    (row,) = focus_rows(usage(item("deliveries", 1, period="2026-12-31")))
    assert (row["ChargePeriodStart"], row["ChargePeriodEnd"]) == ("2026-12-31T00:00:00Z", "2027-01-01T00:00:00Z")
    assert (row["BillingPeriodStart"], row["BillingPeriodEnd"]) == ("2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z")


DECIMAL = re.compile(r"-?\d+(\.\d+)?")
DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
CURRENCY = re.compile(r"[A-Z]{3}")
TEXT = re.compile(r"(?s).*\S.*")
UNIT = re.compile(r"(\d+ )?([A-Z][a-z]+s|B|Deliveries|[A-Z][a-z]+-[A-Z][a-z]+s)")
NULL = re.compile("")

COST_AND_USAGE: dict[str, tuple[bool, bool, re.Pattern[str]]] = {
    "BilledCost": (True, False, DECIMAL),
    "BillingAccountId": (True, False, TEXT),
    "BillingAccountName": (True, True, TEXT),
    "BillingCurrency": (True, False, CURRENCY),
    "BillingPeriodEnd": (True, False, DATE_TIME),
    "BillingPeriodStart": (True, False, DATE_TIME),
    "ChargeCategory": (True, False, re.compile("Usage|Purchase|Tax|Credit|Adjustment")),
    "ChargeClass": (True, True, re.compile("Correction")),
    "ChargeDescription": (True, True, TEXT),
    "ChargeFrequency": (False, False, re.compile("One-Time|Recurring|Usage-Based")),
    "ChargePeriodEnd": (True, False, DATE_TIME),
    "ChargePeriodStart": (True, False, DATE_TIME),
    "ConsumedQuantity": (False, True, DECIMAL),
    "ConsumedUnit": (False, True, UNIT),
    "ContractedCost": (True, False, DECIMAL),
    "EffectiveCost": (True, False, DECIMAL),
    "HostProviderName": (True, False, TEXT),
    "InvoiceIssuerName": (True, False, TEXT),
    "ListCost": (True, False, DECIMAL),
    "ListUnitPrice": (False, True, DECIMAL),
    "PricingQuantity": (True, True, DECIMAL),
    "PricingUnit": (True, True, UNIT),
    "ServiceCategory": (True, False, re.compile("Integration")),
    "ServiceName": (True, False, TEXT),
    "ServiceProviderName": (True, False, TEXT),
    "ServiceSubcategory": (False, False, re.compile("Messaging")),
    "SkuId": (False, True, TEXT),
    "SkuMeter": (False, True, TEXT),
    "SkuPriceDetails": (False, True, re.compile(r"\{.*\}")),
    "SkuPriceId": (False, True, TEXT),
}
"""FOCUS 1.4, dataset Cost and Usage: whether a column is mandatory, whether it may be null, and the form of its values.

The columns left out are conditional on what ArtCafe does not have: allocation, regions, capacity reservations, commitments,
invoices, negotiated prices, several currencies, provisioned resources, sub accounts and tags.
"""


@pytest.mark.parametrize("prices", [PRICES, Prices()], ids=["with prices", "without prices"])
def test_rows_conform_to_the_columns_types_and_nullability_of_focus(prices: Prices) -> None:
    rows = focus_rows(prices=prices)
    names = list(rows[0])
    assert [name for name, (is_mandatory, _, _) in COST_AND_USAGE.items() if is_mandatory and name not in names] == []
    own = [name for name in names if name not in COST_AND_USAGE]
    assert all(re.fullmatch(r"x_[A-Z][A-Za-z]+", name) for name in own)
    assert names == [*(name for name in names if name not in own), *own], "custom columns come last"
    for row in rows:
        for name, (_, may_be_null, form) in COST_AND_USAGE.items():
            assert may_be_null if row[name] == "" else form.fullmatch(row[name]), (name, row[name])


@pytest.mark.parametrize("prices", [PRICES, Prices()], ids=["with prices", "without prices"])
def test_rows_meet_the_rules_of_focus_between_columns(prices: Prices) -> None:
    for row in focus_rows(prices=prices):
        assert Decimal(row["ListUnitPrice"]) * Decimal(row["PricingQuantity"]) == Decimal(row["ListCost"])
        assert row["ContractedCost"] == row["ListCost"], "no negotiated prices"
        assert row["ConsumedQuantity"], "not null for a charge of usage"
        assert row["ConsumedUnit"]
        assert row["SkuPriceId"].startswith(row["SkuId"] + "/"), "a price has one SKU"
        assert row["BillingPeriodStart"] <= row["ChargePeriodStart"] < row["ChargePeriodEnd"] <= row["BillingPeriodEnd"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("currency = 5", "three capital letters"),
        ('currency = "euro"', "three capital letters"),
        ('provider = " "', "who sends the invoice"),
        ('unit = "x"', "allowed are currency, provider and prices"),
        ('prices = "x"', "must be a table"),
        ('[prices]\nmessages = "1"', "allowed are messages_stored"),
        ("[prices]\ndeliveries = 0.1", "a number in quotes"),
        ('[prices]\ndeliveries = "-1"', "not below 0"),
        ('[prices]\ndeliveries = "NaN"', "not below 0"),
        ('[prices]\ndeliveries = { price = "1", per = 0 }', "per = 1000000"),
        ('[prices]\ndeliveries = { price = "1", each = 2 }', "per = 1000000"),
        ("[prices", "not a TOML file"),
    ],
)
def test_invalid_prices_are_named(admin: Person, tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "prices.toml").write_text(text)
    export = ("usage", "export", "--period", MONTH, "--format", "focus", "--prices", str(tmp_path / "prices.toml"))
    done = admin.run(*export)
    assert done.code == 2
    assert problem in " ".join(done.stderr.split())
    assert json.loads(admin.run(*export, "--json").stderr)["error"]["code"] == "usage"


def test_valid_prices_are_read(tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text(
        'currency = "EUR"\nprovider = "Example Ltd"\n[prices]\nmessages_stored = { price = "0.50", per = 1000000 }\n'
        'connection_minutes = "0.0001"\n'
    )
    assert Prices.read(tmp_path / "prices.toml") == PRICES
