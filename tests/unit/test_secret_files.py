"""Settings from files, and what is never told of them."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from app.platform.security.secrets import UnreadableSecret
from app.secret_files import AmbiguousSetting
from app.settings import Settings

SECRET = "from-a-file-and-long-enough-for-production"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secret_key"
    path.write_text(SECRET + "\n")
    return path


def key_of(settings: Settings) -> str:
    return settings.secret_key.get_secret_value()


def test_a_variable_may_name_a_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY_FILE", str(file))
    assert key_of(Settings(_env_file=None)) == SECRET


def test_a_folder_may_hold_them(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file.parent / "CORS_ORIGINS").write_text("https://a.example,https://b.example\n")
    monkeypatch.setenv("SECRETS_DIR", str(file.parent))
    settings = Settings(_env_file=None)
    assert key_of(settings) == SECRET
    assert settings.cors_origins == ("https://a.example", "https://b.example")


def test_the_variable_itself_wins_over_the_folder(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRETS_DIR", str(file.parent))
    monkeypatch.setenv("SECRET_KEY", "from the environment")
    assert key_of(Settings(_env_file=None)) == "from the environment"


def test_both_are_a_mistake(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY_FILE", str(file))
    monkeypatch.setenv("SECRET_KEY", "from the environment")
    with pytest.raises(AmbiguousSetting, match="SECRET_KEY or SECRET_KEY_FILE"):
        Settings(_env_file=None)


def test_an_empty_variable_is_none(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY_FILE", str(file))
    monkeypatch.setenv("SECRET_KEY", "")
    assert key_of(Settings(_env_file=None)) == SECRET


def test_a_file_that_is_not_there_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY_FILE", str(tmp_path / "absent"))
    with pytest.raises(UnreadableSecret, match="absent"):
        Settings(_env_file=None)


def secret_settings() -> list[str]:
    return [name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)]


@pytest.mark.parametrize("name", secret_settings())
def test_no_secret_is_in_the_text_of_the_settings(name: str) -> None:
    settings = Settings(_env_file=None, **{name: "told-to-nobody"})
    value = getattr(settings, name)
    held = value if isinstance(value, tuple) else (value,)
    assert [each.get_secret_value() for each in held if isinstance(each, SecretStr)] == ["told-to-nobody"]
    for text in (repr(settings), str(settings), settings.model_dump_json(), repr(settings.model_dump())):
        assert "told-to-nobody" not in text


def test_there_are_secrets_to_look_for() -> None:
    assert {"secret_key", "database_url", "database_replica_urls", "redis_url"} <= set(secret_settings())


def test_what_is_refused_is_not_told() -> None:
    with pytest.raises(ValidationError) as raised:
        Settings(_env_file=None, database_pool_size="told-to-nobody", secret_key="told-to-nobody-either")
    assert "told-to-nobody" not in str(raised.value)


def test_nor_by_what_production_refuses() -> None:
    with pytest.raises(ValueError, match="production refuses") as raised:
        Settings(_env_file=None, environment="production", secret_key="told-to-nobody")
    assert "told-to-nobody" not in str(raised.value)
