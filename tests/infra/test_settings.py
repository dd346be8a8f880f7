"""Settings: from the environment and the command line, and one clear line when one is wrong."""

import os
from pathlib import Path

import pytest

from core.errors import ConfigError
from infra.settings import Settings, unknown_variables


@pytest.fixture(autouse=True)
def no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("FIRNDB_")]:
        monkeypatch.delenv(name)


def test_without_any_setting_everything_is_in_one_folder() -> None:
    settings = Settings.load()
    folder = Path("firndb-data").absolute()
    assert settings.catalog_url == f"sqlite:///{folder / 'catalog.db'}"
    assert settings.object_store_url == str(folder / "objects")
    assert settings.cache_folder == folder / "cache"
    assert settings.port_range == range(8081, 8181)
    assert settings.port_per_index


def test_an_option_wins_over_the_environment_and_both_over_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FIRNDB_PORT", "9000")
    monkeypatch.setenv("FIRNDB_HOST", "0.0.0.0")
    settings = Settings.load({"port": 9100, "host": None})
    assert (settings.port, settings.host, settings.log_level) == (9100, "0.0.0.0", "info")


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """`FIRNDB_KAFKA=` in a compose file means "no Kafka", not a broker without a name."""
    monkeypatch.setenv("FIRNDB_KAFKA", "")
    assert Settings.load().kafka is None


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("port", "80800", "must be at most 65535"),
        ("port", "http", "must be a whole number"),
        ("index_ports", "8081", "first-last"),
        ("index_ports", "9000-8000", "first-last"),
        ("index_host", "https://all.example.com", "host of its own"),
        ("index_host", "{name}.example.com", "http://"),
        ("index_host", "https://{nmae}.example.com", "{name}"),
        ("catalog", "mysql://localhost/firn", "postgresql://"),
        ("log_level", "loud", "'debug'"),
        ("flush_age_s", "0", "must be more than 0"),
        ("consistency_deadline_s", "60", "must be at most 25"),
    ],
)
def test_a_wrong_value_gives_one_line_that_names_it_and_what_would_be_right(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(f"FIRNDB_{name.upper()}", value)
    with pytest.raises(ConfigError) as raised:
        Settings.load()
    text = str(raised.value)
    assert text.startswith(f"FIRNDB_{name.upper()}={value}: ")
    assert reason in text
    assert "\n" not in text


@pytest.mark.parametrize("key", ["short", "with space", "ключ-ключ", "x" * 513, "line\nbreak"])
def test_an_api_key_that_no_header_can_carry_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ConfigError, match="printable ASCII") as raised:
        Settings.load({"api_key": key})
    assert key not in str(raised.value)


def test_an_option_that_does_not_exist_is_not_ignored() -> None:
    with pytest.raises(ConfigError, match="no setting FIRNDB_PROT"):
        Settings.load({"prot": 1})


def test_misspelt_variables_are_found() -> None:
    given = {"FIRNDB_PORT": "1", "FIRNDB_KAFKKA": "x", "PATH": "/bin"}
    assert unknown_variables(given) == ["FIRNDB_KAFKKA"]


def test_the_table_explains_every_setting_and_shows_no_secret() -> None:
    catalog = "postgresql://firn:very-secret@db/firn"
    rows = Settings.load({"s3_secret_key": "very-secret", "port": 9000, "catalog": catalog}).table()
    by_name = {row.variable: row for row in rows}
    assert (by_name["FIRNDB_PORT"].value, by_name["FIRNDB_PORT"].default) == ("9000", "8080")
    assert by_name["FIRNDB_S3_SECRET_KEY"].value == "(set)"
    assert all(row.meaning for row in rows)
    assert "very-secret" not in repr(rows)
    with pytest.raises(ConfigError) as raised:
        Settings.load({"catalog": "mysql://firn:very-secret@db/firn"})
    assert "very-secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://[::1]:8080"),
        ("db.example.com", "http://db.example.com:8080"),
    ],
)
def test_a_server_is_told_by_an_address_that_can_be_reached(host: str, url: str) -> None:
    assert Settings.load({"host": host}).url_at(8080) == url


def test_dns_names_instead_of_ports() -> None:
    settings = Settings.load({"index_host": "https://{name}-{project}.firn.example.com"})
    assert not settings.port_per_index
