"""The address of the metrics: off, taken, chosen, public."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from artcafe import config
from artcafe.config import Settings
from artcafe.errors import SettingInvalid, StartRefused
from artcafe.resources import listening_for_metrics, metrics_url_of


def settings_of(**flags: object) -> Settings:
    return config.load(flags, {})


def test_default_is_a_loopback_address_and_off_is_none() -> None:
    assert settings_of().metrics_listen == ("127.0.0.1", 8082)
    assert settings_of(metrics_listen="off").metrics_listen is None
    assert config.load({}, {"ARTCAFE_METRICS_LISTEN": "OFF"}).metrics_listen is None
    assert settings_of(metrics_listen="[::1]:9100").metrics_listen == ("::1", 9100)


@pytest.mark.parametrize("value", ["on", "8082", "none", "127.0.0.1", "127.0.0.1:70000"])
def test_other_values_are_refused_with_the_setting(value: str) -> None:
    with pytest.raises(SettingInvalid, match="METRICS_LISTEN"):
        settings_of(metrics_listen=value)


def test_at_most_twenty_tenants_are_named() -> None:
    assert settings_of(metrics_tenants="ten_1, ten_2").metrics_tenants == ("ten_1", "ten_2")
    with pytest.raises(SettingInvalid, match="METRICS_TENANTS"):
        settings_of(metrics_tenants=",".join(f"ten_{number}" for number in range(21)))


def test_settings_of_the_metrics_survive_the_way_to_a_server_process(tmp_path: Path) -> None:
    for listen in ("off", "127.0.0.1:9100"):
        settings = settings_of(metrics_listen=listen, metrics_tenants="ten_1", data_dir=tmp_path)
        assert Settings.model_validate_json(settings.model_dump_json()) == settings


def test_off_opens_nothing() -> None:
    settings = settings_of(metrics_listen="off")
    with listening_for_metrics(settings) as listener:
        assert listener is None
        assert metrics_url_of(settings, listener) is None


def test_chosen_address_that_is_taken_is_refused_with_its_flag() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        expected = pytest.raises(StartRefused, match=f"cannot listen on {address}")
        with expected as refused, listening_for_metrics(settings_of(metrics_listen=address)):
            pytest.fail("it listens")
    assert "--metrics-listen" in refused.value.remedy


def test_url_of_an_address_for_every_interface_is_one_of_this_machine() -> None:
    settings = settings_of(metrics_listen="0.0.0.0:0")
    with capture_logs() as logs, listening_for_metrics(settings) as listener:
        assert listener is not None
        assert metrics_url_of(settings, listener) == f"http://127.0.0.1:{listener.getsockname()[1]}/metrics"
    (warning,) = logs
    assert (warning["event"], warning["log_level"], warning["address"]) == ("metrics.public", "warning", "0.0.0.0:0")


def test_loopback_address_is_not_warned_about() -> None:
    with capture_logs() as logs, listening_for_metrics(settings_of(metrics_listen="127.0.0.1:0")) as listener:
        assert listener is not None
    assert logs == []
