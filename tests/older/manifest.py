"""The meaning of the older system's rows: permissions of people and agents after the repair, and the remaining findings."""

from __future__ import annotations

import msgspec


class OlderPerson(msgspec.Struct, kw_only=True):
    """A person: the role in each tenant they are a member of, and whether they have accepted version 1.0 of the terms."""

    user_id: str
    roles: dict[str, str] = {}
    has_accepted: bool = False


class Program(msgspec.Struct, kw_only=True):
    """An agent: the path of its private key, whether it may log in, and the channels it receives."""

    tenant: str
    id: str
    key: str
    logs_in: bool
    receives: list[str] = []


class Organisation(msgspec.Struct, kw_only=True):
    """A tenant: its plan, and the enforced limits of its row, by ArtCafe's names."""

    id: str
    plan: str
    limits: dict[str, int]


class Left(msgspec.Struct, kw_only=True, frozen=True, order=True):
    """A finding of `tables check --rows` left by every repair."""

    what: str
    tenant: str
    key: str


class Row(msgspec.Struct, kw_only=True):
    """A row and its meaning."""

    table: str
    key: list[str]
    why: str


class RowManifest(msgspec.Struct, kw_only=True):
    """The meaning of all rows, by the labels in the test data."""

    people: dict[str, OlderPerson] = {}
    agents: dict[str, Program] = {}
    channels: dict[str, list[str]] = {}
    """Tenant id and channel id, by label."""
    tenants: dict[str, Organisation] = {}
    left: list[Left] = []
    rows: list[Row] = []
