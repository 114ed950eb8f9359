"""The matrix detects every missing permission check: with any one removed from the code, a cell fails.

The checks are found in the source, so that a later check without a cell fails here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import pytest

from tests.isolation import checks, frame_matrix, tool_matrix
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
from tests.isolation.route_rules import OUTSIDE, CallerKind
from tests.rest.rest_app import RestApp

CHECKS, GATEWAY_CHECKS = checks.found(), checks.of_gateway()
Cell = Callable[[Matrix], None]


CELLS_AT_ONCE: Final = 100
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
    *(partial(tool_matrix.there, tool=tool, who=who) for tool, who in tool_matrix.THERE),
    *(partial(tool_matrix.elsewhere, tool=tool, argument=name, who=who) for tool, name, who in tool_matrix.ELSEWHERE),
    *(partial(tool_matrix.hidden, tool=tool) for tool in tool_matrix.HIDDEN),
    *(partial(tool_matrix.resource, uri=uri, who=who) for uri, who in tool_matrix.IN_RESOURCES),
    *(partial(Matrix.outside, route=route, who=who) for route, who in FROM_OUTSIDE),
]


def _turn(cell: Cell) -> int:
    """Return when to run a cell. Most checks refuse callers of the tenant, and cells of wrong ids have several requests."""
    arguments = cell.keywords if isinstance(cell, partial) else {}
    who = arguments.get("who", CallerKind.AGENT)
    if "parameter" in arguments or who in OUTSIDE:
        return 1 if who is CallerKind.AGENT else 3
    return 0 if who in OWN else 2


class Evidence:
    """The cells in which each check refuses a caller, and tenants to run them on.

    Further cells are run only while a check needs them, and all tenants are shared: a cell that succeeds on them twice fails for
    the missing check alone.
    """

    def __init__(self, rest_app: RestApp) -> None:
        self._rest_app = rest_app
        self._unchanged, self._matrix = create_matrix(rest_app), create_matrix(rest_app)
        self._unwatched = iter(sorted(CELLS, key=_turn))
        self._refused_in: dict[PermissionCheck, list[Cell]] = defaultdict(list)

    def refused_by(self, check: PermissionCheck) -> Iterator[Cell]:
        """Yield the cells with a request that the check refuses, reads first."""
        tried: list[Cell] = []
        while True:
            new = [cell for cell in self._refused_in[check] if cell not in tried]
            yield from sorted(new, key=_may_change)
            tried += new
            if not self._watch_more():
                return

    def _watch_more(self) -> bool:
        """Run some further cells. Return False if none is left."""
        cells = list(islice(self._unwatched, CELLS_AT_ONCE))
        refusing: set[PermissionCheck] = set()
        with checks.watched(CHECKS, refusing.add):
            for cell in cells:
                refusing.clear()
                cell(self._unchanged)
                for check in refusing:
                    self._refused_in[check].append(cell)
        return bool(cells)

    def fails_without(self, check: PermissionCheck, cell: Cell) -> bool:
        """Return whether a cell that succeeds fails without the check."""
        if not self._is_repeatable(cell):  # A cell without its check has changed the tenants.
            self._matrix = create_matrix(self._rest_app)
            assert self._is_repeatable(cell)
        with checks.without(check):
            return not _is_green(cell, self._matrix)

    def _is_repeatable(self, cell: Cell) -> bool:
        return _is_green(cell, self._matrix) and _is_green(cell, self._matrix)


@pytest.fixture(scope="module")
def evidence(rest_app: RestApp) -> Evidence:
    return Evidence(rest_app)


@pytest.mark.timeout(180)  # A test may wait for all cells.
@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_matrix_fails_without_any_one_check(evidence: Evidence, check: PermissionCheck) -> None:
    cells = evidence.refused_by(check)
    assert any(evidence.fails_without(check, cell) for cell in cells), f"no cell fails without line {check.line}"


def _may_change(cell: Cell) -> bool:
    """Return whether a cell may change the tenants, if a check is missing."""
    return not (isinstance(cell, partial) and cell.keywords.get("route", "").startswith("GET "))


def _is_green(cell: Cell, matrix: Matrix) -> bool:
    try:
        cell(matrix)
    except AssertionError:
        return False
    return True


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
    except AssertionError:
        return True


def test_checks_are_found() -> None:
    assert len(CHECKS) > 25
    assert len(GATEWAY_CHECKS) >= 5
