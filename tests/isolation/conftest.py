"""The server for the isolation tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from artcafe.model import UserId
from artcafe.services.terms import Current
from tests import ssh_keygen
from tests.conftest import Require
from tests.isolation.matrix import Matrix, create_matrix
from tests.isolation.route_rules import OPERATOR, PENDING_OPERATOR
from tests.rest.rest_app import RestApp


@pytest.fixture(scope="module")
def rest_app(tmp_path_factory: pytest.TempPathFactory, require: Require) -> Iterator[RestApp]:
    """Start a server without tenants."""
    require("ssh-keygen", ssh_keygen.PRESENT)
    operators = UserId(OPERATOR), UserId(PENDING_OPERATOR)
    with RestApp(tmp_path_factory.mktemp("server"), Current(version="2026-11"), operators) as rest_app:
        yield rest_app


@pytest.fixture(scope="module")
def matrix(rest_app: RestApp) -> Matrix:
    """Create the tenants and every kind of caller."""
    return create_matrix(rest_app)
