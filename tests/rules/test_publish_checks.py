from __future__ import annotations

import pytest
from msgspec import Raw

from artcafe.errors import Invalid, TooLarge
from artcafe.rules import fields
from artcafe.rules.publish_checks import check_publish
from artcafe.wire.frames import Publish


@pytest.mark.parametrize(
    ("publish", "field"),
    [
        (Publish("c", Raw(b"1"), key=""), "key"),
        (Publish("c", Raw(b"1"), key="é"), "key"),
        (Publish("c", Raw(b"1"), headers={"x" * 65: ""}), "headers"),
        (Publish("c", Raw(b"1"), headers={"x": "y" * 1025}), "headers.x"),
        (Publish("c", Raw(b"1"), reply_to="x" * 256), "reply_to"),
        (Publish("c", Raw(b"[" * 33 + b"]" * 33)), "data"),
    ],
)
def test_invalid_message_is_refused_with_the_name_of_its_field(publish: Publish, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_publish(publish, fields.MESSAGE_BYTES)

    assert refused.value.field == field


def test_message_of_the_maximum_size_is_valid_and_one_byte_more_is_refused() -> None:
    headers = {f"{number:064}": "v" * 1024 for number in range(32)}
    check_publish(
        Publish("c", Raw(b'"%b"' % (b"x" * (fields.MESSAGE_BYTES - 2))), "k" * 255, headers, "r" * 255), fields.MESSAGE_BYTES
    )

    with pytest.raises(TooLarge):
        check_publish(Publish("c", Raw(b'"%b"' % (b"x" * (fields.MESSAGE_BYTES - 1)))), fields.MESSAGE_BYTES)
