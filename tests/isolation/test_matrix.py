"""The walls of REST: every cell of the matrix."""

from __future__ import annotations

import pytest
from fastapi.routing import iter_route_contexts

from artcafe.rest.app import build
from tests.isolation.matrix import (
    ELSEWHERE,
    FROM_OUTSIDE,
    HALTED_CANARY,
    IN_MANAGED,
    OWN,
    PARAMETER,
    TABLE,
    THEIR_CANARY,
    THERE,
    Matrix,
    Who,
    all_of,
)
from tests.rest.house import SETTINGS, House


def test_every_route_has_its_line(house: House) -> None:
    routes = {
        f"{method} {each.path}"
        for each in iter_route_contexts(build(house.services, SETTINGS).routes)
        for method in (each.methods or set()) - {"HEAD"}
    }
    assert routes == set(TABLE)


def test_every_line_says_what_each_parameter_answers_when_it_is_missing() -> None:
    assert {route: set(PARAMETER.findall(route)) for route in TABLE} == {
        route: set(line.missing) for route, line in TABLE.items()
    }


@pytest.mark.parametrize(("route", "who"), THERE)
def test_what_is_there(matrix: Matrix, route: str, who: Who) -> None:
    matrix.there(route, who)


@pytest.mark.parametrize(("route", "who"), IN_MANAGED)
def test_what_is_in_a_managed_channel(matrix: Matrix, route: str, who: Who) -> None:
    matrix.managed(route, who)


@pytest.mark.parametrize("who", OWN)
def test_entering_a_managed_channel(matrix: Matrix, who: Who) -> None:
    matrix.entering(who)


@pytest.mark.parametrize("who", OWN)
def test_making_and_unmaking_owners(matrix: Matrix, who: Who) -> None:
    matrix.owning(who)


@pytest.mark.parametrize(("route", "parameter", "who"), ELSEWHERE)
def test_what_is_elsewhere(matrix: Matrix, route: str, parameter: str, who: Who) -> None:
    matrix.elsewhere(route, parameter, who)


@pytest.mark.parametrize(("route", "who"), FROM_OUTSIDE)
def test_what_is_another_tenants(matrix: Matrix, route: str, who: Who) -> None:
    matrix.outside(route, who)


def test_logging_in(matrix: Matrix) -> None:
    matrix.logging_in()


def test_joining_a_suspended_tenant(matrix: Matrix) -> None:
    matrix.joining()


def test_what_is_theirs_is_as_it_was(matrix: Matrix) -> None:
    """Runs last: what it was before was read before the first of the others."""
    theirs, halted = matrix.before[Who.STRANGER], matrix.before[Who.SUSPENDED_OWNER]
    assert all_of(matrix.theirs) == theirs
    assert all_of(matrix.halted, but="messages") == halted
    for before, canary in ((theirs, THEIR_CANARY), (halted, HALTED_CANARY)):
        assert all(canary in str(part) for name, part in before.items() if not name.endswith("subscriptions"))
