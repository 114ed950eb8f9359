"""Tests of programs that use ArtCafe, with a real server in a temporary folder. `artcafe.pytest_plugin` has the fixtures."""

from __future__ import annotations

from artcafe.testing.eventually import eventually
from artcafe.testing.server_fixture import ServerFixture
from artcafe.testing.tenant_fixture import TenantFixture

__all__ = ["ServerFixture", "TenantFixture", "eventually"]
