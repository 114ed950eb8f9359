"""The pytest plugin: what it loads, and what it says where the server cannot start."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.testing.pytest_run import run_pytest

IDLE = """
import sys

def test_plugin_is_loaded_and_has_imported_nothing(pytestconfig):
    assert pytestconfig.pluginmanager.has_plugin("artcafe")
    assert [name for name in sys.modules if name.startswith("artcafe")] == ["artcafe", "artcafe.pytest_plugin"]
    assert "httpx2" not in sys.modules
"""
WITHOUT_SERVER = """
import sys

def test_server_is_missing(monkeypatch, request):
    monkeypatch.setitem(sys.modules, "joserfc", None)
    request.getfixturevalue("artcafe_tenant")
"""


@pytest.mark.timeout(180)  # It starts a pytest in a process of its own.
def test_plugin_imports_nothing_until_a_fixture_is_used_and_names_a_missing_server(tmp_path: Path) -> None:
    printed = run_pytest(tmp_path, test_idle=IDLE, test_without_server=WITHOUT_SERVER)
    assert "1 passed, 1 error" in printed or "1 failed, 1 passed" in printed, printed
    assert "pip install 'artcafe[server]'" in printed
