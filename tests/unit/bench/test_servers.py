from pathlib import Path

import pytest

from bench.servers import Server

LINES = '{"event":"request","status":503}\n{"event":"request","status":201}\n'


@pytest.mark.parametrize(("log", "told"), [(LINES, '{"event":"request","status":503}'), ("", "")])
def test_the_last_refusal_is_told(tmp_path: Path, log: str, told: str) -> None:
    path = tmp_path / "log"
    path.write_text(log)
    assert Server("one", "http://127.0.0.1:1", 1, path).last_refusal() == told
