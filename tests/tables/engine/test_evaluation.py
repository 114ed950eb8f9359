"""Details invisible to the contract suite, which tests the semantics of conditions and changes on every engine."""

from __future__ import annotations

from copy import deepcopy

import pytest

from artcafe.tables.catalog import AGENTS
from artcafe.tables.engine.evaluation import outcome
from artcafe.tables.engine.values import Item
from artcafe.tables.engine.writes import Add, Assign, Change, ItemKey, Remove, Update

OLD: Item = {"tenant_id": "ten_1", "id": "agt_1", "count": 1, "channels": {"chn_1": 1, "chn_2": 2}}


@pytest.mark.parametrize(
    "changes",
    [
        [Assign("count", 2), Remove("channels")],
        [Assign(("channels", "chn_3"), 3), Remove(("channels", "chn_1"))],
        [Add(("channels", "chn_1"), 1), Add("count", 1)],
    ],
    ids=str,
)
def test_evaluation_does_not_modify_the_previous_item(changes: list[Change]) -> None:
    old = deepcopy(OLD)
    new = outcome(Update(AGENTS, ItemKey("ten_1", "agt_1"), changes), old)
    assert old == OLD
    assert new != OLD
