"""Boards and rules as they are in the tree, without a server: complete, consistent, and about metrics that exist."""

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import REGISTRY

import app.main  # noqa: F401  (importing it declares every metric)
from deploy.grafana.boards import BOARDS, FOLDER, text
from deploy.grafana.panels import Board
from deploy.local.observe import scaled
from tests.support.alert_faults import FAULTS
from tests.support.promql import metrics_of

PROMETHEUS = Path("deploy/prometheus")
EXPORTERS = ("pg_", "redis_up", "redis_memory_", "nginx_", "node_", "up", "headroom:")


def rules() -> list[dict[str, str]]:
    files = (PROMETHEUS / "rules").glob("*.yml")
    return [rule for file in files for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[str]:
    return [rule["alert"] for rule in rules() if "alert" in rule]


def own_metrics() -> set[str]:
    names = {sample.name for family in REGISTRY.collect() for sample in family.samples}
    for family in REGISTRY.collect():  # without a label set there is no sample yet
        endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
        names |= {family.name + ending for ending in endings.get(family.type, ("",))}
    return names


def test_the_reader_of_queries_finds_the_metrics() -> None:
    query = (
        'sum by (le, handler) (rate(a_total{x="y_total"}[5m])) / on (b) group_left (c) d:e:f > 0.5 and on () vector(1)'
    )
    assert metrics_of(query) == {"a_total", "d:e:f"}


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_the_files_are_what_the_code_says(board: Board) -> None:
    assert (FOLDER / f"{board.uid}.json").read_text() == text(board), "python -m deploy.grafana writes them"
    assert {json.loads(path.read_text())["uid"] for path in FOLDER.glob("*.json")} == {known.uid for known in BOARDS}


def test_every_query_is_about_metrics_that_exist() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    queries = [rule["expr"] for rule in rules()]
    queries += [query for board in BOARDS for panel in board.panels for query in panel.queries.values()]
    asked = {name for query in queries for name in metrics_of(query)}
    ours = {name for name in asked if not name.startswith(EXPORTERS)}
    assert ours <= own_metrics()
    assert {name for name in asked if name.startswith("headroom:")} <= recorded


def test_every_alert_has_a_runbook_that_speaks_of_it() -> None:
    for rule in rules():
        if "alert" in rule:
            runbook = Path(rule["annotations"]["runbook"])  # type: ignore[index]
            assert f"`{rule['alert']}`" in runbook.read_text(), rule["alert"]


def test_every_alert_has_a_test() -> None:
    tested = re.findall(r'alertname="(\w+)"', (PROMETHEUS / "tests" / "alerts.yml").read_text())
    assert set(alerts()) == {*tested, "Watchdog"}


def test_every_alert_is_driven_for_real() -> None:
    """By tests/faults/test_alerts.py, which makes each of these fire and clear; the watchdog is never to clear."""
    assert set(alerts()) == {alert for together in FAULTS for alert in together} | {"Watchdog"}


def test_the_operators_page_shows_as_bad_what_alerts() -> None:
    told = re.search(r"HIGHEST = {(.*)}", Path("nginx/operators/limits.js").read_text())
    assert told
    limits = dict(pair.split(": ") for pair in told[1].strip().split(", "))
    ratio, latency = "headroom:error_ratio:rate5m", "headroom:latency_p95:rate5m"
    names = {"errors": ratio, "p95": latency, "lag": "lag_seconds", "use": "connections_limit", "breakers": "breaker"}
    assert limits.keys() == names.keys()
    for name, limit in limits.items():
        expressions = [" ".join(rule["expr"].split()) for rule in rules() if "alert" in rule]
        assert [one for one in expressions if names[name] in one and one.endswith(f"> {limit}")], name


def test_times_are_scaled_and_names_are_not() -> None:
    rule = "record: x:rate5m\nexpr: rate(y[5m])\nfor: 2m\nscrape_interval: 15s"
    assert scaled(rule, 0.1) == "record: x:rate5m\nexpr: rate(y[30000ms])\nfor: 12000ms\nscrape_interval: 1500ms"
    assert scaled(rule, 0.001) == "record: x:rate5m\nexpr: rate(y[1000ms])\nfor: 1000ms\nscrape_interval: 1000ms"
    assert scaled(rule, 1) == rule
