"""What every test may use: `require` for a real part that may be missing, a platform, AWS, and the --faults switch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import hypothesis
import pytest

from tests import aws as emulator
from tests.platform import Platform, running

Require = Callable[[str, bool], None]

IN_CI = bool(os.environ.get("CI"))

# No deadline: a test never asserts elapsed time. CI draws the same examples every time, so that its verdict is about the change.
hypothesis.settings.register_profile("artcafe", deadline=None, derandomize=IN_CI)
hypothesis.settings.load_profile("artcafe")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", action="store_true", help="also run the long tests that kill, stop and starve processes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what is marked `faults` unless --faults is given."""
    if not config.getoption("--faults"):
        left_out = [item for item in items if item.get_closest_marker("faults")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def require() -> Require:
    """`require("nats-server", found)` ends a test whose real part is missing: skipped at home, failed where CI is set."""

    def check(name: str, found: bool) -> None:
        if not found and IN_CI:
            pytest.fail(f"{name} is not here, and CI must have it")
        if not found:
            pytest.skip(f"{name} is not here")

    return check


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One `artcafe up` for all tests that do not break it; each makes its own tenant."""
    with running(tmp_path_factory.mktemp("platform")) as platform:
        yield platform


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[emulator.Aws]:
    """One emulator of AWS for all tests, each of which takes a region of its own: `aws.new_region()`.

    Clients of this process and its children sign with made-up credentials.
    """
    with pytest.MonkeyPatch.context() as environ, emulator.running(tmp_path_factory.mktemp("aws")) as aws:
        for name, value in emulator.CREDENTIALS.items():
            environ.setenv(name, value)
        yield aws
