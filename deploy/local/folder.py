"""The one folder in which the stack keeps what it has: STATE_DIR, `.state` in the project by default."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from deploy.local.options import ROOT, StackError
from deploy.local.users import services_can_enter

# The path of a Unix socket has 107 bytes at most; supervisord's is below the folder.
LONGEST_PATH = 70


def state_path(environment: Mapping[str, str]) -> Path:
    return (ROOT / environment.get("STATE_DIR", ".state")).absolute()


def prepare(path: Path) -> Path:
    """The real folder, made where it is missing.

    It is elsewhere, and `path` a link to it, when the servers' user can't enter there (root's home is closed) or when
    the path is too long for a socket.
    """
    if not path.exists():
        path.unlink(missing_ok=True)  # a link whose target is gone
        path.mkdir(mode=0o755, parents=True)
        if len(str(path)) > LONGEST_PATH or not services_can_enter(path):
            path.rmdir()
            _make_elsewhere(path)
    return path.resolve()


def _make_elsewhere(path: Path) -> None:
    real = Path("/var/tmp") / f"headroom-{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    real.mkdir(mode=0o755, exist_ok=True)
    if real.stat().st_uid != os.geteuid():
        raise StackError(f"{real} belongs to someone else: set STATE_DIR to a folder of your own")
    path.symlink_to(real)
    print(f"{path} is a link to {real}: the servers' user can't work below {path.parent}")


def remove(path: Path) -> None:
    shutil.rmtree(path.resolve(), ignore_errors=True)
    if path.is_symlink():
        path.unlink()
