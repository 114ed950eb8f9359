"""Judge the dead letters and redrives of a queue in which every delivery fails. Pure: from the histories of both channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from artcafe.sdk.records import KeptMessage


def findings(queue: Sequence[KeptMessage], letters: Sequence[KeptMessage], most: int) -> list[str]:
    """Return what contradicts the contract's sentence 9, after every message was delivered `most` times and failed.

    Each message of the queue has one letter, not before its last delivery, with its content; and each letter was sent back at
    most once, with its content.
    """
    found: list[str] = []
    by_seq, letter_by_seq = {each.seq: each for each in queue}, {each.seq: each for each in letters}
    moved = Counter(each.dead_letter.seq for each in letters if each.dead_letter is not None)
    found += [f"queue #{seq} has {times} letters" for seq, times in moved.items() if times > 1]
    found += [f"queue #{seq} has no letter" for seq in by_seq if not moved[seq]]
    for letter in letters:
        origin = letter.dead_letter
        if origin is None:
            found.append(f"letter #{letter.seq} has no origin")
            continue
        if origin.deliveries < most:
            found.append(f"letter #{letter.seq} was moved after {origin.deliveries} deliveries")
        if (message := by_seq.get(origin.seq)) is None or _content(message) != _content(letter):
            found.append(f"letter #{letter.seq} differs from queue #{origin.seq}")
    backs = [each for each in queue if each.redriven is not None]
    sent = Counter(each.redriven.seq for each in backs if each.redriven is not None)
    found += [f"letter #{seq} was sent back {times} times" for seq, times in sent.items() if times > 1]
    for back in backs:
        assert back.redriven is not None
        if (source := letter_by_seq.get(back.redriven.seq)) is None or _content(source) != _content(back):
            found.append(f"queue #{back.seq} differs from letter #{back.redriven.seq}")
    return found


def _content(message: KeptMessage) -> tuple[str, str, object]:
    return message.sender_id, message.time_text, message.data
