"""In processes of their own: what the allocator has learnt stays with it."""

import subprocess
import sys

BLOCK = 19 * 1024 * 1024  # as a password's hash takes
PROGRAM = f"""
import sys
from pathlib import Path
from app.platform.resilience.allocator import give_memory_back

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

if sys.argv[1] == "told":
    give_memory_back()
before = resident()
for _ in range(3):
    block = bytearray(b"x") * {BLOCK}
    del block
print(resident() - before)
"""


def kept(how: str) -> int:
    """Bytes that are left of some large blocks when all are gone."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True, timeout=60)
    return int(done.stdout)


def test_large_blocks_go_back() -> None:
    assert kept("told") < BLOCK / 4


def test_control_the_allocator_keeps_them_unless_told() -> None:
    assert kept("untold") > BLOCK / 2
