"""Fixtures for every test: `require` for a real part that may be missing, a platform, AWS, ssh-agent, the --faults switch."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog

from tests import aws as emulator
from tests.children import interrupt_with_parent
from tests.platform import Platform, running

Require = Callable[[str, bool], None]

IN_CI = bool(os.environ.get("CI"))

# No deadline, and no check for slow draws: a test never asserts elapsed time. No check for skipped draws: a random history of a
# checker's test may have no place for the planted fault. CI draws the same examples every time, so that its result depends on the
# change only.
hypothesis.settings.register_profile(
    "artcafe",
    deadline=None,
    derandomize=IN_CI,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.filter_too_much],
)
hypothesis.settings.load_profile("artcafe")


if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # by nohup: every server started here would inherit it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class FailureNames:
    """Name each failure when it happens, not only in the summary at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal is not None:
            terminal.write_line(f"\nFAILED {report.nodeid} ({report.when})", red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Clean up when a signal stops the run: SIGTERM is handled like Ctrl-C, and workers stop with the main process.

    A run in the background of a script inherits an ignored SIGINT, and the commands under test would inherit it too.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if "PYTEST_XDIST_WORKER" in os.environ:
        interrupt_with_parent()
    else:
        config.pluginmanager.register(FailureNames(config), "failure-names")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", metavar="FOLDER", type=Path, help="save pictures of the console's screens in this folder")
    parser.addoption("--faults", action="store_true", help="also run the long tests that kill, stop and starve processes")
    parser.addoption("--kit", action="store_true", help="also run the long tests that build distributions and the image")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests marked `faults` or `kit` unless the option of this name is given."""
    off = [name for name in ("faults", "kit") if not config.getoption(f"--{name}")]
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in off)]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Turn off the garbage collector while the tests are collected, and have it ignore what exists then.

    Modules and items live as long as the process, and traversing them again and again took a third of the processor time.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def require() -> Require:
    """`require("nats-server", found)` ends a test if its real part is missing: skipped at home, failed if CI is set."""

    def check(name: str, found: bool) -> None:
        if not found and IN_CI:
            pytest.fail(f"{name} is not here, and CI must have it")
        if not found:
            pytest.skip(f"{name} is not here")

    return check


@pytest.fixture(scope="session")
def platform_on_a_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Return one `artcafe up` for all tests that do not damage it; each makes its own tenant."""
    with running(tmp_path_factory.mktemp("platform")) as platform:
        yield platform


@pytest.fixture(scope="session")
def platform_on_dynamodb(aws: emulator.Aws, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Return the same, with its tables in the emulator."""
    with running(tmp_path_factory.mktemp("on-dynamodb"), aws.tables_flags()) as platform:
        yield platform


@pytest.fixture(scope="session")
def platform(platform_on_a_file: Platform) -> Platform:
    """Return a platform for tests that do not depend on the table engine."""
    return platform_on_a_file


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[emulator.Aws]:
    """Return one AWS emulator for all tests, each of which uses a region of its own: `aws.new_region()`.

    Clients of this process and its children sign with dummy credentials, unless real ones are needed for another endpoint.
    """
    with pytest.MonkeyPatch.context() as environ, emulator.running(tmp_path_factory.mktemp("aws")) as aws:
        for name, value in emulator.CREDENTIALS.items() if "ARTCAFE_TEST_DYNAMODB_ENDPOINT" not in os.environ else ():
            environ.setenv(name, value)
        yield aws


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Return a folder for sockets, whose paths may have at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="keys") as made:
        yield Path(made)


@pytest.fixture
def ssh_agent(short_folder: Path, monkeypatch: pytest.MonkeyPatch, require: Require) -> Iterator[Path]:
    """Run a real ssh-agent for this test, at SSH_AUTH_SOCK."""
    require("ssh-agent", shutil.which("ssh-agent") is not None)
    socket_path = short_folder / "agent"
    # ssh-agent asks this program for confirmations; it always refuses.
    monkeypatch.setenv("SSH_ASKPASS", shutil.which("false") or "false")
    with subprocess.Popen(("ssh-agent", "-D", "-a", str(socket_path)), stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            # It prints the variables for a shell once it listens.
            assert b"SSH_AUTH_SOCK" in process.stdout.readline()
            monkeypatch.setenv("SSH_AUTH_SOCK", str(socket_path))
            yield socket_path
        finally:
            process.terminate()


@pytest.fixture(autouse=True)
def fresh_logging() -> Iterator[None]:
    """Log everything in the test to standard output, whatever ran before it in this process.

    A command that runs in this process configures logging: one in a fixture of a wider scope does so before this fixture.
    """
    log_plainly()
    handlers = [*logging.getLogger().handlers]
    yield
    log_plainly()
    for handler in set(logging.getLogger().handlers).difference(handlers):
        logging.getLogger().removeHandler(handler)


def log_plainly() -> None:
    """Configure structlog as it is by default, but for its tracebacks: with their local variables they take seconds."""
    structlog.reset_defaults()
    *processors, _ = structlog.get_config()["processors"]
    structlog.configure(
        processors=[*processors, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
    )
