"""Results as SVG, the same bytes for the same results."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
