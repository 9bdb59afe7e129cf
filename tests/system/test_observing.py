"""Prometheus, Alertmanager and the exporters beside the native stack, and what is asked of them."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deploy.grafana.boards import BOARDS
from tests.support.collector import collector
from tests.support.exposition import Exposition
from tests.support.native import LOGIN, NativeStack, native_stack
from tests.support.promql import metrics_of

PROMETHEUS = Path("deploy/prometheus")
# With nothing to count before something has failed, or been limited.
MAY_BE_ABSENT = {"postgres_pool_waits_total", "idempotency_requests_total", "postgres_pool_timeouts_total"}
MAY_BE_ABSENT |= {"admission_refused_total", "credentials_refused_total"}
MAY_BE_ABSENT |= {"container_memory_bytes", "container_memory_limit_bytes"}  # without control groups
WAIT_SECONDS = 60


@pytest.fixture(scope="module")
def observed() -> Iterator[NativeStack]:
    scale = {"OBSERVE_TIME_SCALE": "0.05", "RATE_LIMIT_SCALE": "1000"}
    with collector() as traces:
        scale |= {"TRACES_ENDPOINT": traces.url, "TRACES_SHARE": "1"}
        with native_stack(OBSERVE="1", POSTGRES_REPLICAS="1", WEB_CONCURRENCY="1", **scale) as started:
            yield started


@pytest.fixture(scope="module")
def prometheus(observed: NativeStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=observed.status()["urls"]["prometheus"]) as client:
        yield client


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def eventually(reached: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not reached():
        assert time.monotonic() < end, what
        time.sleep(0.5)


def query(prometheus: httpx.Client, expression: str) -> list[dict[str, Any]]:
    answer = prometheus.get("/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", (expression, answer)
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def send(stack: NativeStack) -> None:
    """A little of everything."""
    with httpx.Client(base_url=f"{stack.http}/api/v1") as client:
        login = client.post("/auth/login", json=LOGIN).json()
        client.headers["Authorization"] = f"Bearer {login['access_token']}"
        for _ in range(3):
            for path in ("/equipment?limit=3", "/checkouts?limit=3", "/analytics/equipment"):
                client.get(path)
        item = {"asset_tag": f"SEEN-{time.time_ns()}", "name": "Seen", "category": "camera"}
        client.post("/equipment", json=item, headers={"Idempotency-Key": f"seen-{time.time_ns()}"})


def test_the_rules_are_sound_and_do_what_they_say() -> None:
    run("promtool", "check", "rules", *map(str, (PROMETHEUS / "rules").glob("*.yml")))
    run("promtool", "check", "config", str(PROMETHEUS / "prometheus.yml"))
    run("promtool", "test", "rules", str(PROMETHEUS / "tests" / "alerts.yml"))


def test_a_wrong_threshold_is_found(tmp_path: Path) -> None:
    """The control of the rules' own tests."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "tests").mkdir()
    for file in (*(PROMETHEUS / "rules").glob("*.yml"), *(PROMETHEUS / "tests").glob("*.yml")):
        changed = file.read_text().replace('pg_up{job="postgres"} == 0', 'pg_up{job="postgres"} < 0')
        (tmp_path / file.parent.name / file.name).write_text(changed)
    tests = str(tmp_path / "tests" / "alerts.yml")
    assert subprocess.run(["promtool", "test", "rules", tests], capture_output=True, check=False).returncode != 0


def test_the_routes_are_sound(observed: NativeStack) -> None:
    home = Path(observed.settings["STATE_DIR"]).resolve() / "observe"
    run("amtool", "check-config", str(home / "alertmanager.yml"))


def test_every_part_is_scraped(prometheus: httpx.Client) -> None:
    def all_up() -> bool:
        targets = prometheus.get("/api/v1/targets").json()["data"]["activeTargets"]
        return len(targets) == 9 and all(target["health"] == "up" for target in targets)

    eventually(all_up, "every target up")
    instances = {row["metric"]["instance"] for row in query(prometheus, 'up{job="headroom"}')}
    assert instances == {"api-1", "api-2"}
    for exporter in ("pg_up", "redis_up", "nginx_up"):
        assert {row["value"][1] for row in query(prometheus, exporter)} == {"1"}


def test_every_query_of_the_boards_and_rules_finds_its_metrics(observed: NativeStack, prometheus: httpx.Client) -> None:
    send(observed)
    files = (PROMETHEUS / "rules").glob("*.yml")
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    queries = [rule["expr"] for group in groups for rule in group["rules"]]
    queries += [panel_query for board in BOARDS for panel in board.panels for panel_query in panel.queries.values()]
    for expression in queries:
        query(prometheus, expression.replace("$__rate_interval", "1m").replace("$instance", ".*"))
    wanted = {name for expression in queries for name in metrics_of(expression)} - MAY_BE_ABSENT

    def known() -> set[str]:
        return set(prometheus.get("/api/v1/label/__name__/values").json()["data"])

    eventually(lambda: wanted <= known(), "every metric that is asked for")


def test_prometheus_counts_what_the_instances_do(observed: NativeStack, prometheus: httpx.Client) -> None:
    send(observed)
    time.sleep(0.3)
    with httpx.Client(base_url=observed.ops) as operators:
        told = Exposition(*(operators.get(f"/metrics/{name}").text for name in ("api-1", "api-2")))
    total = told.total("http_requests_total")
    eventually(
        lambda: float(query(prometheus, "sum(http_requests_total)")[0]["value"][1]) == total,
        "the same sum at Prometheus",
    )


def exemplars(prometheus: httpx.Client, handler: str) -> list[dict[str, Any]]:
    query = f'http_request_duration_seconds_bucket{{handler="{handler}"}}'
    now = time.time()
    asked = {"query": query, "start": now - 10 * WAIT_SECONDS, "end": now + WAIT_SECONDS}
    answer = prometheus.get("/api/v1/query_exemplars", params=asked).json()
    assert answer["status"] == "success", answer
    return [exemplar for series in answer["data"] for exemplar in series["exemplars"]]


def test_a_point_on_a_board_leads_to_its_request(observed: NativeStack, prometheus: httpx.Client) -> None:
    """The trace that Prometheus names with a duration is in nginx' log, with a duration that holds it."""
    send(observed)
    handler = "/api/v1/analytics/equipment"
    eventually(lambda: bool(exemplars(prometheus, handler)), "an exemplar at Prometheus")
    log = Path(observed.settings["STATE_DIR"], "logs", "nginx.log")
    for exemplar in exemplars(prometheus, handler):
        trace_id = exemplar["labels"]["trace_id"]
        [line] = [json.loads(line) for line in log.read_text().splitlines() if trace_id in line]
        assert line["path"] == handler
        assert float(exemplar["value"]) <= line["seconds"] + 0.01  # nginx looks at its clock now and then
