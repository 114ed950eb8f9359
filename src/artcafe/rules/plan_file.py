"""Parse a catalogue of plans from TOML. Every fault is reported, not only the first one.

default = "free"

[plans.free]
title = "Free"
description = "For a first fleet"
self_serve = true

[plans.free.limits]
agents = 100
retention_s = "unlimited"
…
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from artcafe.errors import PlansInvalid
from artcafe.rules.plans import UNLIMITED, Limit, Plan, Plans

UNLIMITED_WORD: Final = "unlimited"

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_TEXTS: Final = {"title": 64, "description": 1024}
"""The texts of a plan, with the most characters."""
_OF_PLAN: Final = (*_TEXTS, "self_serve", "limits")


def parse(text: str, source: str) -> Plans:
    """Return the catalogue. Raises PlansInvalid with all faults and the `source` that has them."""
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise PlansInvalid(source, [f"it is not TOML: {exc}"]) from exc
    faults = list(_faults(given))
    if faults:
        raise PlansInvalid(source, faults)
    plans = {name: _plan(name, plan) for name, plan in given["plans"].items()}
    return Plans(MappingProxyType(plans), given["default"])


def _plan(name: str, given: Mapping[str, Any]) -> Plan:
    limits = {limit: UNLIMITED if (n := given["limits"][limit]) == UNLIMITED_WORD else n for limit in Limit}
    return Plan(
        name, given.get("title") or name, given.get("description", ""), given.get("self_serve", False), MappingProxyType(limits)
    )


def _faults(given: Mapping[str, Any]) -> Iterator[str]:
    for unknown in sorted(given.keys() - {"default", "plans"}):
        yield f"{unknown} is unknown; the file has 'default' and one table [plans.NAME] for each plan"
    plans = given.get("plans")
    if not isinstance(plans, dict) or not plans:
        yield "it has no plan; add a table [plans.NAME] for each"
        return
    default = given.get("default")
    if default is None:
        yield 'default is missing; name the plan of new tenants, such as default = "free"'
    elif default not in plans:
        yield f"default is {default!r}, but there is no [plans.{default}]; name one of {', '.join(sorted(plans))}"
    for name, plan in plans.items():
        if not _NAME.fullmatch(name):
            yield f"plans.{name}: a plan's name must have 1 to 64 lower-case letters, digits, '-' and '_'"
        if isinstance(plan, dict):
            yield from _of_plan(f"plans.{name}", plan)
        else:
            yield f"plans.{name} must be a table"


def _of_plan(where: str, plan: Mapping[str, Any]) -> Iterator[str]:
    for unknown in sorted(plan.keys() - set(_OF_PLAN)):
        yield f"{where}.{unknown} is unknown; a plan has {', '.join(_OF_PLAN)}"
    for name, most in _TEXTS.items():
        if not isinstance(plan.get(name, ""), str) or len(plan.get(name, "")) > most:
            yield f"{where}.{name} must be a text of at most {most} characters"
    if not isinstance(plan.get("self_serve", False), bool):
        yield f"{where}.self_serve must be true or false; this is {plan['self_serve']!r}"
    limits = plan.get("limits")
    if not isinstance(limits, dict):
        yield f"{where}.limits is missing; add a table [{where}.limits] with {', '.join(Limit)}"
        return
    for unknown in sorted(limits.keys() - set(Limit)):
        yield f"{where}.limits.{unknown} is unknown; the limits are {', '.join(Limit)}"
    for limit in Limit:
        if limit not in limits:
            yield f'{where}.limits.{limit} is missing; write a number, or "{UNLIMITED_WORD}"'
        elif (problem := _problem(limits[limit])) is not None:
            yield f"{where}.limits.{limit} {problem}"


def _problem(number: object) -> str | None:
    """Return what is wrong with the number of a limit, or None."""
    if number == UNLIMITED_WORD:
        return None
    if isinstance(number, bool) or not isinstance(number, int):
        return f'must be a whole number or "{UNLIMITED_WORD}"; this is {number!r}'
    if number < 0:
        return f"must not be negative; this is {number}"
    return None if number < UNLIMITED else f'must be below 2**53; write "{UNLIMITED_WORD}" for no limit'
