"""Whether a server traces is decided once, by the tracer provider that its operator has configured."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

OPEN = """
from artcafe.observe.tracing import open_tracing
print([type(open_tracing(mode)).__name__ for mode in ("link", "continue", "off")])
"""
HIDE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
"""
TRACED = "['Tracing', 'Tracing', 'NoneType']"
NOT_TRACED = "['NoneType', 'NoneType', 'NoneType']"


def run(code: str, **variables: str) -> str:
    """Run a program in a new interpreter, since a provider can be set once in a process."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")} | variables
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30, env=environ)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_a_provider_nothing_is_traced() -> None:
    assert run(OPEN) == NOT_TRACED


def test_provider_of_an_entry_point_is_used_except_with_off() -> None:
    assert run(OPEN, OTEL_PYTHON_TRACER_PROVIDER="sdk_tracer_provider") == TRACED


def test_disabled_sdk_traces_nothing() -> None:
    assert run(OPEN, OTEL_PYTHON_TRACER_PROVIDER="sdk_tracer_provider", OTEL_SDK_DISABLED="true") == NOT_TRACED


@pytest.mark.parametrize("module", ["artcafe.sdk.agent", "artcafe.sdk.client", "artcafe.services.messaging"])
def test_without_the_api_package_everything_imports_and_nothing_is_traced(module: str) -> None:
    assert run(f"{HIDE}\nimport {module}") == ""
    assert run(HIDE + OPEN) == NOT_TRACED
