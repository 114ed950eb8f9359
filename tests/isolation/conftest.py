"""The server for the isolation tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from artcafe.services.terms import Current
from tests import ssh_keygen
from tests.conftest import Require
from tests.isolation.matrix import Matrix, create_matrix
from tests.rest.house import House


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, require: Require) -> Iterator[House]:
    """Start a server without tenants."""
    require("ssh-keygen", ssh_keygen.PRESENT)
    with House(tmp_path_factory.mktemp("house"), Current(version="2026-11")) as house:
        yield house


@pytest.fixture(scope="module")
def matrix(house: House) -> Matrix:
    """Create the tenants and every kind of caller."""
    return create_matrix(house)
