"""Codes of the console, where people sign in at an identity provider."""

from __future__ import annotations

import pytest

from artcafe.errors import BadCode, Conflict
from artcafe.model import UserId
from artcafe.services.console_codes import ConsoleCodes
from artcafe.services.login_throttle import LoginThrottle
from artcafe.tables.store import Store
from tests.services.service_env import START, Server


async def test_there_are_no_codes_where_an_issuer_signs_people_in(server: Server) -> None:
    codes = ConsoleCodes(Store(server.tables).console_codes(), None, LoginThrottle(0), server.clock)
    with pytest.raises(Conflict, match="issuer"):
        await codes.create(UserId("alice"), START)
    with pytest.raises(BadCode):
        await codes.redeem("x")
