"""Tenant isolation of REST and of the tools of MCP over HTTP: every cell of the matrix."""

from __future__ import annotations

import pytest
from fastapi.routing import iter_route_contexts

from artcafe.rest.app import build
from tests.isolation import tool_matrix
from tests.isolation.matrix import (
    FROM_OUTSIDE,
    IN_MANAGED,
    IN_MESSAGES,
    OWN,
    SUSPENDED_CANARY,
    THEIR_CANARY,
    THERE,
    WITH_CHANNEL,
    WRONG_IDS,
    Matrix,
    snapshot,
)
from tests.isolation.route_rules import PARAMETER, TABLE, CallerKind
from tests.isolation.tool_matrix import ELSEWHERE, HIDDEN, TOOLS
from tests.rest.rest_app import SETTINGS, RestApp

NAMING = (CallerKind.OWNER, CallerKind.AGENT)
NAMED = {"agent_id", "channel_id"}


def test_every_route_is_in_the_table(rest_app: RestApp) -> None:
    routes = {
        f"{method} {each.path}"
        for each in iter_route_contexts(build(rest_app.services, SETTINGS).routes)
        for method in (each.methods or set()) - {"HEAD"}
    }
    assert routes == set(TABLE)


def test_every_path_parameter_has_an_expected_error() -> None:
    assert {route: set(PARAMETER.findall(route)) for route in TABLE} == {
        route: set(line.missing) for route, line in TABLE.items()
    }


@pytest.mark.parametrize(("route", "who"), THERE)
def test_existing_records(matrix: Matrix, route: str, who: CallerKind) -> None:
    matrix.there(route, who)


@pytest.mark.parametrize(
    ("route", "who"),
    [
        (route, who)
        for route, who in THERE
        if who in NAMING and not route.startswith("DELETE") and NAMED & set(PARAMETER.findall(route))
    ],
)
def test_handles_stand_for_ids(matrix: Matrix, route: str, who: CallerKind) -> None:
    matrix.by_handle(route, who)


@pytest.mark.parametrize(("route", "who"), IN_MANAGED)
def test_records_in_a_managed_channel(matrix: Matrix, route: str, who: CallerKind) -> None:
    matrix.managed(route, who)


@pytest.mark.parametrize("route", IN_MESSAGES)
def test_agent_with_the_permission_to_publish_only(matrix: Matrix, route: str) -> None:
    matrix.publishing_only(route)


@pytest.mark.parametrize("route", WITH_CHANNEL)
def test_managed_channel_is_like_an_unknown_one_for_an_agent_without_a_subscription(matrix: Matrix, route: str) -> None:
    matrix.hidden(route)


@pytest.mark.parametrize("who", OWN)
def test_subscribing_to_a_managed_channel(matrix: Matrix, who: CallerKind) -> None:
    matrix.entering(who)


@pytest.mark.parametrize("who", OWN)
def test_moving_a_cursor(matrix: Matrix, who: CallerKind) -> None:
    matrix.moving(who)


@pytest.mark.parametrize("who", OWN)
def test_history_of_an_inbox_is_readable_by_its_agent_alone(matrix: Matrix, who: CallerKind) -> None:
    matrix.inbox_history(who)


@pytest.mark.parametrize("who", OWN)
def test_message_of_an_inbox_as_the_cause_of_another(matrix: Matrix, who: CallerKind) -> None:
    matrix.answering_an_inbox(who)


@pytest.mark.parametrize("who", OWN)
def test_granting_and_removing_owners(matrix: Matrix, who: CallerKind) -> None:
    matrix.owning(who)


@pytest.mark.parametrize("who", OWN)
def test_choosing_a_plan(matrix: Matrix, who: CallerKind) -> None:
    matrix.choosing_a_plan(who)


@pytest.mark.parametrize(("route", "parameter", "who"), WRONG_IDS)
def test_foreign_unknown_and_malformed_ids_get_the_same_answer(
    matrix: Matrix, route: str, parameter: str, who: CallerKind
) -> None:
    matrix.elsewhere(route, parameter, who)


@pytest.mark.parametrize(("route", "who"), FROM_OUTSIDE)
def test_callers_from_outside(matrix: Matrix, route: str, who: CallerKind) -> None:
    matrix.outside(route, who)


def test_every_tool_and_resource_is_in_the_table() -> None:
    assert tool_matrix.own_names() == set(TOOLS)
    assert tool_matrix.own_resources() == set(tool_matrix.RESOURCES)


@pytest.mark.parametrize(("tool", "who"), tool_matrix.THERE)
def test_tool_on_existing_records(matrix: Matrix, tool: str, who: CallerKind) -> None:
    tool_matrix.there(matrix, tool, who)


@pytest.mark.parametrize(("tool", "argument", "who"), ELSEWHERE)
def test_foreign_and_unknown_ids_in_arguments_get_the_same_answer(
    matrix: Matrix, tool: str, argument: str, who: CallerKind
) -> None:
    tool_matrix.elsewhere(matrix, tool, argument, who)


@pytest.mark.parametrize(("uri", "who"), tool_matrix.IN_RESOURCES)
def test_resource_is_an_agents_own(matrix: Matrix, uri: str, who: CallerKind) -> None:
    tool_matrix.resource(matrix, uri, who)


@pytest.mark.parametrize("who", [CallerKind.AGENT, CallerKind.OTHER])
def test_resource_of_another_agent_is_like_an_unknown_one(matrix: Matrix, who: CallerKind) -> None:
    tool_matrix.elsewhere_in_resources(matrix, who)


@pytest.mark.parametrize("tool", HIDDEN)
def test_managed_channel_is_like_an_unknown_one_in_a_tool(matrix: Matrix, tool: str) -> None:
    tool_matrix.hidden(matrix, tool)


def test_login_in_a_suspended_tenant(matrix: Matrix) -> None:
    matrix.logging_in()


def test_joining_a_suspended_tenant(matrix: Matrix) -> None:
    matrix.joining()


def test_other_tenants_are_unchanged_afterwards(matrix: Matrix) -> None:
    """Runs last; the earlier state was read before the first test."""
    theirs, halted = matrix.before[CallerKind.STRANGER], matrix.before[CallerKind.SUSPENDED_OWNER]
    assert snapshot(matrix.theirs) == theirs
    assert snapshot(matrix.halted, but="messages") == halted
    for before, canary in ((theirs, THEIR_CANARY), (halted, SUSPENDED_CANARY)):
        assert all(canary in str(part) for name, part in before.items() if not name.endswith("subscriptions"))
