"""What the rows of the first system stand for: what people and agents can do once they are mended, and what is left to decide."""

from __future__ import annotations

import msgspec


class Person(msgspec.Struct, kw_only=True):
    """A person: their role in each tenant that lets them in, and whether they have accepted version 1.0 of the terms."""

    user_id: str
    roles: dict[str, str] = {}
    has_accepted: bool = False


class Program(msgspec.Struct, kw_only=True):
    """An agent: the file of its private key, whether it may log in, and the channels whose messages it receives."""

    tenant: str
    id: str
    key: str
    logs_in: bool
    receives: list[str] = []


class Organisation(msgspec.Struct, kw_only=True):
    """A tenant: its plan, and the limits of its row that are kept, by ArtCafe's names."""

    id: str
    plan: str
    limits: dict[str, int]


class Left(msgspec.Struct, kw_only=True, frozen=True, order=True):
    """A finding of `tables check --rows` that no repair mends."""

    what: str
    tenant: str
    key: str


class Row(msgspec.Struct, kw_only=True):
    """A row, and what it stands for."""

    table: str
    key: list[str]
    why: str


class Manifest(msgspec.Struct, kw_only=True):
    """Everything that the rows stand for, by the names that the test data gives."""

    people: dict[str, Person] = {}
    agents: dict[str, Program] = {}
    channels: dict[str, list[str]] = {}
    """Tenant and id of each."""
    tenants: dict[str, Organisation] = {}
    left: list[Left] = []
    rows: list[Row] = []
