"""The public names of the package `artcafe`."""

from __future__ import annotations

import subprocess
import sys
from operator import attrgetter
from typing import Any

import pytest

import artcafe
from artcafe.errors import Unavailable
from artcafe.sdk import deprecated_calls
from artcafe.sdk.client import Client

LOADED = """
import sys, artcafe
print(sorted(name for name in sys.modules if name.partition(".")[0] in {"artcafe", "websockets", "httpx2"}))
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


@pytest.mark.parametrize("name", [*deprecated_calls.IN_TENANT, *deprecated_calls.IN_CLIENT, *deprecated_calls.ARGUMENTS])
async def test_earlier_name_of_a_call_warns_and_names_an_existing_one(name: str) -> None:
    async with Client("http://127.0.0.1:1") as client:
        with pytest.warns(DeprecationWarning, match=rf"Client\.{name} is deprecated: use Client\.") as warned:
            earlier = attrgetter(name)(client)
        assert warned[0].filename == __file__ or name.startswith("people.")
        assert callable(earlier)
        if name in deprecated_calls.IN_TENANT:
            assert callable(attrgetter(deprecated_calls.IN_TENANT[name])(client.tenant("ten_1")))


async def test_earlier_calls_do_what_the_present_ones_do() -> None:
    async with Client("http://127.0.0.1:1", max_retry_s=0) as client:
        earlier: Any = client
        with pytest.warns(DeprecationWarning, match="update\\(name="), pytest.raises(Unavailable):
            await earlier.rename_tenant("ten_1", "Renamed")
        with pytest.warns(DeprecationWarning, match=r"agents\.list"), pytest.raises(Unavailable):
            await anext(earlier.agents("ten_1", connected=True))
        with pytest.warns(DeprecationWarning, match="invitation"), pytest.raises(Unavailable):
            await earlier.people.accept("token", id_token="proof")
        with pytest.warns(DeprecationWarning, match=r"tenant\(…\)\.get"), pytest.raises(Unavailable):
            await earlier.tenant("ten_1")
        with pytest.raises(AttributeError, match="'Client' object has no attribute 'create_agnet'"):
            _ = earlier.create_agnet
