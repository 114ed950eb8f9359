from __future__ import annotations

import pytest

from artcafe.errors import IdempotencyMismatch, Invalid
from artcafe.rules.idempotency import KeyedRequest, check_repeat


def test_every_request_without_a_key_creates_a_new_id() -> None:
    request = KeyedRequest(None, "ten_a", "usr:alice", "agents")
    assert request.new_id("agt") != request.new_id("agt")
    assert request.hash("Planner") is None


def test_same_request_with_a_key_creates_the_same_id() -> None:
    assert KeyedRequest("k", "ten_a", "agents").new_id("agt") == KeyedRequest("k", "ten_a", "agents").new_id("agt")


def test_equal_keys_of_other_callers_are_other_requests() -> None:
    made = {KeyedRequest("k", *who).new_id("agt") for who in (("a", "x"), ("b", "x"), ("a", "y"), ("ax",))}
    assert len(made) == 4


def test_retry_must_have_the_same_content() -> None:
    request = KeyedRequest("k", "ten_a")
    check_repeat(request.hash("Planner", ""), request.hash("Planner", ""))
    with pytest.raises(IdempotencyMismatch):
        check_repeat(request.hash("Planner", ""), request.hash("Writer", ""))
    with pytest.raises(IdempotencyMismatch):
        check_repeat(None, request.hash("Planner", ""))
    with pytest.raises(IdempotencyMismatch):
        check_repeat(None, None)


def test_key_invalid_in_a_header_is_refused() -> None:
    with pytest.raises(Invalid):
        KeyedRequest("", "ten_a")
