"""Root starts servers that refuse to run as root, or had better not: they run as an unprivileged user then."""

import os
import pwd
import subprocess
from functools import cache
from pathlib import Path
from typing import TypedDict

CANDIDATES = ("postgres", "nobody")


class Identity(TypedDict, total=False):
    """Keyword arguments of `subprocess.run` and `Popen`; empty where the caller stays who he is."""

    user: int
    group: int
    extra_groups: list[int]


@cache
def service_account() -> pwd.struct_passwd | None:
    """Whom servers run as when root starts them, else None."""
    if os.geteuid() != 0:
        return None
    known = {account.pw_name: account for account in pwd.getpwall()}
    return next(known[name] for name in CANDIDATES if name in known)


def service_identity() -> Identity:
    account = service_account()
    if account is None:
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def service_folder(path: Path) -> Path:
    """The folder, made where it is missing, and owned by whom the servers run as."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (account := service_account()) is not None:
        os.chown(path, account.pw_uid, account.pw_gid)
    return path


def services_can_enter(path: Path) -> bool:
    """False below a folder such as /root, which is closed to everyone else."""
    entered = subprocess.run(["test", "-x", path], cwd="/", check=False, **service_identity())
    return entered.returncode == 0
