from __future__ import annotations

from pathlib import Path

import pytest

from artcafe.config import Settings
from artcafe.errors import PlansInvalid
from artcafe.process_group.reload import FIXED, keep_fixed, reread
from artcafe.rules.plans import Limit


def test_settings_that_processes_must_share_stay_and_others_are_taken_over() -> None:
    old = Settings(processes=2)
    new = Settings(processes=4, tables="dynamodb:eu-central-1", requests_per_s=7, log_level="debug")

    taken = keep_fixed(old, new)

    assert (taken.processes, taken.tables) == (2, None)
    assert (taken.requests_per_s, taken.log_level) == (7, "debug")


def test_another_certificate_is_taken_over_but_plain_listeners_stay_plain() -> None:
    plain, first, second = (Settings(), *(Settings(tls_cert=Path(name), tls_key=Path(name)) for name in ("a", "b")))

    assert keep_fixed(first, second).tls_cert == Path("b")
    assert keep_fixed(plain, first).tls_cert is None


def test_faulty_file_of_plans_refuses_the_restart(tmp_path: Path) -> None:
    file = tmp_path / "plans.toml"
    old = Settings(data_dir=tmp_path)
    file.write_text('default = "gold"\n[plans.free]\n')
    with pytest.raises(PlansInvalid, match="there is no"):
        reread(old, lambda: Settings(data_dir=tmp_path, plans_file=file))
    numbers = "\n".join(f"{limit} = 1" for limit in Limit)
    file.write_text(f'default = "free"\n[plans.free]\n[plans.free.limits]\n{numbers}\n')
    assert reread(old, lambda: Settings(data_dir=tmp_path, plans_file=file)).plans_file == file


def test_every_fixed_setting_exists() -> None:
    assert set(FIXED) <= set(Settings.model_fields)
