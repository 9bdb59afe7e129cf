"""`.env.example` is complete, and says what the defaults are."""

import re
from pathlib import Path

from dotenv import dotenv_values
from pydantic import SecretStr

from app.settings import Settings

EXAMPLE = Path(".env.example")


def test_it_lists_every_setting() -> None:
    listed = re.findall(r"^#?([A-Z_]+)=", EXAMPLE.read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(name.upper() for name in Settings.model_fields)


def test_its_values_are_the_defaults() -> None:
    values = dotenv_values(EXAMPLE)
    assert None not in values.values()
    example = Settings.model_validate({name.lower(): value for name, value in values.items()})
    default = Settings.model_construct()
    for name in values:
        assert plain(getattr(example, name.lower())) == plain(getattr(default, name.lower())), name


def plain(value: object) -> object:
    return value.get_secret_value() if isinstance(value, SecretStr) else value
