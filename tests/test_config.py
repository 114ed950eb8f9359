from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.config import CLIENT_VARIABLES, Address, Settings, load
from artcafe.errors import SettingInvalid


def test_defaults_listen_on_loopback() -> None:
    settings = load({}, {})

    assert settings == Settings()
    assert (str(settings.listen), str(settings.gateway_listen)) == ("127.0.0.1:8080", "127.0.0.1:8081")
    assert settings.tables_file == settings.data_dir / "tables.sqlite"
    assert settings.secret_path == settings.data_dir / "secret"


def test_flag_overrides_variable_and_variable_overrides_file(tmp_path: Path) -> None:
    file = tmp_path / "artcafe.toml"
    file.write_text('listen = "127.0.0.1:1"\ngateway_listen = "127.0.0.1:1"\nlog_level = "debug"\nENVIRONMENT = "dev"\n')
    environ = {"ARTCAFE_CONFIG": str(file), "ARTCAFE_LISTEN": "127.0.0.1:2", "ARTCAFE_GATEWAY_LISTEN": "127.0.0.1:2"}

    settings = load({"listen": "127.0.0.1:3", "data_dir": None}, environ)

    assert (settings.listen.port, settings.gateway_listen.port, settings.log_level) == (3, 2, "debug")
    assert settings.environment == "dev"
    assert load({}, {}, file).listen.port == 1


def test_lists_paths_and_tables_are_parsed_from_text() -> None:
    environ = {
        "ARTCAFE_NATS_URLS": "nats://a:4222, nats://b:4222,",
        "ARTCAFE_TABLES": "sqlite:/x/y.db",
        "ARTCAFE_SECRET_FILE": "/s",
    }
    settings = load({}, environ)

    assert settings.nats_urls == ("nats://a:4222", "nats://b:4222")
    assert (settings.tables_file, settings.secret_path) == (Path("/x/y.db"), Path("/s"))


def test_dynamodb_tables_take_a_region_and_an_optional_endpoint_and_a_longer_cursor_interval() -> None:
    settings = load({}, {"ARTCAFE_TABLES": "dynamodb:us-east-1", "ARTCAFE_DYNAMODB_ENDPOINT": "http://127.0.0.1:8000"})

    assert (settings.tables_location, settings.dynamodb_endpoint) == ("dynamodb:us-east-1", "http://127.0.0.1:8000")
    assert (settings.cursor_seconds, Settings().cursor_seconds) == (60, 5)
    assert Settings(tables="dynamodb:us-east-1", cursor_write_s=1).cursor_seconds == 1
    with pytest.raises(SettingInvalid, match="it is dynamodb:us-east-1, but this requires tables in a file"):
        _ = settings.tables_file


def test_variables_of_commands_and_tests_are_ignored() -> None:
    environ = dict.fromkeys([*CLIENT_VARIABLES - {"ARTCAFE_CONFIG"}, "ARTCAFE_TEST_DYNAMODB_ENDPOINT", "HOME"], "x")

    assert load({}, environ) == Settings()


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("ARTCAFE_LISTN", "127.0.0.1:1", ["LISTN", "there is no such setting", "GATEWAY_LISTEN"]),
        ("ARTCAFE_LISTEN", "8080", ["LISTEN", "HOST:PORT", "'8080'", "The address of the REST listener"]),
        ("ARTCAFE_LISTEN", ":8080", ["HOST:PORT"]),
        ("ARTCAFE_LISTEN", "localhost:65536", ["HOST:PORT"]),
        ("ARTCAFE_LISTEN", "localhost:²", ["HOST:PORT"]),
        ("ARTCAFE_TRUSTED_PROXIES", "10.0.0.1/8", ["TRUSTED_PROXIES: must be networks, such as 10.0.0.0/8", "host bits set"]),
        ("ARTCAFE_TABLES", "mysql:x", ["TABLES", "'mysql:x'", "dynamodb:REGION"]),
        ("ARTCAFE_TABLES", "dynamodb:", ["TABLES", "dynamodb:eu-central-1"]),
        ("ARTCAFE_TABLES", "dynamodb:EU", ["TABLES", "dynamodb:eu-central-1"]),
        ("ARTCAFE_DYNAMODB_ENDPOINT", "http://127.0.0.1:8000", ["DYNAMODB_ENDPOINT", "TABLES is not dynamodb:REGION"]),
        ("ARTCAFE_DYNAMODB_ENDPOINT", "127.0.0.1:8000", ["DYNAMODB_ENDPOINT", "'127.0.0.1:8000'"]),
        ("ARTCAFE_ISSUER", "https://id.example:99999", ["ISSUER", "must be a URL", "port out of range"]),
        ("ARTCAFE_DATA_DIR", "data-\udcff", ["DATA_DIR", "must be a path in UTF-8"]),
        ("ARTCAFE_ENVIRONMENT", "staging", ["ENVIRONMENT", "'prod' or 'dev'"]),
        ("ARTCAFE_CONSOLE_SCOPE", "email profile", ["CONSOLE_SCOPE", "must contain openid", "'email profile'"]),
        ("ARTCAFE_CONSOLE_SCOPE", "openid,email", ["CONSOLE_SCOPE", "must contain openid"]),
        ("ARTCAFE_CONSOLE_SCOPE", "openid  email", ["CONSOLE_SCOPE", "one space between them"]),
        ("ARTCAFE_CONSOLE_SCOPE", "openid email\n", ["CONSOLE_SCOPE", "one space between them"]),
        ("ARTCAFE_CONSOLE_SCOPE", 'openid "email"', ["CONSOLE_SCOPE", "without quotes"]),
        ("ARTCAFE_CONSOLE_SCOPE", "openid é", ["CONSOLE_SCOPE", "one space between them"]),
        ("ARTCAFE_CONSOLE_SCOPE", "openid " + "s" * 1000, ["CONSOLE_SCOPE", "1000 characters"]),
        ("ARTCAFE_CURSOR_WRITE_S", "0", ["CURSOR_WRITE_S", "0.1"]),
        ("ARTCAFE_CURSOR_WRITE_S", "nan", ["CURSOR_WRITE_S"]),
    ],
)
def test_unknown_or_invalid_setting_is_named_with_its_expected_value(variable: str, value: str, words: list[str]) -> None:
    with pytest.raises(SettingInvalid) as refused:
        load({}, {variable: value})

    assert [word for word in words if word not in str(refused.value)] == []


def test_console_scope_takes_every_character_of_rfc_6749() -> None:
    assert Settings().console_scope == "openid email"
    value = "openid offline_access api://4f0c/access https://cafe.example.com/use !#[]~"
    assert load({}, {"ARTCAFE_CONSOLE_SCOPE": value}).console_scope == value


def test_empty_variable_counts_as_absent() -> None:
    assert load({}, {f"ARTCAFE_{name.upper()}": "" for name in Settings.model_fields}) == Settings()


def test_invalid_port_is_refused_in_every_url() -> None:
    given = {"ARTCAFE_TABLES": "dynamodb:us-east-1", "ARTCAFE_DYNAMODB_ENDPOINT": "http://127.0.0.1:99999"}
    with pytest.raises(SettingInvalid, match="DYNAMODB_ENDPOINT: must be a URL: port out of range"):
        load({}, given)


@pytest.mark.parametrize("content", [b"listen = ", b"\xff\xfe", None])
def test_unreadable_settings_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "artcafe.toml"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(SettingInvalid, match=r"artcafe\.toml cannot be read as TOML"):
        load({}, {"ARTCAFE_CONFIG": str(file)})


@given(st.sampled_from(["127.0.0.1", "localhost", "::1", "0.0.0.0", "artcafe.example"]), st.integers(0, 65535))
def test_address_round_trips_through_text(host: str, port: int) -> None:
    address = Address(host, port)

    assert load({"listen": str(address)}, {}).listen == address
    assert address.is_loopback is (host in {"127.0.0.1", "localhost", "::1"})


def test_operators_are_user_ids_and_nobody_by_default(tmp_path: Path) -> None:
    assert load({}, {}).operators == ()
    assert load({}, {"ARTCAFE_OPERATORS": "olga@localhost, auth0|5f7c"}).operators == ("olga@localhost", "auth0|5f7c")
    file = tmp_path / "artcafe.toml"
    file.write_text('operators = ["a, with a comma", "b"]')
    assert load({}, {}, file).operators == ("a, with a comma", "b")


@pytest.mark.parametrize("value", ["x" * 256, "tab\tin it", ",".join(map(str, range(101)))])
def test_invalid_operators_stop_the_start(value: str) -> None:
    with pytest.raises(SettingInvalid, match="OPERATORS"):
        load({}, {"ARTCAFE_OPERATORS": value})
