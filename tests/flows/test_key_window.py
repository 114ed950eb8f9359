"""How long a message's key is remembered."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.platform import running


@pytest.mark.promise("3a", "3c")
async def test_key_is_still_known_after_nats_was_killed(tmp_path: Path) -> None:
    with running(tmp_path) as platform:
        cast = await platform.tenant_with()
        async with cast.agent() as agent:
            first = await agent.publish(cast.channels[0], 1, key="order-42")
            killed = platform.nats_pid
            os.kill(killed, signal.SIGKILL)

            repeat = await agent.publish(cast.channels[0], 1, key="order-42")

        assert (repeat.seq, repeat.duplicate) == (first.seq, True)
        assert platform.nats_pid != killed
