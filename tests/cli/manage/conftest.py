"""Fixtures: tenants on a running platform, and users of the command line."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.cli.manage.shell_user import Person
from tests.platform import Cast, Platform


@pytest.fixture(scope="module")
def home(platform: Platform) -> Cast:
    return asyncio.run(platform.tenant_with(agents=0, channels=0))


@pytest.fixture
def owner(home: Cast, tmp_path: Path) -> Person:
    """Return the owner of one tenant, with a token and without a local server."""
    return Person({"URL": home.url, "TOKEN": home.token, "DATA_DIR": str(tmp_path / "nowhere")})


@pytest.fixture(scope="module")
def populated(platform: Platform) -> Cast:
    """Return a tenant with an agent subscribed to one channel, with 60 stored messages."""
    cast = asyncio.run(platform.tenant_with())

    async def publish() -> None:
        async with cast.rest() as rest:
            for number in range(60):
                await rest.tenant(cast.tenant).messages.publish(cast.channels[0], {"number": number})

    asyncio.run(publish())
    return cast


@pytest.fixture
def member(populated: Cast, tmp_path: Path) -> Person:
    return Person({"URL": populated.url, "TOKEN": populated.token, "DATA_DIR": str(tmp_path / "nowhere")})
