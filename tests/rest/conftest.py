"""Fixtures: one server per test module, with callers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import ssh_keygen
from tests.conftest import Require
from tests.rest.rest_app import Caller, RestApp, Tenant


@pytest.fixture(scope="module")
def rest_app(tmp_path_factory: pytest.TempPathFactory, require: Require) -> Iterator[RestApp]:
    """Yield a server without tenants."""
    require("ssh-keygen", ssh_keygen.PRESENT)
    with RestApp(tmp_path_factory.mktemp("server")) as rest_app:
        yield rest_app


@pytest.fixture(scope="module")
def tenant(rest_app: RestApp) -> Tenant:
    """Return the tenant shared by the tests of a module."""
    return rest_app.tenant()


@pytest.fixture(scope="module")
def owner(tenant: Tenant) -> Caller:
    """Return the owner of the shared tenant."""
    return tenant.owner


@pytest.fixture(scope="module")
def anyone(rest_app: RestApp) -> Caller:
    """Return a caller without a token."""
    return rest_app.client()
