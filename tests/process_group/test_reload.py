from __future__ import annotations

from pathlib import Path

from artcafe.config import Settings
from artcafe.process_group.reload import FIXED, keep_fixed


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


def test_every_fixed_setting_exists() -> None:
    assert set(FIXED) <= set(Settings.model_fields)
