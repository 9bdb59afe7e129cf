"""The scenario that `make load` plays, for some seconds: all of it happens, and nothing fails."""

import json
import subprocess
import sys
from pathlib import Path

from tests.support.native import ROOT, NativeStack
from tests.support.stack import free_ports

SECONDS = 5
PARTS = {"log in", "browse: a page", "browse: an item", "browse: the same item", "search", "check out", "my checkouts"}
PARTS |= {"batch: front page", "return", "log out"}


def play(host: str, reports: Path, seconds: int) -> tuple[int, dict[str, tuple[int, int]]]:
    """Locust's own verdict, and by the name of the request how many were sent and failed."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "locust", "-f", "bench/workday.py", "--headless", "--host", host),
            *("--users", "3", "--spawn-rate", "3", "--run-time", f"{seconds}s", "--stop-timeout", "20s"),
            *("--think-seconds", "0.05", "--json-file", str(reports / "load"), "--html", str(reports / "load.html")),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    figures = json.loads((reports / "load.json").read_text())
    return done.returncode, {row["name"]: (row["num_requests"], row["num_failures"]) for row in figures}


def test_a_working_day_has_no_failure(stack: NativeStack, tmp_path: Path) -> None:
    verdict, figures = play(stack.http, tmp_path, SECONDS)
    assert {name: failed for name, (_, failed) in figures.items() if failed} == {}
    assert set(figures) >= PARTS
    assert verdict == 0
    assert (tmp_path / "load.html").stat().st_size > 0


def test_control_a_day_without_a_server_fails(tmp_path: Path) -> None:
    verdict, figures = play(f"http://127.0.0.1:{free_ports(1)[0]}", tmp_path, 1)
    assert verdict == 1
    assert figures
    assert all(sent == failed > 0 for sent, failed in figures.values())
