"""A server that speaks Sentry's ingestion protocol: https://develop.sentry.dev/sdk/foundations/envelopes/"""

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import brotli

from tests.support.loopback import serving

# The SDK takes the best that is installed.
UNPACK = {None: bytes, "gzip": gzip.decompress, "br": brotli.decompress}
KEY = "0123456789abcdef0123456789abcdef"


@dataclass
class Sentry:
    dsn: str
    events: list[dict[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # requests that a real one would not take
    raw: list[bytes] = field(default_factory=list)


def items(body: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
    """An envelope's items: each a line of JSON that says how long the payload behind it is, or that it is one line."""
    _, _, rest = body.partition(b"\n")
    while rest.strip():
        line, _, rest = rest.partition(b"\n")
        header = json.loads(line)
        length = header.get("length")
        if length is None:
            payload, _, rest = rest.partition(b"\n")
        else:
            payload, rest = rest[:length], rest[length:].removeprefix(b"\n")
        yield header, payload


@contextmanager
def sentry() -> Iterator[Sentry]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            body = UNPACK[self.headers["content-encoding"]](body)
            known = self.path == "/api/7/envelope/" and f"sentry_key={KEY}" in self.headers["x-sentry-auth"]
            if known:
                made.raw.append(body)
                made.events += [json.loads(payload) for header, payload in items(body) if header["type"] == "event"]
            else:
                made.refused.append(self.path)
            self.send_response(200 if known else 403)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as port:
        made = Sentry(f"http://{KEY}@127.0.0.1:{port}/7")
        yield made
