"""Results as SVG, the same bytes for the same results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report import Table
from bench.usl import Check, Curve

if TYPE_CHECKING:
    from bench.capacity import Model

STEPS = 200
BEYOND = 1.25  # of what was measured


def capacity(path: Path, model: "Model") -> None:
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    over_connections, over_workers, costs = figure.subplots(1, 3)
    measured = model.measured
    _law(over_connections, model.worker, measured.rate_by_connections, model.checks["connections"])
    over_connections.set(title="one worker", xlabel="connections", ylabel="req/s")
    _law(over_workers, model.workers, measured.rate_by_workers, model.checks["workers"])
    over_workers.set(title="workers with a core each", xlabel="workers", ylabel="req/s")
    _costs(costs, model)
    save(path, figure)


def results(path: Path, tables: Sequence[Table]) -> None:
    """Of a run of the benchmark: the parts that it had of throughput and of the patterns' prices, by CPU time."""
    drawn = [(draw, table) for table in tables for key, draw in DRAWN.items() if table.title.startswith(key)]
    if not drawn:
        return
    figure = Figure(figsize=(6.5 * len(drawn), 5), layout="constrained")
    for axes, (draw, table) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        draw(axes, table)
    save(path, figure)


def _throughput(axes: Axes, table: Table) -> None:
    loads = table.figures
    base = next(iter(loads.values()))
    found = {name: median(_inverse(base, own)) for name, own in loads.items()}
    axes.barh(list(found), list(found.values()), color="tab:blue")
    axes.invert_yaxis()
    axes.set(title="requests per CPU second, × bare endpoint", xscale="log")


def _inverse(base: Sequence[Mapping[str, float]], own: Sequence[Mapping[str, float]]) -> list[float]:
    return [a["cpu_us"] / b["cpu_us"] for a, b in zip(base, own, strict=True)]


def _prices(axes: Axes, table: Table) -> None:
    found = table.figures["ratios"]
    requests = list(next(iter(found.values())))
    for place, request in enumerate(requests):
        heights = [number + 0.27 * (place - 1) for number in range(len(found))]
        axes.barh(heights, [median(own[request]) for own in found.values()], height=0.25, label=request)
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(title="CPU time per request with it, over that without it", xscale="log")
    axes.legend()


DRAWN = {"Throughput": _throughput, "What each pattern costs": _prices}


def save(path: Path, figure: Figure) -> None:
    with mpl.rc_context({"svg.hashsalt": "headroom", "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def _law(axes: Axes, curve: Curve, points: Mapping[int, float], check: Check) -> None:
    most = max(points) * BEYOND
    numbers = [1 + (most - 1) * step / STEPS for step in range(STEPS + 1)]
    axes.plot(numbers, [curve.at(n) for n in numbers], color="tab:blue", label="the law, of all points")
    axes.scatter(list(points), list(points.values()), color="black", zorder=3, label="measured")
    axes.scatter([check.n], [check.predicted], marker="x", color="tab:red", zorder=4, label="foretold without it")
    axes.set_ylim(bottom=0)
    axes.legend()


def _costs(axes: Axes, model: "Model") -> None:
    users = [plan.users for plan in model.plans]
    axes.plot(users, [plan.total for plan in model.plans], marker="o", label="this model, example prices")
    for by in dict.fromkeys(estimate["by"] for estimate in model.assumed.estimate):
        own = [estimate for estimate in model.assumed.estimate if estimate["by"] == by]
        middles = [sum(estimate["dollars"]) / 2 for estimate in own]
        axes.plot([estimate["users"] for estimate in own], middles, marker="s", linestyle=":", label=f"estimate: {by}")
    axes.set(title="dollars a month", xlabel="users", xscale="log", yscale="log")
    axes.legend(fontsize="small")
