"""The server that the tests of a file share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import ssh_keygen
from tests.conftest import Require
from tests.rest.house import Caller, House, Tenant


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, require: Require) -> Iterator[House]:
    """A server with nobody in it."""
    require("ssh-keygen", ssh_keygen.PRESENT)
    with House(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture(scope="module")
def tenant(house: House) -> Tenant:
    """A tenant that the tests of a file share."""
    return house.tenant()


@pytest.fixture(scope="module")
def owner(tenant: Tenant) -> Caller:
    """The owner of that tenant."""
    return tenant.owner


@pytest.fixture(scope="module")
def anyone(house: House) -> Caller:
    """Somebody without a token."""
    return house.client()
