"""Random operations on an engine and on a few dictionaries: equal answers, equal tables."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from decimal import Context, Decimal
from itertools import permutations
from typing import TypeAlias

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artcafe.tables.catalog import AGENTS, TENANTS, Table
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
    Path,
)
from artcafe.tables.engine.port import ConditionFailed, ItemPage, Query, Tables
from artcafe.tables.engine.values import Unstorable, Value, ValueKind
from artcafe.tables.engine.writes import Add, Assign, AssignIfAbsent, Change, Check, Delete, ItemKey, Put, Remove, Update, Write
from tests.tables.strategies import kind, with_types

Attributes: TypeAlias = dict[str, Value]
Place: TypeAlias = tuple[Table, ItemKey]
NOTHING = object()
ROOM = Context(prec=300)


class Reference:
    """A reference implementation of DynamoDB's developer guide on dictionaries, without code shared with the engines."""

    def __init__(self) -> None:
        self.rows: dict[Place, Attributes] = {}

    def transact(self, writes: Sequence[Write]) -> list[tuple[Attributes | None, Attributes | None]]:
        before = [self.rows.get((write.table, write.key)) for write in writes]
        failed = {
            index: before[index]
            for index, write in enumerate(writes)
            if not (write.when is None or true(write.when, before[index])) or not possible(write, before[index])
        }
        if failed:
            raise ConditionFailed(failed)
        after = [made(write, old) for write, old in zip(writes, before, strict=True)]
        for write, new in zip(writes, after, strict=True):
            if new is None:
                self.rows.pop((write.table, write.key), None)
            else:
                self.rows[write.table, write.key] = new
        return list(zip(before, after, strict=True))

    def query(self, query: Query) -> ItemPage:
        keys = [key for table, key in self.rows if table is query.table and key.partition == query.partition]
        sorts = sorted((key.sort or "" for key in keys), key=str.encode, reverse=query.descending)
        if query.after is not None:
            behind = query.after.encode()
            sorts = [sort for sort in sorts if (sort.encode() < behind if query.descending else sort.encode() > behind)]
        read = [sort for sort in sorts if sort.startswith(query.prefix)][: query.limit]
        items = [self.rows[query.table, ItemKey(query.partition, sort)] for sort in read]
        passing = [item for item in items if query.where is None or true(query.where, item)]
        return ItemPage(list(passing), read[-1] if len(read) == query.limit else None)


def at(item: Attributes | None, path: Path) -> object:
    if item is None:
        return NOTHING
    if isinstance(path, str):
        return item.get(path, NOTHING)
    inner = item.get(path[0])
    return inner.get(path[1], NOTHING) if isinstance(inner, dict) else NOTHING


def true(condition: Condition, item: Attributes | None) -> bool:
    if isinstance(condition, And):
        return False not in [true(each, item) for each in condition.conditions]
    if isinstance(condition, Or):
        return True in [true(each, item) for each in condition.conditions]
    if isinstance(condition, Not):
        return not true(condition.condition, item)
    found: Value = at(item, condition.path)  # type: ignore[assignment]  # or NOTHING, compared by identity below
    there = found is not NOTHING
    if isinstance(condition, Exists | Absent):
        return there is isinstance(condition, Exists)
    if isinstance(condition, OfKind):
        return there and kind(found) is condition.kind
    if isinstance(condition, FewerThan):
        return isinstance(found, dict) and len(found) < condition.number
    if isinstance(condition, NotEquals):
        return not there or with_types(found) != with_types(condition.value)
    return there and compares(condition, found)


def compares(condition: Equals | Contains | Less | LessOrEqual | Greater | GreaterOrEqual, found: Value) -> bool:
    value = condition.value
    if isinstance(condition, Equals):
        return with_types(found) == with_types(value)
    if isinstance(condition, Contains):
        if isinstance(found, list | frozenset):
            return with_types(value) in [with_types(member) for member in found]
        return isinstance(found, str) and isinstance(value, str) and value.encode() in found.encode()
    if kind(found) is not kind(value):
        return False
    one, other = rank(found), rank(value)
    answers = {Less: one < other, LessOrEqual: one <= other, Greater: one > other, GreaterOrEqual: one >= other}
    return answers[type(condition)]


def rank(value: Value) -> tuple[bytes, Decimal]:
    if isinstance(value, str):
        return value.encode(), Decimal(0)
    if isinstance(value, bytes):
        return value, Decimal(0)
    assert isinstance(value, int | Decimal)
    return b"", Decimal(value)


def possible(write: Write, old: Attributes | None) -> bool:
    """Return whether the port performs the write; otherwise it refuses it like a false condition."""
    if not isinstance(write, Update):
        return True
    if old is None and all(isinstance(change, Remove) for change in write.changes):
        return False
    for change in write.changes:
        if isinstance(change.path, tuple) and not isinstance(at(old, change.path[0]), dict):
            return False
        if isinstance(change, Add) and at(old, change.path) is not NOTHING:
            found = at(old, change.path)
            if isinstance(found, bool) or not isinstance(found, int | Decimal):
                return False
    return True


def made(write: Write, old: Attributes | None) -> Attributes | None:
    if isinstance(write, Put):
        return dict(write.item)
    if isinstance(write, Delete):
        return None
    if isinstance(write, Check):
        return old
    new: Attributes = dict(old or {write.table.partition_key: write.key.partition})
    if write.table.sort_key is not None:
        new[write.table.sort_key] = write.key.sort
    for change in write.changes:
        place, name = new, change.path
        if isinstance(change.path, tuple):
            attribute, name = change.path
            inner = new[attribute]
            assert isinstance(inner, dict)
            place = new[attribute] = dict(inner)
        assert isinstance(name, str)
        if isinstance(change, Assign) or (isinstance(change, AssignIfAbsent) and name not in place):
            place[name] = change.value
        elif isinstance(change, Add):
            place[name] = total(place.get(name, 0), change.number)
        elif isinstance(change, Remove):
            place.pop(name, None)
    return new


def total(one: Value, other: int | Decimal) -> Value:
    assert isinstance(one, int | Decimal)
    exact = ROOM.add(Decimal(one), Decimal(other)).normalize(ROOM)
    if len(exact.as_tuple().digits) > 38:
        raise Unstorable("sum", "too many digits")
    return int(exact) if exact == exact.to_integral_value(context=ROOM) else exact


# --- random operations -----------------------------------------------------------------------------------------------

PLACES: list[Place] = [(AGENTS, ItemKey(partition, sort)) for partition in "pq" for sort in ("a", "ab", "b")]
PLACES += [(TENANTS, ItemKey(partition)) for partition in "pq"]

names = st.sampled_from(["n", "m", "s", "v"])
paths: st.SearchStrategy[Path] = names | st.tuples(st.just("m"), st.sampled_from(["x", "y"]))
few_numbers: st.SearchStrategy[int | Decimal] = st.sampled_from([-1, 0, 1, 2, Decimal("0.5"), 9 * 10**37, Decimal("1E+40")])
few_ordered: st.SearchStrategy[Value] = few_numbers | st.sampled_from(["", "a", "ab", "é", "\U00010000", b"", b"a"])
few_values: st.SearchStrategy[Value] = few_ordered | st.sampled_from(
    [
        None,
        True,
        False,
        {},
        {"x": 1},
        {"x": "a", "y": True},
        [],
        [1, "a"],
        frozenset({1}),
        frozenset({"a", "ab"}),
        frozenset({b"a"}),
    ]
)

tests: st.SearchStrategy[Condition] = (
    st.builds(Exists, paths)
    | st.builds(Absent, paths)
    | st.builds(OfKind, paths, st.sampled_from(ValueKind))
    | st.builds(FewerThan, paths, st.integers(0, 3))
    | st.builds(Equals, paths, few_values)
    | st.builds(NotEquals, paths, few_values)
    | st.builds(Contains, paths, few_values.filter(lambda value: not isinstance(value, bytes)))
    | st.builds(Less, paths, few_ordered)
    | st.builds(LessOrEqual, paths, few_ordered)
    | st.builds(Greater, paths, few_ordered)
    | st.builds(GreaterOrEqual, paths, few_ordered)
)


def several(of: Callable[..., Condition], inner: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    return st.lists(inner, min_size=1, max_size=3).map(lambda conditions: of(*conditions))


conditions: st.SearchStrategy[Condition] = st.recursive(
    tests, lambda inner: several(And, inner) | several(Or, inner) | st.builds(Not, inner), max_leaves=4
)
maybe = st.none() | conditions
changes: st.SearchStrategy[Change] = (
    st.builds(Assign, paths, few_values)
    | st.builds(AssignIfAbsent, paths, few_values)
    | st.builds(Add, paths, few_numbers)
    | st.builds(Remove, paths)
)


def without_overlap(wanted: list[Change]) -> list[Change]:
    kept: list[Change] = []
    for change in wanted:
        taken = [other.path for other in kept]
        whole_map = (
            "m" in taken
            if isinstance(change.path, tuple)
            else change.path == "m" and any(isinstance(path, tuple) for path in taken)
        )
        if change.path not in taken and not whole_map:
            kept.append(change)
    return kept


def writes_at(place: Place) -> st.SearchStrategy[Write]:
    table, key = place
    keys: Attributes = {table.partition_key: key.partition}
    if table.sort_key is not None:
        keys[table.sort_key] = key.sort
    items = st.dictionaries(names, few_values, max_size=3).map(lambda attributes: {**attributes, **keys})
    return (
        st.builds(Put, st.just(table), items, maybe)
        | st.builds(Update, st.just(table), st.just(key), st.lists(changes, min_size=1, max_size=4).map(without_overlap), maybe)
        | st.builds(Delete, st.just(table), st.just(key), maybe)
        | st.builds(Check, st.just(table), st.just(key), conditions)
    )


transactions = st.lists(st.sampled_from(PLACES), min_size=1, max_size=3, unique=True).flatmap(
    lambda places: st.tuples(*map(writes_at, places)).map(list)
)
queries = st.builds(
    Query,
    table=st.just(AGENTS),
    partition=st.sampled_from("pq"),
    prefix=st.sampled_from(["", "a", "ab"]),
    after=st.none() | st.just("ab"),
    limit=st.integers(1, 4),
    descending=st.booleans(),
    where=maybe,
)
operations: st.SearchStrategy[list[list[Write] | Query]] = st.lists(transactions | queries, max_size=30)


async def on_engine(tables: Tables, writes: list[Write]) -> list[tuple[object, object]] | None:
    """Run the writes; a single write uses its own verb, so that its answer is compared too."""
    match writes:
        case [Put() as put]:
            await tables.put(put)
        case [Update() as update]:
            return [(..., await tables.update(update))]
        case [Delete() as delete]:
            return [(await tables.delete(delete), None)]
        case _:
            await tables.transact(writes)
    return None


def typed_answer(answer: object) -> object:
    """Return an answer in which values of different types are unequal."""
    match answer:
        case ItemPage(items, following):
            return [with_types(dict(item), exact=True) for item in items], following
        case dict():
            return with_types(answer, exact=True)
        case _:
            return answer


async def agree(tables: Tables, reference: Reference, writes: list[Write]) -> None:
    expected: list[tuple[Attributes | None, Attributes | None]] | ConditionFailed | Unstorable
    answer: list[tuple[object, object]] | ConditionFailed | Unstorable | None
    try:
        expected = reference.transact(writes)
    except (ConditionFailed, Unstorable) as refused:
        expected = refused
    try:
        answer = await on_engine(tables, writes)
    except (ConditionFailed, Unstorable) as refused:
        answer = refused
    if isinstance(expected, ConditionFailed):
        assert isinstance(answer, ConditionFailed), writes
        assert {index: typed_answer(item) for index, item in answer.failed.items()} == {
            index: typed_answer(item) for index, item in expected.failed.items()
        }
    elif isinstance(expected, Unstorable):
        assert isinstance(answer, Unstorable), writes
    elif answer is not None:
        assert isinstance(answer, list), writes
        for one, other in zip(answer[0], expected[0], strict=True):
            assert one is ... or typed_answer(one) == typed_answer(other)


async def same_items(tables: Tables, reference: Reference) -> None:
    for table in (AGENTS, TENANTS):
        keys = [key for each, key in PLACES if each is table]
        items = await tables.get(table, keys, consistent=True)
        assert [typed_answer(item) for item in items] == [typed_answer(reference.rows.get((table, key))) for key in keys]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=40)
@given(todo=operations)
async def test_engine_answers_like_the_reference(tables: Tables, todo: list[list[Write] | Query]) -> None:
    reference = Reference()
    await tables.transact([Delete(table, key) for table, key in PLACES])
    for each in todo:
        if isinstance(each, Query):
            fields = {name: getattr(each, name) for name in ("prefix", "after", "limit", "descending", "where")}
            page = await tables.query(each.table, each.partition, consistent=True, **fields)
            assert typed_answer(page) == typed_answer(reference.query(each)), each
        else:
            await agree(tables, reference, each)
    await same_items(tables, reference)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=20)
@given(first=st.lists(transactions, max_size=4), together=st.lists(transactions, min_size=2, max_size=4))
async def test_concurrent_transactions_have_a_serial_result(
    tables: Tables, first: list[list[Write]], together: list[list[Write]]
) -> None:
    start = Reference()
    await tables.transact([Delete(table, key) for table, key in PLACES])
    for writes in first:
        await agree(tables, start, writes)

    async def refused(writes: list[Write]) -> type[Exception] | None:
        try:
            await tables.transact(writes)
        except (ConditionFailed, Unstorable) as refusal:
            return type(refusal)
        return None

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(refused(writes)) for writes in together]
    items = await tables.get(AGENTS, [key for table, key in PLACES if table is AGENTS], consistent=True)
    items += await tables.get(TENANTS, [key for table, key in PLACES if table is TENANTS], consistent=True)
    seen = ([task.result() for task in tasks], [typed_answer(item) for item in items])
    assert seen in [one_by_one(start, together, order) for order in permutations(range(len(together)))]


def one_by_one(start: Reference, together: list[list[Write]], order: tuple[int, ...]) -> tuple[list[object], list[object]]:
    reference = Reference()
    reference.rows = dict(start.rows)
    refusals: list[object] = [None] * len(together)
    for number in order:
        try:
            reference.transact(together[number])
        except (ConditionFailed, Unstorable) as refusal:
            refusals[number] = type(refusal)
    return refusals, [typed_answer(reference.rows.get(place)) for place in PLACES]
