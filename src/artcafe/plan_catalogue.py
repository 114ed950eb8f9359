"""Read the catalogue of plans: the shipped one (`plans.toml`), or an operator's file in its place."""

from __future__ import annotations

import functools
from importlib.resources import files
from pathlib import Path
from typing import Final

from artcafe.errors import PlansInvalid
from artcafe.rules.plan_file import parse
from artcafe.rules.plans import Plans

SHIPPED: Final = "plans.toml"


@functools.cache
def shipped() -> Plans:
    """Return the catalogue that is part of the package."""
    return parse(files("artcafe").joinpath(SHIPPED).read_text("utf-8"), SHIPPED)


def read(file: Path | None) -> Plans:
    """Return the catalogue of a file, or the shipped one. Raises PlansInvalid with every fault of the file."""
    if file is None:
        return shipped()
    source = f"the file of plans {file}"
    try:
        return parse(file.read_text("utf-8"), source)
    except (OSError, UnicodeDecodeError) as exc:
        raise PlansInvalid(source, [f"it cannot be read as text: {exc}"]) from exc
