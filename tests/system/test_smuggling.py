"""Requests that two servers might read differently, over raw sockets: refused as a whole; nothing slips in behind."""

import json
import re
import socket

import pytest

from tests.support.native import NativeStack

PATIENCE_SECONDS = 5.0
# What an attacker would have the next server take for a request of its own.
SLIPPED_IN = b"GET /livez HTTP/1.1\r\nHost: slipped.example\r\n\r\n"
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


def request(*headers: str, body: bytes = b"", host: str = "Host: headroom.example", line: str = "") -> bytes:
    line = line or "POST /api/v1/auth/login HTTP/1.1"
    return "\r\n".join([line, *([host] if host else []), *headers, "", ""]).encode("latin-1") + body


CHUNKED = "Transfer-Encoding: chunked"
LENGTH = f"Content-Length: {len(SLIPPED_IN)}"
END = b"0\r\n\r\n"

FRAMING = {
    "length and chunks": request(LENGTH, CHUNKED, body=END + SLIPPED_IN),
    "chunks and length": request(CHUNKED, LENGTH, body=END + SLIPPED_IN),
    "two lengths": request("Content-Length: 0", LENGTH, body=SLIPPED_IN),
    "two equal lengths": request("Content-Length: 0", "Content-Length: 0", body=SLIPPED_IN),
    "a list of lengths": request(f"Content-Length: 0, {len(SLIPPED_IN)}", body=SLIPPED_IN),
    "a signed length": request("Content-Length: +0", body=SLIPPED_IN),
    "a negative length": request("Content-Length: -1", body=SLIPPED_IN),
    "a length in hexadecimal": request("Content-Length: 0x0", body=SLIPPED_IN),
    "a length beyond all bounds": request("Content-Length: 99999999999999999999", body=SLIPPED_IN),
    "a blank before the colon": request("Transfer-Encoding : chunked", LENGTH, body=END + SLIPPED_IN),
    "a blank before the name": request("X: y", " Transfer-Encoding: chunked", LENGTH, body=END + SLIPPED_IN),
    "an unknown coding": request("Transfer-Encoding: xchunked", body=END + SLIPPED_IN),
    "two codings": request("Transfer-Encoding: chunked, identity", body=END + SLIPPED_IN),
    "chunks twice": request(CHUNKED, CHUNKED, body=END + SLIPPED_IN),
    "chunks in HTTP/1.0": request(CHUNKED, line="POST / HTTP/1.0", body=END + SLIPPED_IN),
    "a size that is none": request(CHUNKED, body=b"xyz\r\n" + SLIPPED_IN),
    "a size beyond all bounds": request(CHUNKED, body=b"fffffffffffffffff\r\n" + SLIPPED_IN),
    "NUL in a header": request("X-A: a\0b", LENGTH, body=SLIPPED_IN),
    "a header without a colon": request("X-A", "\x00: y", body=SLIPPED_IN),
    "another protocol": request(line="POST / HTTP/9.9", body=SLIPPED_IN),
    "no protocol": b"GET /livez\r\n" + SLIPPED_IN,
}
HOSTS = {
    "none": request(host="", line="GET /livez HTTP/1.1"),
    "two": request("Host: other.example", line="GET /livez HTTP/1.1"),
    "empty": request(host="Host: ", line="GET /livez HTTP/1.1"),
    "with a path": request(host="Host: headroom.example/admin", line="GET /livez HTTP/1.1"),
    "with a blank": request(host="Host: headroom.example other", line="GET /livez HTTP/1.1"),
    "with a backslash": request(host="Host: headroom.example\\admin", line="GET /livez HTTP/1.1"),
    "with NUL": request(host="Host: headroom\0.example", line="GET /livez HTTP/1.1"),
}


def answers(address: tuple[str, int], sent: bytes) -> tuple[list[int], bool, bytes]:
    """The statuses that came back, whether the server closed the connection, and all that it said."""
    received = b""
    with socket.create_connection(address, timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(sent)
        try:
            while data := connection.recv(65_536):
                received += data
        except TimeoutError:
            return statuses(received), False, received
        except ConnectionResetError:
            pass
    return statuses(received), True, received


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in STATUS.findall(received)]


@pytest.fixture
def nginx(stack: NativeStack) -> tuple[str, int]:
    return "127.0.0.1", int(stack.settings["HTTP_PORT"])


@pytest.fixture
def instance(stack: NativeStack) -> tuple[str, int]:
    """Behind nginx, for whoever should get there past it."""
    return "127.0.0.1", int(stack.settings["API_BASE_PORT"]) + 1


@pytest.mark.parametrize("name", FRAMING)
def test_what_can_be_read_in_two_ways_is_refused(nginx: tuple[str, int], name: str) -> None:
    found, closed, received = answers(nginx, FRAMING[name])
    assert closed
    assert len(found) <= 1, "what was slipped in was answered"
    assert all(status in (400, 413, 501, 505) for status in found), found
    assert b"slipped.example" not in received


@pytest.mark.parametrize(
    ("sent", "status"),
    [(request("Transfer-Encoding: gzip"), 501), (request(line="POST / HTTP/9.9"), 505)],
    ids=["an unread coding", "an unknown version"],
)
def test_what_nginx_can_not_read_is_answered_by_a_problem(nginx: tuple[str, int], sent: bytes, status: int) -> None:
    _, _, received = answers(nginx, sent)
    head, _, body = received.partition(b"\r\n\r\n")
    told = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:])
    problem = json.loads(body)
    assert statuses(received) == [problem["status"]] == [status]
    assert told["content-type"] == "application/problem+json"
    assert problem["request_id"] == told["x-request-id"]


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_that_is_none_is_refused(nginx: tuple[str, int], name: str) -> None:
    found, _, received = answers(nginx, HOSTS[name].replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    assert found in ([400], [421]), received


def test_control_two_sound_requests_are_both_answered(nginx: tuple[str, int]) -> None:
    """So a request that was slipped in would be seen."""
    sound = request(line="GET /livez HTTP/1.1")
    last = request("Connection: close", line="GET /livez HTTP/1.1")
    assert answers(nginx, sound + last)[:2] == ([200, 200], True)


def test_control_a_sound_body_of_chunks_is_read(nginx: tuple[str, int]) -> None:
    body = b"2\r\n{}\r\n0\r\n\r\n"
    sent = request(CHUNKED, "Content-Type: application/json", "Connection: close", body=body)
    assert answers(nginx, sent)[0] == [422]


def test_the_host_of_an_absolute_url_counts(nginx: tuple[str, int]) -> None:
    """RFC 9112, section 3.2.2: the Host header beside it is not heeded, so nobody is told another."""
    sent = request("Connection: close", host="Host: other.example", line="GET http://headroom.example/livez HTTP/1.1")
    assert answers(nginx, sent)[0] == [200]


@pytest.mark.parametrize("name", ["length and chunks", "two lengths", "a blank before the colon", "an unknown coding"])
def test_an_instance_by_itself_refuses_it_too(instance: tuple[str, int], name: str) -> None:
    found, closed, _ = answers(instance, FRAMING[name])
    assert closed
    assert found in ([], [400])
