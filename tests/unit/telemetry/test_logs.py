import asyncio
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from app.platform.telemetry.context import RequestContext, request_context
from app.platform.telemetry.logs import FILE_BYTES, FLUSH_SECONDS, PIPE_BYTES, AccessLog, configure_logging


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_both_kinds_of_loggers_write_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    token = request_context.set(RequestContext("one", instance="api-1"))
    logging.getLogger("standard").warning("from %s", "the library", extra={"replica": "replica-1"})
    structlog.get_logger("ours").info("from structlog", name="replica-1", rows=3)
    request_context.reset(token)
    standard, ours = lines(capsys)
    assert {"ts", "request_id", "instance"} <= set(standard)
    assert (standard["event"], standard["level"], standard["logger"]) == ("from the library", "warning", "standard")
    assert standard["replica"] == "replica-1"
    assert (ours["event"], ours["rows"], ours["name"]) == ("from structlog", 3, "replica-1")
    assert ours["request_id"] == standard["request_id"] == "one"


def test_exceptions_stay_in_their_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    for logger in (logging.getLogger("standard"), structlog.get_logger("ours")):
        try:
            raise ValueError("first\nsecond")
        except ValueError:
            logger.exception("it failed")
    for line in lines(capsys):
        assert line["level"] == "error"
        assert "ValueError: first\nsecond" in line["exception"]


def test_whatever_is_logged_can_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    structlog.get_logger().info("odd", thing=object(), keys={1: b"bytes"}, forged='\n{"level": "info"}')
    assert len(lines(capsys)) == 1


def test_the_level_holds(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning")
    logging.getLogger("standard").info("not shown")
    structlog.get_logger("ours").info("not shown")
    assert not lines(capsys)


def test_servers_log_through_it_and_their_access_logs_are_off(capsys: pytest.CaptureFixture[str]) -> None:
    access, error = logging.getLogger("uvicorn.access"), logging.getLogger("uvicorn.error")
    access.addHandler(logging.StreamHandler())
    error.addHandler(logging.StreamHandler())
    configure_logging("info")
    configure_logging("info")
    error.info("started", extra={"color_message": "\x1b[36mstarted"})
    access.info("GET /?token=secret")
    (line,) = lines(capsys)
    assert line["event"] == "started"
    assert "color_message" not in line
    assert not access.hasHandlers()


def test_the_console_format_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "console")
    structlog.get_logger().info("hello", rows=3)
    assert "hello" in capsys.readouterr().out


class Stream(io.BytesIO):
    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: Any) -> int:
        self.writes.append(bytes(data))
        return len(data)


CONTEXT = RequestContext("one", path="/things")


async def test_lines_wait_for_company_but_not_long() -> None:
    stream = Stream()
    log = AccessLog(stream=stream)
    for _ in range(3):
        log.write(CONTEXT, 200, 0.001)
    assert not stream.writes
    await asyncio.sleep(FLUSH_SECONDS * 2)
    assert len(stream.writes) == 1
    log.write(CONTEXT, 200, 0.001)
    await asyncio.sleep(FLUSH_SECONDS * 2)
    assert len(stream.writes) == 2


async def test_writes_are_whole_lines_that_a_pipe_takes_in_one_piece() -> None:
    stream = Stream()
    log = AccessLog(stream=stream)
    for _ in range(100):
        log.write(CONTEXT, 200, 0.001)
    log.flush()
    assert max(map(len, stream.writes)) <= PIPE_BYTES
    assert all(written.endswith(b"\n") for written in stream.writes)
    assert b"".join(stream.writes).count(b"\n") == 100


async def test_a_file_takes_more_at_once(tmp_path: Path) -> None:
    with (tmp_path / "log").open("ab") as stream:
        log = AccessLog(stream=stream)
        while not (written := stream.tell()):
            log.write(CONTEXT, 200, 0.001)
        log.flush()
    assert PIPE_BYTES < written <= FILE_BYTES
    lines = (tmp_path / "log").read_bytes().splitlines()
    assert all(json.loads(line)["request_id"] == "one" for line in lines)


async def test_requests_do_not_fail_for_their_log() -> None:
    class Broken(io.BytesIO):
        def write(self, data: Any) -> int:
            raise BrokenPipeError

    log = AccessLog(stream=Broken())
    log.write(CONTEXT, 200, 0.001)
    log.flush()


async def test_the_console_line_is_one_line() -> None:
    stream = Stream()
    log = AccessLog("console", stream)
    log.write(RequestContext("one", path="/a\n\x1b[31mb"), 200, 0.001)
    log.flush()
    (line,) = stream.writes
    assert line.count(b"\n") == 1
    assert b"\x1b" not in line
