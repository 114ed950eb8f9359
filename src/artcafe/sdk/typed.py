"""Data of messages as values of the program's types: msgspec structs, dataclasses, pydantic models, and what msgspec decodes.

Pydantic is recognised by its methods, so that an agent's installation does not need it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import msgspec
import msgspec.inspect

from artcafe.errors import PayloadMismatch
from artcafe.sdk.messages import Message
from artcafe.sdk.outcome import Outcome

T = TypeVar("T")

UNREADABLE: Final = "messages cannot be read as {!r}: use a msgspec struct, a dataclass or a pydantic model"


class TypedMessage(Message, Generic[T]):
    """A message whose data is a value of the type that the program gave to `Agent.messages` or `Agent.on`."""

    def __init__(self, message: Message, value: T) -> None:
        """`message` is the received one, which the program does not use itself."""
        vars(self).update(vars(message))
        self._value = value

    @property
    def data(self) -> T:
        """The validated value."""
        return self._value


Reader = Callable[[bytes], Any]
"""Returns the value of a JSON text. Raises any exception if it is invalid."""


def reader_of(type: Any) -> Reader:
    """Return the function that reads JSON text as a value of this type. Raises TypeError for a type that cannot be read.

    A pydantic model, dataclass or `TypeAdapter` is validated by pydantic, any other type by msgspec.
    """
    for name in ("model_validate_json", "validate_json"):  # A model; a TypeAdapter.
        method = getattr(type, name, None)
        if callable(method):
            read: Reader = method
            return read
    validator = getattr(type, "__pydantic_validator__", None)  # A pydantic dataclass.
    if validator is not None:
        read = validator.validate_json
        return read
    if isinstance(msgspec.inspect.type_info(type), msgspec.inspect.CustomType) and not hasattr(type, "model_validate"):
        raise TypeError(UNREADABLE.format(type))
    return msgspec.json.Decoder(type, dec_hook=_nested).decode


def _nested(type: Any, value: object) -> object:
    """Convert a value inside of one that msgspec reads, such as an item of `list[Model]`."""
    validate = getattr(type, "model_validate", None)
    if validate is None:
        raise TypeError(UNREADABLE.format(type))
    return validate(value)


def typed(message: Message, read: Reader) -> TypedMessage[Any]:
    """Return the message with its validated data. Raises `PayloadMismatch`."""
    outcome = Outcome()
    with outcome:
        return TypedMessage(message, read(message.raw))
    problem = " ".join(str(outcome.error).split()) or repr(outcome.error)
    raise PayloadMismatch(message.channel, message.message_id, problem, message) from outcome.error
