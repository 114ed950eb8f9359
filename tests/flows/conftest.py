"""These stories run on every table engine."""

from __future__ import annotations

import pytest

from tests.platform import Platform


@pytest.fixture(scope="session", params=["platform_on_a_file", "platform_on_dynamodb"])
def platform(request: pytest.FixtureRequest) -> Platform:
    """Return one `artcafe up` per engine, for all tests that do not damage it; each test makes its own tenant."""
    chosen: Platform = request.getfixturevalue(request.param)
    return chosen
