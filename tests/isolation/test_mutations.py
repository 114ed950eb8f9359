"""The matrix detects every missing permission check: with any one removed from the code, a cell fails.

The checks are found in the source, so that a later check without a cell fails here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.isolation import checks, frame_matrix
from tests.isolation.checks import PermissionCheck
from tests.isolation.frame_matrix import REFUSED, WITHDRAWN, GatewayTenants, refused, withdrawn
from tests.isolation.matrix import (
    FROM_OUTSIDE,
    IN_MANAGED,
    IN_MESSAGES,
    OWN,
    THERE,
    WITH_CHANNEL,
    WRONG_IDS,
    Matrix,
    create_matrix,
)
from tests.rest.rest_app import RestApp

CHECKS, GATEWAY_CHECKS = checks.found(), checks.of_gateway()
Cell = Callable[[Matrix], None]

CELLS: Final[list[Cell]] = [
    *(partial(Matrix.there, route=route, who=who) for route, who in THERE),
    *(partial(Matrix.elsewhere, route=route, parameter=name, who=who) for route, name, who in WRONG_IDS),
    *(partial(Matrix.managed, route=route, who=who) for route, who in IN_MANAGED),
    *(partial(Matrix.entering, who=who) for who in OWN),
    *(partial(Matrix.publishing_only, route=route) for route in IN_MESSAGES),
    *(partial(Matrix.hidden, route=route) for route in WITH_CHANNEL),
    *(partial(Matrix.moving, who=who) for who in OWN),
    *(partial(Matrix.inbox_history, who=who) for who in OWN),
    *(partial(Matrix.answering_an_inbox, who=who) for who in OWN),
    *(partial(Matrix.owning, who=who) for who in OWN),
    *(partial(Matrix.choosing_a_plan, who=who) for who in OWN),
    Matrix.logging_in,
    Matrix.joining,
    *(partial(Matrix.outside, route=route, who=who) for route, who in FROM_OUTSIDE),
]


@pytest.fixture(scope="module")
def cells_of(rest_app: RestApp) -> Mapping[PermissionCheck, list[Cell]]:
    """Return the cells that execute each check."""
    found: dict[PermissionCheck, list[Cell]] = defaultdict(list)
    reached: set[PermissionCheck] = set()
    matrix = create_matrix(rest_app)
    with checks.watched(CHECKS, reached.add):
        for cell in CELLS:
            reached.clear()
            cell(matrix)
            for check in reached:
                found[check].append(cell)
    return found


@pytest.fixture(scope="module")
def unchanged(rest_app: RestApp) -> list[Matrix]:
    """Return a list with a matrix that no failed cell has changed, or an empty list."""
    return []


@pytest.mark.timeout(180)  # The first test waits for all cells.
@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_matrix_fails_without_any_one_check(
    rest_app: RestApp, unchanged: list[Matrix], cells_of: Mapping[PermissionCheck, list[Cell]], check: PermissionCheck
) -> None:
    matrix = unchanged.pop() if unchanged else create_matrix(rest_app)
    with checks.without(check):
        red = next((cell for cell in sorted(cells_of[check], key=_may_change) if _is_red(cell, matrix)), None)
    assert red is not None, f"no cell fails without line {check.line}"
    if not _may_change(red):
        unchanged.append(matrix)


def _may_change(cell: Cell) -> bool:
    """Return whether a cell may change the tenants, if a check is missing."""
    return not (isinstance(cell, partial) and cell.keywords.get("route", "").startswith("GET "))


def _is_red(cell: Cell, matrix: Matrix) -> bool:
    try:
        cell(matrix)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("check", GATEWAY_CHECKS, ids=str)
async def test_frame_matrix_fails_without_any_one_check_of_the_gateway(tmp_path: Path, check: PermissionCheck) -> None:
    async with frame_matrix.world(tmp_path) as w:
        with checks.without(check):
            assert await _admits_anyone(w), f"no cell fails without line {check.line}"


async def _admits_anyone(w: GatewayTenants) -> bool:
    """Return whether a peer connects, or stays connected, without permission."""
    try:
        for who, expected in REFUSED.items():
            if await refused(w, who, "watch") != expected:
                return True
        return await withdrawn(w) != WITHDRAWN
    except (AssertionError, TimeoutError):
        return True


def test_checks_are_found() -> None:
    assert len(CHECKS) > 25
    assert len(GATEWAY_CHECKS) >= 5
