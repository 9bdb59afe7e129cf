"""The README's tour, pasted into bash: each command answers with the status that is written behind it."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.native import ROOT, NativeStack

TOUR_SECONDS = 60
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.DOTALL | re.MULTILINE)
STATUS = re.compile(r"  # (\d{3})$", re.MULTILINE)
# In place of curl: the same, and the status goes to a file.
CURL = """#!/bin/bash
exec {curl} "$@" --write-out "%{{stderr}}\\n<%{{http_code}}>" 2>>{statuses}
"""


def tour(stack: NativeStack) -> str:
    text = "\n".join(BLOCK.findall((ROOT / "README.md").read_text()))
    return text.replace("http://127.0.0.1:8080", stack.http).replace("http://127.0.0.1:8081", stack.ops)


def paste(commands: str, folder: Path) -> tuple[str, list[str]]:
    """What they print, and the statuses that they were answered with."""
    curl, statuses = folder / "curl", folder / "statuses"
    real = subprocess.run(["which", "curl"], check=True, capture_output=True, text=True).stdout.strip()
    curl.write_text(CURL.format(curl=real, statuses=statuses))
    curl.chmod(0o755)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=TOUR_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, re.findall(r"<(\d{3})>", statuses.read_text())


@pytest.mark.parametrize("time", ["first", "second"])
def test_the_tour(stack: NativeStack, tmp_path: Path, time: str) -> None:
    commands = tour(stack)
    printed, statuses = paste(commands, tmp_path)
    assert statuses == STATUS.findall(commands)
    assert len(statuses) == commands.count("curl -")
    assert 'rel="prev"' in printed
    assert "Idempotency-Replayed: true" in printed.replace("idempotency-replayed", "Idempotency-Replayed")
    assert "x-cache: hit" in printed
    assert '"status": "healthy"' in printed
    assert "cache_lookups_total" in printed
