"""Settings from files: `NAME_FILE` names one, and in the folder `SECRETS_DIR` a file has the name of its setting.

That is how Docker, Kubernetes, systemd and secret managers hand secrets over. A variable of the setting's own name wins
over the folder; to give both NAME and NAME_FILE is a mistake.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from app.platform.security.secrets import read_secret

FOLDER = "SECRETS_DIR"


class AmbiguousSetting(ValueError):
    """Both NAME and NAME_FILE are set."""


def secret_files(names: Iterable[str], environment: Mapping[str, str]) -> dict[str, Path]:
    """The files that settings come from, by the setting. Raises `AmbiguousSetting`."""
    folder = environment.get(FOLDER)
    found: dict[str, Path] = {}
    for name in names:
        variable = name.upper()
        file, given = environment.get(f"{variable}_FILE"), environment.get(variable)
        if file and given:
            raise AmbiguousSetting(f"set {variable} or {variable}_FILE, not both")
        if file:
            found[name] = Path(file)
        elif folder and not given and (path := _in_folder(Path(folder), name)) is not None:
            found[name] = path
    return found


def _in_folder(folder: Path, name: str) -> Path | None:
    """`secret_key` or `SECRET_KEY`, whichever is there."""
    return next((path for path in (folder / name, folder / name.upper()) if path.is_file()), None)


class FileSource(PydanticBaseSettingsSource):
    def __init__(self, settings_class: type[BaseSettings]) -> None:
        super().__init__(settings_class)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False  # all are read at once

    def __call__(self) -> dict[str, Any]:
        files = secret_files(self.settings_cls.model_fields, os.environ)
        return {name: read_secret(path) for name, path in files.items()}
