"""More agents and channels in an existing tenant: a new tenant costs a test a second, for its owner's token."""

from __future__ import annotations

import itertools

from tests import ssh_keygen
from tests.platform import Cast

_numbers = itertools.count()


async def recast(home: Cast, agents: int = 1, channels: int = 1, *, subscribed: bool = True) -> Cast:
    """Create agents and channels in the tenant of `home`, and subscribe every new agent to every new channel."""
    cast = Cast(home.tenant, [], [], [], home.url, home.token)
    folder = home.keys[0].parent
    async with home.rest() as rest:
        for _ in range(agents):
            key = ssh_keygen.make_key(folder / f"recast-{next(_numbers)}")
            cast.keys.append(key)
            cast.agents.append((await rest.tenant(cast.tenant).agents.create(key.name, ssh_keygen.public_line(key))).id)
        for number in range(channels):
            cast.channels.append((await rest.tenant(cast.tenant).channels.create(f"channel {number}")).id)
        for channel in cast.channels if subscribed else []:
            for agent in cast.agents:
                await rest.tenant(cast.tenant).subscriptions.create(channel, agent)
    return cast
