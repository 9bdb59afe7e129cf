"""A client of the service, for what is counted by single requests."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import httpx

from bench.processes import BenchError
from bench.servers import Server

PASSWORD = "headroom-demo"
OWN_PASSWORD = "tripod-lantern-28-gravel"  # of those who register; the seed's password is too well known for that
API = "/api/v1"
LOG_SECONDS = 5.0
LOG_TAIL_BYTES = 65_536
POLL_SECONDS = 0.02
MAX_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """`bytes` of the body, `seconds` until it was there."""

    request_id: str
    json: Any
    bytes: int
    seconds: float


class Client:
    def __init__(self, server: Server, token: str) -> None:
        self.headers = {"Authorization": f"Bearer {token}"}
        self._log = server.log
        self._http = httpx.Client(base_url=server.url, headers=self.headers, timeout=30)

    @classmethod
    def logged_in(cls, server: Server, email: str, password: str = PASSWORD) -> Self:
        token = _post(server, "/auth/login", {"email": email, "password": password})["access_token"]
        return cls(server, token)

    @classmethod
    def registered(cls, server: Server, email: str) -> Self:
        """The owner of a new organization."""
        person = {"email": email, "password": OWN_PASSWORD, "full_name": "Bench", "organization": "Bench"}
        _post(server, "/auth/register", person)
        return cls.logged_in(server, email, OWN_PASSWORD)

    def get(self, path: str, **query: Any) -> Answer:
        return self._send("GET", path, params=query)

    def post(self, path: str, body: Any) -> Answer:
        return self._send("POST", path, json=body)

    def pages(self, path: str, **query: Any) -> Iterator[Answer]:
        """All pages of a list, the largest there are."""
        cursor: dict[str, str] = {}
        while True:
            page = self.get(path, limit=MAX_LIMIT, **query, **cursor)
            yield page
            if page.json["next_cursor"] is None:
                return
            cursor = {"cursor": page.json["next_cursor"]}

    def queries(self, answer: Answer) -> int:
        """As the access log has counted them; a line may wait for others before it is written."""
        end = time.monotonic() + LOG_SECONDS
        while time.monotonic() < end:
            for line in reversed(_tail(self._log).splitlines()):
                if answer.request_id.encode() in line and b'"queries"' in line:
                    return int(json.loads(line)["queries"])
            time.sleep(POLL_SECONDS)
        raise BenchError(f"request {answer.request_id} is not in the access log")

    def _send(self, method: str, path: str, **request: Any) -> Answer:
        request_id = uuid4().hex
        started = time.perf_counter()
        answer = self._http.request(method, f"{API}{path}", headers={"X-Request-ID": request_id}, **request)
        seconds = time.perf_counter() - started
        if not answer.is_success:
            raise BenchError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return Answer(request_id, answer.json(), len(answer.content), seconds)


def _post(server: Server, path: str, body: Any) -> Any:
    answer = httpx.post(f"{server.url}{API}{path}", json=body, timeout=30)
    if not answer.is_success:
        raise BenchError(f"{path}: {answer.status_code} {answer.text[:500]}")
    return answer.json()


def _tail(log: Path) -> bytes:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
        return file.read()
