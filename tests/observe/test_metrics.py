"""The declarations of metrics against the code, and the cells that hold their values."""

from __future__ import annotations

import ast
import functools
import math
from bisect import bisect_right
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe import errors
from artcafe.errors import LimitReached, RateLimited, TenantSuspended
from artcafe.observe import metrics
from artcafe.observe.exposition import Column, cumulative, render
from artcafe.observe.metric_types import BOUNDS_S, MAX_TENANTS, OTHER, Cells, Counter, Gauge, Histogram
from artcafe.rules.plans import Limit
from artcafe.services.login import LoginRefusal
from artcafe.tables.catalog import TABLES
from tests.prometheus import parse, value

SOURCE = Path(__file__).parents[2] / "src" / "artcafe"


@functools.cache  # Not at import: each process of a test run collects this module, and one runs its tests.
def trees() -> list[ast.Module]:
    """Return the syntax tree of each module of the source."""
    return [ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))]


def texts_of_first_argument(name: str) -> set[str]:
    """Return the literals with which a function is called anywhere in the source."""
    nodes = [node for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Call)]
    calls = [each for each in nodes if isinstance(each.func, ast.Name) and each.func.id == name and each.args]
    return {str(each.args[0].value) for each in calls if isinstance(each.args[0], ast.Constant)}


def names_of_kept_loops() -> set[str]:
    """Return the names in the dicts of loops, in modules that use `keep_all`: most values are methods `run`."""
    found: set[str] = set()
    for tree in trees():
        if "keep_all" not in ast.dump(tree):
            continue
        for node in [each for each in ast.walk(tree) if isinstance(each, ast.Dict)]:
            loops = {key.value: value for key, value in zip(node.keys, node.values, strict=True) if isinstance(key, ast.Constant)}
            if any(isinstance(value, ast.Attribute) and value.attr == "run" for value in loops.values()):
                found |= {str(name) for name in loops}
    return found


def test_every_supervised_loop_of_the_source_is_a_label_value() -> None:
    names = texts_of_first_argument("Supervisor") | names_of_kept_loops()
    assert {"hub", "writer", "gateway", "cursors", "identity", "gauges"} <= names
    assert names <= set(metrics.LOOPS)


def test_every_table_is_a_label_value() -> None:
    assert tuple(table.name for table in TABLES) == metrics.TABLES


def test_every_reason_of_a_refused_login_is_a_label_value() -> None:
    assert set(metrics.LOGINS.labels["outcome"]) == {*(each.value for each in LoginRefusal), "accepted", OTHER}


def test_everything_that_a_rate_limit_refuses_is_a_label_value() -> None:
    assert texts_of_first_argument("RateLimited") - {OTHER} <= set(metrics.RATES)


def test_every_limit_of_a_plan_is_a_label_value() -> None:
    assert set(metrics.LIMITS) == {*(each.value for each in Limit), OTHER}


def test_every_error_is_a_label_value() -> None:
    declared = {code for code, kind in errors.REGISTRY.items() if kind.__module__ == errors.__name__}
    assert set(metrics.ERRORS.labels["code"]) == {*declared, OTHER}


def test_number_of_series_is_bounded_without_any_peer() -> None:
    before = len(metrics.CELLS.values)
    for text in ("ten_1", "../../etc", 'a"b\n'):
        metrics.ERRORS.of(text).add()
        metrics.LOGINS.of(text).add()
        metrics.PUBLISHES.of("stored", tenant=text).add()
    assert len(metrics.CELLS.values) == before
    assert sum(len(metric.series) for metric in metrics.METRICS) < 1000


def test_counting_an_error_counts_its_code_and_the_limit_that_refused() -> None:
    refused, limited = metrics.ERRORS.of("too_fast"), metrics.RATE_REFUSALS.of("requests")
    suspended, others = metrics.ERRORS.of("tenant_suspended"), metrics.RATE_REFUSALS.of(OTHER)
    reached = metrics.LIMIT_REFUSALS.of("agents")
    before = [each.value for each in (refused, limited, suspended, others, reached)]
    metrics.count_error(RateLimited("requests", 1.0))
    metrics.count_error(RateLimited.from_text("too many of a newer server"))
    metrics.count_error(TenantSuspended())
    metrics.count_error(LimitReached("agents", 10, 10))
    after = [each.value for each in (refused, limited, suspended, others, reached)]
    assert [b - a for a, b in zip(before, after, strict=True)] == [2, 1, 1, 1, 1]


def test_unknown_error_code_is_counted_as_other() -> None:
    before = metrics.ERRORS.of(OTHER).value
    metrics.ERRORS.of("code_of_a_newer_version").add()
    assert metrics.ERRORS.of(OTHER).value == before + 1


# --- cells ------------------------------------------------------------------------------------------------------------


@given(st.floats(min_value=0, max_value=1000))
def test_value_is_counted_in_the_first_bucket_with_a_bound_above_it(seconds: float) -> None:
    histogram, bounds = Histogram(Cells(), "artcafe_test_seconds", "Help."), [*BOUNDS_S, math.inf]
    histogram.of().observe(seconds)
    assert list(histogram.cells.values).index(1.0) == next(at for at, bound in enumerate(bounds) if seconds < bound)


def test_negative_duration_counts_as_zero() -> None:
    histogram = Histogram(Cells(), "artcafe_test_seconds", "Help.")
    histogram.of().observe(-3.0)
    assert list(histogram.cells.values) == [1.0, *[0.0] * (len(histogram.cells.values) - 1)]


@given(st.lists(st.floats(min_value=0, max_value=100), max_size=50))
def test_observing_all_values_at_once_is_observing_each(values: list[float]) -> None:
    each, at_once = Histogram(Cells(), "one_seconds", "Help."), Histogram(Cells(), "two_seconds", "Help.")
    for seconds in values:
        each.of().observe(seconds)
    at_once.of().observe_all([*values])
    assert list(each.cells.values) == pytest.approx(list(at_once.cells.values))
    assert each.of().count == at_once.of().count == len(values)


def test_cells_keep_their_values_in_shared_memory() -> None:
    cells = Cells()
    counter, gauge = Counter(cells, "artcafe_test_total", "Help.", {"kind": ("a", "b")}), Gauge(cells, "artcafe_test", "Help.")
    kept = counter.of("b")
    kept.add(2)
    shared = memoryview(bytearray(8 * len(cells.values))).cast("d")
    cells.move_to(shared)
    kept.add(3)
    gauge.of().set(7)
    assert shared.tolist() == [0.0, 5.0, 7.0]


def test_more_tenants_than_reserved_are_refused() -> None:
    cells = Cells()
    cells.name_tenants([f"ten_{number}" for number in range(MAX_TENANTS)])
    with pytest.raises(ValueError, match="21 tenants are named; at most 20 can be"):
        cells.name_tenants([f"ten_{number}" for number in range(MAX_TENANTS + 1)])


# --- the text format --------------------------------------------------------------------------------------------------


@pytest.fixture
def tenants() -> object:
    """Name two tenants, one with an id that must be escaped, and forget them again."""
    metrics.CELLS.name_tenants(["ten_1", 'ten"\\\n'])
    yield None
    metrics.CELLS.name_tenants([])


def column(process: int, **values: float) -> Column:
    """Return the cells of a process, zero but for the first series of these metrics."""
    cells = [0.0] * len(metrics.CELLS.values)
    for metric in metrics.METRICS:
        if isinstance(metric, Gauge):
            for series in metric.series:
                cells[series.first] = math.nan
        if (short := metric.name.removeprefix("artcafe_")) in values:
            cells[metric.series[0].first] = values[short]
    return Column(process, cells)


def test_counters_of_processes_are_added_up_with_those_of_ended_ones() -> None:
    at = metrics.NATS_LOST.series[0].first
    columns = [column(1, nats_connections_lost_total=3), column(2, nats_connections_lost_total=4)]
    samples = parse(render(columns, {at: 10.0}).decode())
    assert value(samples, "artcafe_nats_connections_lost_total") == 17
    assert at in cumulative()


def test_gauges_have_the_process_and_those_of_one_number_are_joined() -> None:
    columns = [column(1, sockets=3, nats_up=1), column(1, sockets=4, nats_up=1), column(2, sockets=5)]
    samples = parse(render(columns, {}).decode())
    assert value(samples, "artcafe_sockets", process="1") == 7
    assert value(samples, "artcafe_sockets", process="2") == 5
    assert value(samples, "artcafe_nats_up", process="1") == 1
    assert ("artcafe_nats_up", frozenset({("process", "2")})) not in samples, "it was never set"


def test_histogram_has_cumulative_buckets_a_sum_and_a_count() -> None:
    first = metrics.PUBLISH_SECONDS.series[0].first
    cells = list(column(1).values)
    for seconds in (0.0001, 0.0003, 0.0004, 60.0):
        cells[first + bisect_right(BOUNDS_S, seconds)] += 1
        cells[first + len(BOUNDS_S) + 1] += seconds
    samples = parse(render([Column(1, cells)], {}).decode())
    buckets = [
        value(samples, "artcafe_publish_seconds_bucket", le=le) for le in ("0.000125", "0.00025", "0.0005", "16.384", "+Inf")
    ]
    assert buckets == [1, 1, 3, 3, 4]
    assert value(samples, "artcafe_publish_seconds_count") == 4
    assert value(samples, "artcafe_publish_seconds_sum") == pytest.approx(60.0008)


def test_no_metric_names_a_tenant_by_default() -> None:
    assert 'tenant="' not in render([column(1)], {}).decode()


@pytest.mark.usefixtures("tenants")
def test_named_tenants_have_series_of_their_own_and_the_others_share_one() -> None:
    named, others = metrics.DELIVERIES.of(tenant="ten_1"), metrics.DELIVERIES.of(tenant="ten_unknown")
    before = named.value, others.value
    metrics.DELIVERIES.of(tenant="ten_1").add(5)
    metrics.DELIVERIES.of(tenant="ten_unknown").add(2)
    samples = parse(render([Column(1, metrics.CELLS.values)], {}).decode())
    assert value(samples, "artcafe_deliveries_total", tenant="ten_1") == before[0] + 5
    assert value(samples, "artcafe_deliveries_total", tenant='ten\\"\\\\\\n') == 0
    assert samples["artcafe_deliveries_total", frozenset()] == before[1] + 2


def test_every_declared_metric_is_exposed_once_with_help_and_type() -> None:
    text = render([column(1)], {}).decode()
    for metric in metrics.METRICS:
        assert text.count(f"# HELP {metric.name} ") == text.count(f"# TYPE {metric.name} {metric.kind}\n") == 1
    assert len({metric.name for metric in metrics.METRICS}) == len(metrics.METRICS)
