"""The pytest plugin `artcafe`: fixtures that start a server when a test first uses one.

Every pytest in an environment with ArtCafe loads it, so it imports the rest of `artcafe` when a fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from artcafe.testing import ServerFixture, TenantFixture


@pytest.fixture(scope="session")
def artcafe_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerFixture]:
    """A server of its own for the session: `artcafe up` with SQLite and a nats-server, in a temporary folder, on free ports."""
    try:
        from artcafe.testing import ServerFixture
    except ModuleNotFoundError as exc:
        raise pytest.UsageError(f"artcafe_server needs the server: pip install 'artcafe[server]' ({exc})") from exc
    with ServerFixture(tmp_path_factory.mktemp("artcafe")) as server:
        yield server


@pytest.fixture
def artcafe_tenant(artcafe_server: ServerFixture) -> TenantFixture:
    """A new tenant on the session's server, so that no test sees what another one stored."""
    return artcafe_server.tenant()
