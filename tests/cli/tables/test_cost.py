from __future__ import annotations

from typing import Any

import pytest

from tests.aws import Aws
from tests.cli.tables.shell import run


def month(*arguments: str) -> tuple[float, dict[str, Any]]:
    bill = run("cost", "--json", *arguments).json
    return bill["dollars"], {each["what"]: each for each in bill["month"]}


def test_publishing_is_free_and_a_cursor_costs_one_write_unit() -> None:
    bill = run("cost", "--json").json
    units = {each["operation"]: (each["reads"], each["writes"]) for each in bill["operations"]}
    assert units["write a cursor"] == (0, 1)
    assert units["watch a tenant for changes"] == (1, 0)
    assert units["log in on the socket"] == (1, 0)
    assert units["log in over REST"] == (1, 2)
    assert units["sweep a tenant's messages"] == (2, 0)
    assert "published rules" in bill["measured"]
    assert bill["prices"]["million_writes"] == 0.625
    shown = run("cost")
    assert "publish, deliver" in shown.out
    assert f"${bill['dollars']:,.2f} a month" in shown.out
    as_of = bill["prices"]["assumed_as_of"]
    assert f"prices assumed: us-east-1 on demand, {as_of}; look up current prices at https://aws." in shown.out


def test_thousand_busy_subscriptions_cost_the_documented_amount() -> None:
    busy = ("--agents", "1000", "--messages-per-day", "100000000")
    assert month(*busy, "--cursor-write-s", "5")[1]["write a cursor"]["dollars"] == pytest.approx(324)
    assert month(*busy, "--cursor-write-s", "60")[1]["write a cursor"]["dollars"] == pytest.approx(27)


def test_quiet_subscription_writes_its_cursor_once_per_message() -> None:
    parts = month("--agents", "10", "--subscriptions", "3", "--messages-per-day", "2", "--cursor-write-s", "5")[1]
    assert parts["write a cursor"]["times"] == 10 * 3 * 2 * 30


def test_price_options_replace_the_default_prices() -> None:
    assert run("cost", "--json", "--price-gigabyte", "0.3").json["prices"]["assumed_as_of"] is None
    assert "prices from options; look up current prices" in run("cost", "--price-gigabyte", "0.3").out
    dear, cheap = (month("--price-million-writes", price)[1]["write a cursor"]["dollars"] for price in ("2", "1"))
    assert dear == pytest.approx(2 * cheap)


def test_cost_on_dynamodb_is_measured_there_and_leaves_no_rows(aws: Aws) -> None:
    environ = {"ARTCAFE_TABLES": f"dynamodb:{aws.new_region()}", "ARTCAFE_DYNAMODB_ENDPOINT": aws.url}
    missing = run("cost", "--yes", **environ)
    assert (missing.code, "artcafe tables apply" in missing.err) == (3, True)
    assert run("apply", "--yes", **environ).code == 0
    assert run("cost", **environ).code == 2  # There is no terminal for the prompt.
    there, here = run("cost", "--yes", "--json", **environ).json, run("cost", "--json").json
    assert "ReturnConsumedCapacity" in there["measured"]
    assert there["operations"] == here["operations"]
    # Used challenges are deleted by their time to live.
    rows = {each["name"]: each["rows"] for each in run("list", "--json", **environ).json}
    assert {name for name, count in rows.items() if count} <= {"artcafe-Challenges"}
