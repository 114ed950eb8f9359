"""The settings of `queue` channels: their bounds, and the pause before a message is delivered again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from artcafe.errors import Invalid
from artcafe.model import QueueSettings

MAX_ACK_WAIT_S: Final = 12 * 3600
MAX_BACK_OFF: Final = 16
"""Entries of `back_off`."""
MAX_BACK_OFF_S: Final = 24 * 3600
MAX_DELIVERIES: Final = 1000


class QueueChange(msgspec.Struct, frozen=True, kw_only=True):
    """New values of a queue's settings; None leaves one as it is."""

    ack_wait_s: int | None = None
    back_off: Sequence[int] | None = None
    max_deliveries: int | None = None
    key_ordered: bool | None = None

    @property
    def given(self) -> dict[str, int | bool | Sequence[int]]:
        """The new values by their names in `QueueSettings`."""
        return {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}

    def apply_to(self, settings: QueueSettings) -> QueueSettings:
        """Return the settings with these changes. Raises Invalid, naming the field and its bounds."""
        if self.ack_wait_s is not None:
            _check(self.ack_wait_s, "ack_wait_s", 1, MAX_ACK_WAIT_S)
        if self.max_deliveries is not None:
            _check(self.max_deliveries, "max_deliveries", 1, MAX_DELIVERIES)
        pauses = self.back_off or ()
        if len(pauses) > MAX_BACK_OFF:
            raise Invalid("back_off", f"must be at most {MAX_BACK_OFF} numbers of seconds; these are {len(pauses)}")
        for at, seconds in enumerate(pauses):
            _check(seconds, f"back_off[{at}]", 0, MAX_BACK_OFF_S)
        return msgspec.structs.replace(settings, **{**self.given, "back_off": self._pauses(settings)})

    def _pauses(self, settings: QueueSettings) -> tuple[int, ...]:
        return settings.back_off if self.back_off is None else tuple(self.back_off)


UNCHANGED: Final = QueueChange()


def pause_after(settings: QueueSettings, deliveries: int) -> int:
    """Return the seconds to wait after the delivery of this number failed, counted from 1."""
    pauses = settings.back_off
    return pauses[min(deliveries, len(pauses)) - 1] if pauses else 0


def _check(number: int, field: str, least: int, most: int) -> None:
    if not least <= number <= most:
        raise Invalid(field, f"must be from {least} to {most}; this is {number}")
