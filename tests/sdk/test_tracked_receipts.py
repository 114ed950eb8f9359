from __future__ import annotations

import pytest

from artcafe.sdk.messages import Receipt
from artcafe.sdk.tracked_receipts import CONNECTION_LOST, TrackedReceipt, TrackedReceipts
from artcafe.wire.receipts import ReceiptPush, Recipient

CHANNEL = "chn_1"


def push(*recipients: Recipient, open: int = 1, reason: str | None = None, queue: bool = False) -> ReceiptPush:
    return ReceiptPush(
        channel=CHANNEL,
        seq=1,
        message_id="msg_1",
        receipt="acked",
        recipients=recipients,
        open=open,
        final=reason is not None,
        reason=reason,
        queue=queue,
    )


def followed() -> tuple[TrackedReceipts, TrackedReceipt]:
    receipts, receipt = TrackedReceipts(), TrackedReceipt(Receipt(1, "msg_1", duplicate=False))
    receipts.follow(CHANNEL, receipt)
    return receipts, receipt


async def test_iteration_yields_each_change_until_the_final_push() -> None:
    receipts, receipt = followed()
    receipts.on_push(push(Recipient("agt_1", "delivered")))
    receipts.on_push(push(Recipient("agt_1", "acked"), open=0, reason="reached"))
    assert [(each.agent, each.state) async for each in receipt] == [("agt_1", "delivered"), ("agt_1", "acked")]
    assert (await receipt.wait(5)).is_reached
    assert (receipt.open, receipt.recipients["agt_1"].state) == (0, "acked")


async def test_lost_connection_ends_a_receipt_that_waits_and_no_ended_one() -> None:
    receipts, receipt = followed()
    with pytest.raises(TimeoutError):
        await receipt.wait(0.01)
    receipts.end_all()
    assert (await receipt.wait(5)).reason == CONNECTION_LOST
    assert not receipt.is_reached
    receipts.on_push(push(reason="reached", open=0))  # It belongs to no receipt any more.
    assert receipt.reason == CONNECTION_LOST


async def test_state_of_a_message_of_a_queue_replaces_the_one_before() -> None:
    receipts, receipt = followed()
    for recipient in (Recipient("agt_1", "delivered"), Recipient(None, "pending"), Recipient("agt_2", "delivered")):
        receipts.on_push(push(recipient, queue=True))
    assert receipt.outcome is not None
    assert (receipt.outcome.agent, receipt.recipients) == ("agt_2", {})
    receipts.on_push(push(Recipient(None, "dead_lettered", reason="rejected"), open=0, reason="reached", queue=True))
    told = [(each.agent, each.state, each.reason) async for each in receipt]
    assert told[1:] == [(None, "pending", None), ("agt_2", "delivered", None), (None, "dead_lettered", "rejected")]
