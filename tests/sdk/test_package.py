"""The public names of the package `artcafe`."""

from __future__ import annotations

import subprocess
import sys

import pytest

import artcafe
from artcafe.sdk.client import Client

LOADED = """
import sys, artcafe
print(sorted(name for name in sys.modules if name.partition(".")[0] in {"artcafe", "websockets", "httpx"}))
"""
DEPRECATED = """
from artcafe import Client
from artcafe import Rest
from artcafe import Rest as again
import artcafe
assert Rest is again is artcafe.Rest is Client
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a new interpreter, which has imported nothing yet and shows every DeprecationWarning."""
    return subprocess.run(
        [sys.executable, "-W", "always::DeprecationWarning", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )


def test_every_public_name_can_be_imported_and_is_listed() -> None:
    for name in artcafe.__all__:
        assert getattr(artcafe, name) is not None
        assert name in dir(artcafe)
    assert artcafe.Agent.__module__ == "artcafe.sdk.agent"
    assert artcafe.Client is Client
    assert artcafe.errors.ArtcafeError is artcafe.ArtcafeError


def test_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Agnet'"):
        _ = artcafe.Agnet  # type: ignore[attr-defined]  # that is the point


def test_importing_the_package_imports_no_other_module_of_the_sdk() -> None:
    assert run(LOADED).stdout.strip() == "['artcafe']"


def test_rest_is_client_and_warns_once_in_the_line_that_imports_it() -> None:
    done = run(DEPRECATED)
    assert done.stderr.count("DeprecationWarning") == 1
    assert "<string>:3: DeprecationWarning: artcafe.Rest is deprecated: use artcafe.Client" in done.stderr
