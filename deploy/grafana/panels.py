"""A panel is a title, a unit, and its queries by their legend; and how Grafana wants to be told."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SOURCE = {"type": "prometheus", "uid": "prometheus"}
WIDTH, HEIGHT, COLUMNS = 8, 7, 3
OURS = 'job="headroom",instance=~"$instance"'


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    unit: str  # of Grafana: s, bytes, reqps, percentunit, short
    queries: dict[str, str]  # from a legend, which may name labels as {{label}}, to PromQL
    threshold: float | None = None  # where its alert begins
    exemplars: bool = False  # shows requests that were traced as points, each a way to its trace


@dataclass(frozen=True, slots=True)
class Board:
    uid: str
    title: str
    panels: list[Panel]


def rate(metric: str, by: str, labels: str = OURS) -> str:
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def quantile(share: float, histogram: str, by: str = "") -> str:
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', ', '.join(filter(None, ('le', by))))})"


def quantiles(histogram: str) -> dict[str, str]:
    return {f"p{round(share * 100)}": quantile(share, histogram) for share in (0.5, 0.95, 0.99)}


def as_json(board: Board) -> dict[str, Any]:
    return {
        "uid": board.uid,
        "title": board.title,
        "tags": ["headroom"],
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_instances()]},
        "panels": list(_panels(board)),
    }


def _instances() -> dict[str, Any]:
    query = 'label_values(up{job="headroom"}, instance)'
    choice = {"name": "instance", "label": "instance", "type": "query", "datasource": SOURCE, "refresh": 2}
    return {**choice, "query": query, "definition": query, "includeAll": True, "multi": True, "allValue": ".*"}


def _panels(board: Board) -> Iterator[dict[str, Any]]:
    for number, panel in enumerate(board.panels):
        row, column = divmod(number, COLUMNS)
        yield {
            "id": number + 1,
            "type": "timeseries",
            "title": panel.title,
            "datasource": SOURCE,
            "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
            "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
            "targets": [
                _target(panel, position, legend, query)
                for position, (legend, query) in enumerate(panel.queries.items())
            ],
        }


def _target(panel: Panel, position: int, legend: str, query: str) -> dict[str, Any]:
    target = {"refId": chr(ord("A") + position), "expr": query, "legendFormat": legend}
    return {**target, "exemplar": True} if panel.exemplars else target


def _defaults(panel: Panel) -> dict[str, Any]:
    found: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.threshold is not None:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": panel.threshold}]
        found["thresholds"] = {"mode": "absolute", "steps": steps}
        found["custom"] = {"thresholdsStyle": {"mode": "line"}}
    return found
