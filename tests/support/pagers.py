"""Who gets alerts in the tests: a server that speaks PagerDuty's Events API v2, and one that takes mail."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message as MessageHandler

from tests.support.loopback import serving


@dataclass
class Pager:
    """https://developer.pagerduty.com/docs/events-api-v2-overview"""

    url: str
    events: list[dict[str, Any]] = field(default_factory=list)

    def actions(self, alert: str) -> list[str]:
        """`trigger` and `resolve`, of the incident that this alert made, in their order."""
        keys = {event["dedup_key"] for event in self.events if alert in json.dumps(event.get("payload", {}))}
        return [event["event_action"] for event in self.events if event["dedup_key"] in keys]


@contextmanager
def pager() -> Iterator[Pager]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            event = json.loads(self.rfile.read(int(self.headers["content-length"])))
            made.events.append(event)
            self.send_response(202)
            self.end_headers()
            self.wfile.write(json.dumps({"status": "success", "dedup_key": event["dedup_key"]}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as port:
        made = Pager(f"http://127.0.0.1:{port}/v2/enqueue")
        yield made


class Letterbox(MessageHandler):
    def __init__(self) -> None:
        super().__init__()
        self.subjects: list[str] = []

    def handle_message(self, message: Message) -> None:
        self.subjects.append(str(message["subject"]))


@contextmanager
def mail(port: int) -> Iterator[Letterbox]:
    letterbox = Letterbox()
    controller = Controller(letterbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield letterbox
    finally:
        controller.stop()
