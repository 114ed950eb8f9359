"""The stories are the same whichever engine the tables stand on."""

from __future__ import annotations

import pytest

from tests.platform import Platform


@pytest.fixture(scope="session", params=["platform_on_a_file", "platform_on_dynamodb"])
def platform(request: pytest.FixtureRequest) -> Platform:
    """One `artcafe up` on each engine for all tests that do not break it; each makes its own tenant."""
    chosen: Platform = request.getfixturevalue(request.param)
    return chosen
