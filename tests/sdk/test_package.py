"""What `import artcafe` gives a program."""

from __future__ import annotations

import subprocess
import sys

import pytest

import artcafe

LOADED = """
import sys, artcafe
print(sorted(name for name in sys.modules if name.partition(".")[0] in {"artcafe", "websockets", "httpx"}))
"""


def test_every_public_name_is_there_and_is_listed() -> None:
    for name in artcafe.__all__:
        assert getattr(artcafe, name) is not None
        assert name in dir(artcafe)
    assert artcafe.Agent.__module__ == "artcafe.sdk.client"
    assert artcafe.errors.ArtcafeError is artcafe.ArtcafeError


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Agnet'"):
        _ = artcafe.Agnet  # type: ignore[attr-defined]  # that is the point


def test_importing_the_package_loads_nothing_else() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "['artcafe']"
