"""`make audit-deps`: are there known vulnerabilities in what is locked? Asks PyPI's advisories, by pip-audit.

Ends with 1 for a vulnerability. Where nobody can be asked (no network, or a mirror without advisories) it says so
loudly and ends with 0, or with 2 where AUDIT_REQUIRED is set: CI may lack a network, a release may not.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from deploy.local.options import ROOT

LOCKS = ("requirements.lock", "requirements-dev.lock")
AUDIT_SECONDS = 180


class Outcome(NamedTuple):
    audited: int
    unaudited: int
    vulnerable: list[str]


def audit(lock: Path) -> Outcome | None:
    """None where pip-audit could not ask at all."""
    program = Path(sys.executable).with_name("pip-audit")
    options = ["--require-hashes", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
    try:
        done = subprocess.run(
            [str(program), "--requirement", str(lock), *options],
            capture_output=True,
            text=True,
            check=False,
            timeout=AUDIT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return None
    return outcome_of(done.stdout)


def outcome_of(output: str) -> Outcome | None:
    """Of what pip-audit wrote. It ends with 0 as well when it has skipped everything."""
    try:
        found: list[dict[str, Any]] = json.loads(output)["dependencies"]
    except (ValueError, KeyError):
        return None
    audited = [each for each in found if "skip_reason" not in each]
    vulnerable = [describe(each) for each in audited if each["vulns"]]
    return Outcome(len(audited), len(found) - len(audited), vulnerable)


def describe(dependency: Mapping[str, Any]) -> str:
    found = ", ".join(
        f"{each['id']} (fixed in {', '.join(each['fix_versions']) or 'no version'})" for each in dependency["vulns"]
    )
    return f"{dependency['name']} {dependency['version']}: {found}"


def verdict(lock: str, outcome: Outcome | None, *, required: bool) -> tuple[int, str]:
    """The exit code, and what to say."""
    if outcome is not None and outcome.vulnerable:
        return 1, "\n".join(f"VULNERABLE  {lock}: {each}" for each in outcome.vulnerable)
    if outcome is None or not outcome.audited:
        return (2 if required else 0), f"NOT AUDITED  {lock}: no advisories could be asked for. Nothing is known of it!"
    if outcome.unaudited:
        unknown = f"{outcome.unaudited} of {outcome.audited + outcome.unaudited} packages"
        return (2 if required else 0), f"NOT AUDITED  {lock}: {unknown} have no advisories to ask for"
    return 0, f"{lock}: {outcome.audited} packages, no known vulnerability"


def main() -> int:
    required = bool(os.environ.get("AUDIT_REQUIRED"))
    worst = 0
    for lock in LOCKS:
        code, told = verdict(lock, audit(ROOT / lock), required=required)
        print(told)
        worst = code if code == 1 or worst == 0 else worst
    return worst


if __name__ == "__main__":
    sys.exit(main())
