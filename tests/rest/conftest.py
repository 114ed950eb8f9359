"""Fixtures: one server per test module, with callers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import ssh_keygen
from tests.conftest import Require
from tests.rest.house import Caller, House, Tenant


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, require: Require) -> Iterator[House]:
    """Yield a server without tenants."""
    require("ssh-keygen", ssh_keygen.PRESENT)
    with House(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture(scope="module")
def tenant(house: House) -> Tenant:
    """Return the tenant shared by the tests of a module."""
    return house.tenant()


@pytest.fixture(scope="module")
def owner(tenant: Tenant) -> Caller:
    """Return the owner of the shared tenant."""
    return tenant.owner


@pytest.fixture(scope="module")
def anyone(house: House) -> Caller:
    """Return a caller without a token."""
    return house.client()
