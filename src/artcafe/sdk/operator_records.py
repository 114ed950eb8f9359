"""Responses of the routes for operators of the platform, as frozen structs. None is unknown, never zero."""

from __future__ import annotations

from datetime import datetime

import msgspec


class FleetServer(msgspec.Struct, frozen=True):
    """A server process of the fleet. `state` is `up`, or `silent` for one that was killed or is cut off."""

    id: str
    state: str
    heard_at: datetime
    host: str | None = None
    version: str | None = None
    process: int | None = None
    """Its number among the processes behind the same listeners, of which there are `processes`."""
    processes: int | None = None
    started_at: datetime | None = None
    connections: int | None = None
    """Open connections to both listeners."""
    sessions: int | None = None
    """Sockets and streams of agents and people."""


class NatsServer(msgspec.Struct, frozen=True):
    """A NATS server. `is_current`, `lag` and `contact_s` are the view of the cluster's leader; None for the leader itself."""

    name: str
    answers: bool
    host: str | None = None
    version: str | None = None
    started_at: datetime | None = None
    connections: int | None = None
    jetstream: bool | None = None
    streams: int | None = None
    messages: int | None = None
    stored_bytes: int | None = None
    is_leader: bool | None = None
    is_current: bool | None = None
    lag: int | None = None
    """Operations that it is behind the leader."""
    contact_s: float | None = None
    """Seconds since the leader heard it."""


class NatsState(msgspec.Struct, frozen=True):
    """NATS, as the server that answers reaches it. `cluster` and `leader` are None for a single server."""

    is_connected: bool
    problem: str | None = None
    cluster: str | None = None
    size: int | None = None
    """Servers with JetStream in the cluster, also those that are down."""
    leader: str | None = None
    servers: tuple[NatsServer, ...] | None = None


class Dependency(msgspec.Struct, frozen=True):
    """Something that the server that answers needs. `problem` is None if it is ready."""

    name: str
    is_ready: bool
    problem: str | None = None


class PlatformState(msgspec.Struct, frozen=True):
    """The state of the platform as the server `server` sees it; that one is the first of `servers`.

    Without `is_complete` NATS cannot be reached, and other servers may be missing.
    """

    time: datetime
    server: str
    servers: tuple[FleetServer, ...]
    is_complete: bool
    nats: NatsState
    readiness: tuple[Dependency, ...]


class SuspendedTenant(msgspec.Struct, frozen=True):
    """A suspended tenant. `suspended_at` is None if its row was not changed by `artcafe suspend`."""

    id: str
    plan: str
    suspended_at: datetime | None = None
    created_at: datetime | None = None
