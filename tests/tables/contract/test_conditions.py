"""Each condition with each type of item, as the guard of a write and as the filter of a query."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from artcafe.tables.catalog import AGENTS
from artcafe.tables.engine.conditions import (
    Absent,
    And,
    Condition,
    Contains,
    Equals,
    Exists,
    FewerThan,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Not,
    NotEquals,
    OfKind,
    Or,
)
from artcafe.tables.engine.port import ConditionFailed, Tables
from artcafe.tables.engine.values import Item, ValueKind
from artcafe.tables.engine.writes import Assign, Check, Delete, ItemKey, Put, Update, Write

KEY = ItemKey("ten_1", "agt_1")
ITEM: Item = {
    "tenant_id": "ten_1",
    "id": "agt_1",
    "null": None,
    "yes": True,
    "one": 1,
    "half": Decimal("0.5"),
    "word": "café",
    "empty": "",
    "raw": b"\x00\xff",
    "list": [1, "a", [True]],
    "map": {"one": 1, "yes": True, "null": None, "deep": {"x": 1}},
    "words": frozenset({"a", "b"}),
    "numbers": frozenset({1, Decimal("2.5")}),
    "raws": frozenset({b"a"}),
}

TRUE: list[Condition] = [
    Exists("null"),
    Exists(("map", "null")),
    Absent("nothing"),
    Absent(("map", "nothing")),
    Absent(("word", "x")),
    Absent(("nothing", "x")),
    Equals("null", None),
    Equals("yes", True),
    Equals("one", 1),
    Equals("one", Decimal("1.0")),
    Equals("half", Decimal("0.50")),
    Equals("word", "café"),
    Equals("empty", ""),
    Equals("raw", b"\x00\xff"),
    Equals("list", [1, "a", [True]]),
    Equals("map", {"yes": True, "one": 1, "deep": {"x": 1}, "null": None}),
    Equals(("map", "deep"), {"x": 1}),
    Equals("words", frozenset({"b", "a"})),
    Equals("numbers", frozenset({Decimal("2.50"), 1})),
    NotEquals("one", 2),
    NotEquals("one", "1"),
    NotEquals("one", True),
    NotEquals("nothing", 1),
    NotEquals(("map", "nothing"), 1),
    NotEquals("list", ["a", 1, [True]]),
    Less("one", 2),
    Less("half", 1),
    Less("word", "cafë"),
    Less("raw", b"\x00\xff\x00"),
    Less(("map", "one"), Decimal("1.5")),
    LessOrEqual("one", 1),
    LessOrEqual("empty", ""),
    Greater("one", Decimal("0.99999999999999999999999999999999999999")),
    Greater("word", "caf"),
    Greater("word", "cafe"),
    GreaterOrEqual("raw", b"\x00\xff"),
    GreaterOrEqual("half", Decimal("0.5")),
    Contains("word", "fé"),
    Contains("word", ""),
    Contains("list", "a"),
    Contains("list", [True]),
    Contains("words", "a"),
    Contains("numbers", Decimal("2.5")),
    OfKind("null", ValueKind.NULL),
    OfKind("yes", ValueKind.BOOLEAN),
    OfKind("half", ValueKind.NUMBER),
    OfKind("word", ValueKind.STRING),
    OfKind("raw", ValueKind.BINARY),
    OfKind("list", ValueKind.LIST),
    OfKind(("map", "deep"), ValueKind.MAP),
    OfKind("words", ValueKind.STRINGS),
    OfKind("numbers", ValueKind.NUMBERS),
    OfKind("raws", ValueKind.BINARIES),
    FewerThan("map", 5),
    FewerThan(("map", "deep"), 2),
    Not(FewerThan("map", 4)),
    And(Exists("one")),
    And(Exists("one"), Absent("nothing"), Or(Equals("one", 2), Equals("one", 1))),
    Or(Absent("one"), Exists("one")),
    Not(And(Exists("one"), Exists("nothing"))),
    Not(Less("nothing", 1)),
]

FALSE: list[Condition] = [
    Exists("nothing"),
    Exists(("map", "nothing")),
    Exists(("list", "x")),
    Absent("null"),
    Absent(("map", "null")),
    Equals("nothing", None),
    Equals("yes", 1),
    Equals("one", True),
    Equals("one", "1"),
    Equals("word", "cafe\u0301"),
    Equals("raw", "\x00"),
    Equals("list", [True, "a", [1]]),
    Equals("list", [1, "a"]),
    Equals("map", {"one": True, "yes": 1, "null": None, "deep": {"x": 1}}),
    Equals("words", frozenset({"a"})),
    Equals("numbers", frozenset({"1", "2.5"})),
    NotEquals("null", None),
    NotEquals("numbers", frozenset({1, Decimal("2.5")})),
    Less("nothing", 1),
    Less("one", "2"),
    Less("word", b"zzzz"),
    Less("yes", 2),
    Less("null", 1),
    Less("list", 9),
    Less("one", 1),
    LessOrEqual("nothing", ""),
    LessOrEqual("one", Decimal("0.9")),
    Greater("nothing", 0),
    Greater("word", 0),
    Greater("half", Decimal("0.5")),
    GreaterOrEqual("nothing", b""),
    GreaterOrEqual("word", "dog"),
    Contains("raw", "\x00"),
    Contains("word", "x"),
    Contains("one", 1),
    Contains("list", True),
    Contains("map", "one"),
    Contains("words", "ab"),
    Contains("nothing", "a"),
    Contains("numbers", "1"),
    OfKind("nothing", ValueKind.NULL),
    OfKind("yes", ValueKind.NUMBER),
    OfKind("words", ValueKind.LIST),
    FewerThan("map", 4),
    FewerThan("map", 0),
    FewerThan("list", 9),
    FewerThan("word", 9),
    FewerThan("one", 9),
    FewerThan("nothing", 9),
    And(Exists("one"), Exists("nothing")),
    Or(Exists("nothing"), Equals("one", 2)),
    Not(Exists("one")),
    Not(NotEquals("nothing", 1)),
]

CASES = [(condition, True) for condition in TRUE] + [(condition, False) for condition in FALSE]


async def refusal(tables: Tables, write: Write) -> ConditionFailed | None:
    try:
        await tables.transact([write])
    except ConditionFailed as refused:
        return refused
    return None


@pytest.mark.parametrize(
    "guarded",
    [
        lambda condition: Check(AGENTS, KEY, condition),
        lambda condition: Put(AGENTS, ITEM, condition),
        lambda condition: Update(AGENTS, KEY, [Assign("empty", "")], condition),
        lambda condition: Delete(AGENTS, KEY, condition),
    ],
    ids=["check", "put", "update", "delete"],
)
async def test_condition_guards_a_write(tables: Tables, guarded: Callable[[Condition], Write]) -> None:
    wrong: list[Condition] = []
    for condition, true in CASES:
        await tables.put(Put(AGENTS, ITEM))
        refused = await refusal(tables, guarded(condition))
        if (refused is None) is not true or (refused is not None and refused.failed != {0: ITEM}):
            wrong.append(condition)
    assert wrong == []


async def test_condition_filters_a_query(tables: Tables) -> None:
    await tables.put(Put(AGENTS, ITEM))
    found = [(await tables.query(AGENTS, "ten_1", where=condition, consistent=True)).items for condition, _ in CASES]
    assert found == [[ITEM] if true else [] for _, true in CASES]


async def test_key_attribute_can_be_tested_in_a_write(tables: Tables) -> None:
    await tables.put(Put(AGENTS, ITEM))
    assert await refusal(tables, Check(AGENTS, KEY, Equals("id", "agt_1"))) is None
    assert await refusal(tables, Check(AGENTS, KEY, Less("id", "agt_1"))) is not None


@pytest.mark.parametrize(
    ("low", "high"), [("\ue000", "\U00010000"), ("\ud7ff", "\ue000"), ("\uffff", "\U0010ffff"), ("Z", "a"), ("a", "aa")]
)
async def test_text_is_compared_by_its_utf8_bytes(tables: Tables, low: str, high: str) -> None:
    item = {"tenant_id": "ten_1", "id": "agt_1", "word": low}
    await tables.put(Put(AGENTS, item))
    await tables.transact([Check(AGENTS, KEY, And(Less("word", high), Not(GreaterOrEqual("word", high))))])


@pytest.mark.parametrize(
    ("condition", "true"),
    [
        (Absent("id"), True),
        (Exists("id"), False),
        (Equals("name", None), False),
        (NotEquals("name", "x"), True),
        (Less("count", 10), False),
        (Not(Less("count", 10)), True),
        (OfKind("name", ValueKind.NULL), False),
    ],
    ids=str,
)
async def test_missing_item_has_no_attributes(tables: Tables, condition: Condition, true: bool) -> None:
    refused = await refusal(tables, Check(AGENTS, KEY, condition))
    assert (refused is None) is true
    assert refused is None or refused.failed == {0: None}
