"""The parts of the console that need no page, in Node.js."""

from __future__ import annotations

import pytest

from tests import node
from tests.children import plain_environ
from tests.conftest import Require
from tests.console.visitor import ROOT

TEST_S = 240.0


@pytest.mark.timeout(node.INSTALL_S + TEST_S)
def test_modules_of_the_console_pass_their_own_tests(require: Require) -> None:
    require(node.NAME, node.is_there())
    node.install(ROOT, plain_environ())
    node.run(ROOT, ("node", "test.mjs"), TEST_S, plain_environ())
