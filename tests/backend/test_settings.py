"""Settings: read once from a mapping, checked, and told apart by the name of their variable."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from heatbox.errors import SettingsError
from heatbox.settings import Settings, read_settings

LOGIN = {"HEATBOX_BASIC_AUTH_USER": "user", "HEATBOX_BASIC_AUTH_PASSWORD": "password"}  # one needs the other


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("HEATBOX_HOME", "/srv/heatbox", Path("/srv/heatbox")),
        ("HEATBOX_STORE", "/srv/models", Path("/srv/models")),
        ("HEATBOX_DATABASE_URL", "postgresql://db/heatbox", "postgresql://db/heatbox"),
        ("HEATBOX_REDIS_URL", "redis://cache:6379/1", "redis://cache:6379/1"),
        ("HEATBOX_STUDIO_URL", "https://studio.example/x", "https://studio.example/x"),
        ("HEATBOX_STUDIO_API_KEY", "secret", SecretStr("secret")),
        ("HEATBOX_BASIC_AUTH_USER", "ann", "ann"),
        ("HEATBOX_BASIC_AUTH_PASSWORD", "a:b", SecretStr("a:b")),
        ("HEATBOX_API_TOKEN", "secret", SecretStr("secret")),
        ("HEATBOX_HOST", "::1", "::1"),
        ("HEATBOX_PUBLIC_URL", "https://boxes.example", "https://boxes.example"),
        ("HEATBOX_PORT", "0", 0),
        ("HEATBOX_LOCAL_ROOTS", "/a:/b c:", (Path("/a"), Path("/b c"))),
        ("HEATBOX_PRIVATE_HOSTS", "minio:9000  10.0.0.7 [::1]:80", ("minio:9000", "10.0.0.7", "[::1]:80")),
        ("HEATBOX_CA_FILE", "/etc/own.pem", Path("/etc/own.pem")),
        ("HEATBOX_MODEL", "tiny@0123", "tiny@0123"),
        ("HEATBOX_EXPLAINER", "cam", "cam"),
        ("HEATBOX_EXPLAINER_OPTIONS", "layer=features.16  scales=1", ("layer=features.16", "scales=1")),
        ("HEATBOX_FITTER", "max_iou", "max_iou"),
        ("HEATBOX_FITTER_OPTIONS", "max_boxes=1", ("max_boxes=1",)),
        ("HEATBOX_NORMALISATION", "minmax", "minmax"),
        ("HEATBOX_MIN_MASK_IOU", "0.5", 0.5),
        ("HEATBOX_MIN_CROP_PROBABILITY", "0.2", 0.2),
        ("HEATBOX_THRESHOLD", "0.4", 0.4),
        ("HEATBOX_MIN_PROBABILITY", "0", 0.0),
        ("HEATBOX_MAX_LABELS", "7", 7),
        ("HEATBOX_PREDICT_DEADLINE", "12.5", 12.5),
        ("HEATBOX_WORKERS", "2", 2),
        ("HEATBOX_MODEL_MEMORY", "1000000", 1_000_000),
        ("HEATBOX_THREADS", "3", 3),
        ("HEATBOX_PICTURE_SECONDS", "2.5", 2.5),
        ("HEATBOX_JOB_MEMORY", "1000", 1000),
        ("HEATBOX_MAX_BYTES", "1000", 1000),
        ("HEATBOX_MAX_PIXELS", "2000", 2000),
        ("HEATBOX_MAX_SIDE", "300", 300),
        ("HEATBOX_FETCH_SECONDS", "5", 5.0),
        ("HEATBOX_CACHE_BYTES", "0", 0),
        ("HEATBOX_LOG_LEVEL", "debug", "debug"),
        ("HEATBOX_LOG_FORMAT", "json", "json"),
    ],
)
def test_each_setting_is_read_from_its_variable(variable, text, value):
    name = variable.removeprefix("HEATBOX_").lower()
    others = LOGIN if variable in LOGIN else {}
    read = read_settings({**others, variable: text})
    rest = {other.removeprefix("HEATBOX_").lower(): text for other, text in others.items()}
    assert read == Settings(**{**rest, name: value})
    assert getattr(read, name) == value != getattr(Settings(), name)


def test_the_table_above_has_every_setting():
    (table,) = (mark for mark in test_each_setting_is_read_from_its_variable.pytestmark)
    assert {f"HEATBOX_{name.upper()}" for name in Settings.model_fields} == {row[0] for row in table.args[1]}


@pytest.mark.parametrize(
    ("variable", "text", "reason"),
    [
        ("HEATBOX_PORT", "http", "unable to parse"),
        ("HEATBOX_PORT", "65536", "less than or equal to 65535"),
        ("HEATBOX_THRESHOLD", "1", "less than 1"),
        ("HEATBOX_THRESHOLD", "0", "greater than 0"),
        ("HEATBOX_THRESHOLD", "nan", "less than 1"),
        ("HEATBOX_MIN_PROBABILITY", "nan", "less than or equal to 1"),
        ("HEATBOX_PREDICT_DEADLINE", "0", "greater than 0"),
        ("HEATBOX_PREDICT_DEADLINE", "nan", "greater than 0"),
        ("HEATBOX_WORKERS", "0", "greater than or equal to 1"),
        ("HEATBOX_LOG_LEVEL", "verbose", "pattern"),
        ("HEATBOX_PRIVATE_HOSTS", "http://minio", "not HOST or HOST:PORT"),
        ("HEATBOX_PRIVATE_HOSTS", "10.0.0.0/8", "not HOST or HOST:PORT"),
        ("HEATBOX_FETCH_SECONDS", "nan", "greater than 0"),
    ],
)
def test_an_unusable_value_is_told_with_its_variable_value_reason_and_meaning(variable, text, reason):
    with pytest.raises(SettingsError, match=reason) as caught:
        read_settings({variable: text})
    assert caught.value.sentence.startswith(f"{variable} cannot be {text!r}: ")
    description = Settings.model_fields[variable.removeprefix("HEATBOX_").lower()].description
    assert caught.value.remedy == f"It is: {description}"


@pytest.mark.parametrize(
    ("variable", "hint"),
    [("HEATBOX_TRESHOLD", "Did you mean HEATBOX_THRESHOLD?"), ("HEATBOX_ZZZ", "Unset it.")],
)
def test_an_unknown_variable_counts_as_a_spelling_mistake(variable, hint):
    with pytest.raises(SettingsError) as caught:
        read_settings({variable: "1"})
    assert caught.value.sentence == f"{variable} is not a setting."
    assert caught.value.remedy.startswith(hint)


@pytest.mark.parametrize("environment", [{}, {"PATH": "/bin", "HEATBOXES": "1", "THRESHOLD": "2"}])
def test_without_variables_of_ours_the_defaults_hold(environment):
    assert read_settings(environment) == Settings()


def test_an_empty_variable_counts_as_not_set():
    names = {f"HEATBOX_{name.upper()}": "" for name in Settings.model_fields}
    assert read_settings(names) == Settings()


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({"REDIS_URL": "redis://a"}, "redis://a"),
        ({"REDIS_URL": "redis://a", "HEATBOX_REDIS_URL": "redis://b"}, "redis://b"),
        ({"REDIS_URL": ""}, ""),
    ],
)
def test_redis_url_is_understood_where_ours_is_not_set(environment, url):
    assert read_settings(environment).redis_url == url


@pytest.mark.parametrize(
    ("environment", "url", "key"),
    [
        ({"LABEL_STUDIO_URL": "http://a", "LABEL_STUDIO_API_KEY": "x"}, "http://a", "x"),
        ({"LABEL_STUDIO_URL": "http://a", "HEATBOX_STUDIO_URL": "http://b"}, "http://b", ""),
        ({"LABEL_STUDIO_API_KEY": "x", "HEATBOX_STUDIO_API_KEY": "y"}, "", "y"),
    ],
)
def test_label_studios_own_variables_are_understood_where_ours_are_not_set(environment, url, key):
    settings = read_settings(environment)
    assert (settings.studio_url, settings.studio_api_key.get_secret_value()) == (url, key)


def test_no_repr_of_the_settings_shows_the_token():
    assert "s3cret" not in repr(read_settings({"HEATBOX_STUDIO_API_KEY": "s3cret"}))


def test_the_folder_of_test_data_is_no_setting():
    assert read_settings({"HEATBOX_TEST_DATA": "/data"}) == Settings()


def test_store_and_ledger_stand_in_the_home_unless_set_apart():
    assert Settings(home="/h").store_path == Path("/h/models")
    assert Settings(home="/h").ledger_url == "sqlite:////h/ledger.sqlite"
    assert Settings(home="/h", store="/s").store_path == Path("/s")
    assert Settings(home="/h", database_url="postgresql://db").ledger_url == "postgresql://db"
