"""A working day at the counter, for locust: log in, browse, search, check out, look, bring back, log out; and again.

`make load USERS=50 DURATION=1m HOST=http://127.0.0.1:8080`, or `locust -f bench/workday.py` for its web page. Everybody
has an organization of their own with 20 items, made before the first day. After a failure the day begins anew.
"""

import random
import time
from argparse import ArgumentParser
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from locust import FastHttpUser, SequentialTaskSet, events, task
from locust.exception import InterruptTaskSet

API = "/api/v1"
PASSWORD = "tripod-lantern-28-gravel"
CATEGORIES = ("camera", "lens", "light", "audio", "grip")
ITEMS = 20  # as many as a batch takes
PAGES, PAGE_ITEMS = 3, 5
CHECKOUTS = 3
LOANS_DAYS = 3
REFRESH_BEFORE_SECONDS = 60
FIELDS = "id,asset_tag,name,status"


@events.init_command_line_parser.add_listener
def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--think-seconds", type=float, default=1.0, help="between two requests, on average")


class Day(SequentialTaskSet):
    """What one person does, in this order; `self.user` is that person."""

    @task
    def log_in(self) -> None:
        self.user.join()
        self.user.log_in()

    @task
    def browse(self) -> None:
        """Some pages, an item of each, and that item once more: which is answered by 304."""
        path: str | None = f"{API}/equipment?fields={FIELDS}&limit={PAGE_ITEMS}"
        for _ in range(PAGES):
            page = self.user.get(path, "browse: a page").json()
            self.look_at(random.choice(page["items"])["id"])
            if page["next_cursor"] is None:
                return
            path = f"{API}/equipment?fields={FIELDS}&limit={PAGE_ITEMS}&cursor={page['next_cursor']}"

    def look_at(self, equipment_id: str) -> None:
        path = f"{API}/equipment/{equipment_id}?expand=current_checkout"
        tag = self.user.get(path, "browse: an item").headers["ETag"]
        self.user.get(path, "browse: the same item", headers={"If-None-Match": tag})

    @task
    def search(self) -> None:
        category = random.choice(CATEGORIES)
        found = self.user.get(f"{API}/equipment?q={category}&status=available&fields=id&limit=20", "search").json()
        self.available = [item["id"] for item in found["items"]]

    @task
    def check_out(self) -> None:
        self.open: list[str] = []
        due = datetime.now(UTC) + timedelta(days=LOANS_DAYS)
        for equipment_id in self.available[:CHECKOUTS]:
            body = {"due_at": due.isoformat(), "note": "for the day"}
            made = self.user.post(f"{API}/equipment/{equipment_id}/checkouts", body, "check out")
            self.open.append(made.json()["id"])

    @task
    def look_at_mine(self) -> None:
        """Whatever this person has just taken is in it: they read their own writes."""
        path = f"{API}/checkouts?user_id=me&status=open&limit=50"
        with self.user.client.get(
            path, name="my checkouts", headers=self.user.headers(), catch_response=True
        ) as answer:
            seen = {checkout["id"] for checkout in (answer.json() if _is_good(answer) else {}).get("items", ())}
            if _is_good(answer) and not seen >= {*self.open}:
                answer.failure("a checkout that was just made is not there")

    @task
    def front_page(self) -> None:
        urls = {
            "list": f"{API}/equipment?limit={PAGE_ITEMS}",
            "figures": f"{API}/analytics/equipment",
            "mine": f"{API}/checkouts",
        }
        parts = [{"id": name, "method": "GET", "url": url} for name, url in urls.items()]
        self.user.batch(parts, "batch: front page")

    @task
    def bring_back(self) -> None:
        for checkout_id in self.open:
            self.user.post(f"{API}/checkouts/{checkout_id}/return", {"condition": "good"}, "return")

    @task
    def log_out(self) -> None:
        self.user.log_out()


class Person(FastHttpUser):
    tasks = [Day]
    connection_timeout = network_timeout = 30.0

    def wait_time(self) -> float:
        return random.uniform(0, 2 * self.environment.parsed_options.think_seconds)

    def on_start(self) -> None:
        self.token, self.refresh_token, self.good_until = "", "", 0.0
        self.email = ""

    def join(self) -> None:
        """Once, with the items; a second time where the first has failed."""
        if self.email:
            return
        email = f"{uuid4().hex}@example.com"
        person = {"email": email, "password": PASSWORD, "full_name": "A Person", "organization": "A Rental"}
        self.post(f"{API}/auth/register", person, "(before) register")
        self._keep(self.post(f"{API}/auth/login", {"email": email, "password": PASSWORD}, "(before) log in"))
        self.batch([self._item(number) for number in range(ITEMS)], "(before) make 20 items")
        self.log_out("(before) log out")
        self.email = email

    def log_in(self) -> None:
        self._keep(self.post(f"{API}/auth/login", {"email": self.email, "password": PASSWORD}, "log in"))

    def log_out(self, name: str = "log out") -> None:
        self.post(f"{API}/auth/logout", {}, name)
        self.token, self.good_until = "", 0.0

    def get(self, path: str, name: str, headers: dict[str, str] | None = None) -> Any:
        return _answered(self.client.get(path, name=name, headers=self.headers() | (headers or {})))

    def post(self, path: str, body: Any, name: str) -> Any:
        """With a key, so that nginx may send it again: it has one effect."""
        headers = self.headers() | {"Idempotency-Key": uuid4().hex}
        return _answered(self.client.post(path, json=body, name=name, headers=headers))

    def batch(self, parts: list[dict[str, Any]], name: str) -> None:
        """A batch is 200 whatever becomes of its parts: a part that fails is a failure here."""
        with self.client.post(
            f"{API}/batch", json={"requests": parts}, name=name, headers=self.headers(), catch_response=True
        ) as answer:
            statuses = {part["status"] for part in (answer.json() if _is_good(answer) else {}).get("responses", ())}
            if _is_good(answer) and max(statuses) >= 400:
                answer.failure(f"parts answered {sorted(statuses)}")

    def headers(self) -> dict[str, str]:
        """With a token that is good for a while."""
        self._refresh()
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def _refresh(self) -> None:
        if self.token and time.monotonic() > self.good_until:
            self.good_until = float("inf")  # the refresh itself needs none
            self._keep(self.post(f"{API}/auth/refresh", {"refresh_token": self.refresh_token}, "refresh"))

    def _keep(self, answer: Any) -> None:
        tokens = answer.json()
        self.token, self.refresh_token = tokens["access_token"], tokens["refresh_token"]
        self.good_until = time.monotonic() + tokens["expires_in"] - REFRESH_BEFORE_SECONDS

    @staticmethod
    def _item(number: int) -> dict[str, Any]:
        category = CATEGORIES[number % len(CATEGORIES)]
        item = {"asset_tag": f"D-{number:03d}", "name": f"Delta {category} {number}", "category": category}
        headers = {"Idempotency-Key": uuid4().hex}
        return {"id": str(number), "method": "POST", "url": f"{API}/equipment", "headers": headers, "body": item}


def _is_good(answer: Any) -> bool:
    return 200 <= answer.status_code < 400  # 0 where nobody has answered


def _answered(answer: Any) -> Any:
    """The answer, or the end of this day where there is none to go on with: locust has counted the failure."""
    if not _is_good(answer):
        raise InterruptTaskSet(reschedule=False)
    return answer
