"""Base classes of the JSON in requests and responses, and their names in the OpenAPI document."""

from __future__ import annotations

import re
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

_SUFFIX: Final = re.compile(r"(?<=.)(Body|Response)$")


def schema_name(model: type[Any]) -> str:
    """Return the name of a model's schema: the class name without `Body` or `Response`, which only distinguish classes."""
    return _SUFFIX.sub("", model.__name__)


class RequestModel(BaseModel):
    """A JSON object in a request. An unknown field is refused, so that a misspelt one is never ignored."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, model_title_generator=schema_name)

    def given(self) -> dict[str, Any]:
        """Return the fields that were sent: a PATCH changes only these."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class ResponseModel(BaseModel):
    """A JSON object in a response, built from the attributes of a record that the caller may see."""

    model_config = ConfigDict(from_attributes=True, model_title_generator=schema_name)
