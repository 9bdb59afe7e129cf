"""`python -m migrations.lint`: squawk over the SQL of every revision, as `alembic upgrade --sql` prints it.

Needs no database. The rules, and the reasons for those left out, are in .squawk.toml.
"""

import io
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory

ROOT = Path(__file__).parents[1]


def revisions() -> list[Script]:
    """From the first one on."""
    return list(ScriptDirectory.from_config(Config(ROOT / "alembic.ini")).walk_revisions())[::-1]


def sql(revision: Script) -> str:
    printed = io.StringIO()
    config = Config(ROOT / "alembic.ini", output_buffer=printed)
    command.upgrade(config, f"{revision.down_revision or 'base'}:{revision.revision}", sql=True)
    return printed.getvalue()


def main() -> int:
    with TemporaryDirectory() as folder:
        files = [Path(folder, f"{Path(revision.path).stem}.sql") for revision in revisions()]
        for file, revision in zip(files, revisions(), strict=True):
            file.write_text(sql(revision))
        squawk = [
            str(Path(sys.executable).with_name("squawk")),
            "--config",
            str(ROOT / ".squawk.toml"),
            *map(str, files),
        ]
        return subprocess.run(squawk, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
