"""`artcafe plans …`, and the start of a server with a file of plans."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from artcafe import config
from artcafe.cli.commands import artcafe
from artcafe.cli.terminal.exit_codes import REFUSED
from artcafe.errors import PlansInvalid
from artcafe.resources import capacity_of, open_plans
from artcafe.rules.plans import Limit
from artcafe.server import serve


def plans_file(folder: Path, **own: object) -> Path:
    numbers: dict[str, Any] = {limit.value: 10 for limit in Limit} | own
    file = folder / "plans.toml"
    lines = "\n".join(f"{name} = {json.dumps(number)}" for name, number in numbers.items())
    file.write_text(f'default = "gold"\n[plans.gold]\n[plans.gold.limits]\n{lines}\n')
    return file


def run(folder: Path, *words: str, **environ: str) -> Result:
    others = dict.fromkeys(name for name in os.environ if name.startswith("ARTCAFE_"))
    given: dict[str, str | None] = {**others, "ARTCAFE_DATA_DIR": str(folder), **environ}
    return CliRunner().invoke(artcafe, ["plans", *words], env=given)


def test_list_prints_the_limits_of_the_shipped_plans_or_of_the_file(tmp_path: Path) -> None:
    shown = json.loads(run(tmp_path, "list", "--json").stdout)
    assert [(plan["name"], plan["is_default"], plan["self_serve"]) for plan in shown] == [
        ("free", True, True),
        ("team", False, False),
        ("business", False, False),
    ]
    assert [set(plan["limits"]) for plan in shown] == [set(Limit)] * 3
    assert (shown[0]["limits"]["agents"], shown[2]["limits"]["agents"]) == (100, None)
    own = run(tmp_path, "list", ARTCAFE_PLANS_FILE=str(plans_file(tmp_path, agents=7, hops="unlimited")))
    rows = dict(line.split() for line in own.stdout.splitlines())
    assert (rows["LIMIT"], rows["agents"], rows["hops"], rows["self_serve"]) == ("gold", "7", "unlimited", "no")


def test_check_accepts_a_file_and_explains_every_fault_of_another(tmp_path: Path) -> None:
    good = run(tmp_path, "check", str(plans_file(tmp_path)))
    assert (good.exit_code, good.stdout) == (0, f"{tmp_path / 'plans.toml'}: 1 plan, no faults.\n")
    bad = run(tmp_path, "check", str(plans_file(tmp_path, hops=-1, agents="many", seats=3)))
    assert bad.exit_code == REFUSED
    for fault in (
        "plans.gold.limits.hops must not be negative",
        "plans.gold.limits.agents must be a whole",
        "gold.limits.seats is",
    ):
        assert fault in bad.stderr
    oversold = run(tmp_path, "check", str(plans_file(tmp_path, message_bytes=65_537)))
    assert oversold.exit_code == REFUSED
    assert "plans.gold.limits.message_bytes is 65537, but 65536 is the largest data" in oversold.stderr


def test_server_does_not_start_with_a_plan_that_it_cannot_keep(tmp_path: Path) -> None:
    settings = config.load({"data_dir": tmp_path / "data", "plans_file": plans_file(tmp_path, storage_bytes=2**52)}, {})
    with pytest.raises(PlansInvalid, match=r"plans\.gold.limits.storage_bytes is 4503599627370496, but"):
        asyncio.run(serve(settings, asyncio.Event(), lambda _: None, embedded=True))
    assert not (tmp_path / "data" / "nats").exists()


def test_sockets_are_those_of_all_processes_and_unknown_for_a_fleet(tmp_path: Path) -> None:
    one = capacity_of(config.load({"data_dir": tmp_path}, {}))
    two = capacity_of(config.load({"data_dir": tmp_path, "processes": 2}, {}))
    assert one.connections is not None
    assert (two.connections, two.storage_bytes) == (2 * one.connections, one.storage_bytes)
    sold = plans_file(tmp_path, connections=one.connections + 1)
    with pytest.raises(PlansInvalid, match=r"plans\.gold.limits.connections is"):
        open_plans(config.load({"data_dir": tmp_path, "plans_file": sold}, {}))
    fleet = config.load({"data_dir": tmp_path, "plans_file": sold, "nats_urls": "nats://127.0.0.1:4222"}, {})
    assert open_plans(fleet).default == "gold"
