"""The server that the tests of the walls stand on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from artcafe.services.terms import Current
from tests import ssh_keygen
from tests.conftest import Require
from tests.isolation.matrix import Matrix, made
from tests.rest.house import House


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, require: Require) -> Iterator[House]:
    """A server with nobody in it."""
    require("ssh-keygen", ssh_keygen.PRESENT)
    with House(tmp_path_factory.mktemp("house"), Current(version="2026-11")) as house:
        yield house


@pytest.fixture(scope="module")
def matrix(house: House) -> Matrix:
    """Two tenants of it, and everybody who may call."""
    return made(house)
