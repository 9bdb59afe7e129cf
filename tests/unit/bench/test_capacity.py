"""The capacity model from saved measurements: what it plans, what it refuses, and what it prints. No load."""

import json
import re
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench import capacity, mixed
from bench.assumptions import PRICES, Assumed, Measured
from bench.fleet import USERS
from bench.processes import BenchError
from bench.usl import Curve

Capture = pytest.CaptureFixture[str]

WORKER, FLEET = Curve(420.0, 0.25, 0.0004), Curve(1_100.0, 0.004, 0.00001)
MEASURED = Measured(
    machine={"time": "2026-11-20T00:00:00Z", "cores": 2, "cpu": "a processor"},
    mix=mixed.MIX,
    rate_by_connections={n: WORKER.at(n) for n in mixed.CONNECTIONS},
    p95_ms_by_connections={n: 2_500 * n / WORKER.at(n) for n in mixed.CONNECTIONS},
    worker_us_by_workers={n: n * 1e6 / FLEET.at(n) for n in mixed.WORKERS},
    primary_us=150.0,
    replicas_us=120.0,
    redis_us=25.0,
    read_ms=4.0,
    write_ms=9.0,
    answer_bytes=9_000,
    compressed_bytes=1_800,
    worker_bytes=120_000_000,
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "capacity.json"
    path.write_text(json.dumps(asdict(MEASURED)))
    return path


def planned(measured: Measured = MEASURED, **changes: Any) -> capacity.Model:
    return capacity.model(measured, replace(Assumed.read(), **changes))


def test_more_users_take_more_of_everything() -> None:
    plans = planned().plans
    assert [plan.users for plan in plans] == list(USERS)
    assert [plan.rate for plan in plans] == [10, 100, 1_000, 10_000]
    for before, after in pairwise(plans):
        assert before.total < after.total
        assert before.instances <= after.instances
        assert before.redis_gb < after.redis_gb
        assert before.replicas <= after.replicas


def test_the_fleet_carries_its_load_within_its_share() -> None:
    found = planned()
    share = found.usable.share
    for plan in found.plans:
        assert share * found.workers.at(plan.workers) >= plan.rate
        assert plan.p95_ms <= 200
        assert plan.workers == plan.instances * 4


def test_connections_are_counted_as_the_service_counts_them() -> None:
    plan = planned().plans[-1]
    assert plan.primary_connections == plan.workers * (plan.pool + round(plan.pool / 2) + 2)
    assert plan.replica_connections == plan.workers * (plan.pool + 2)


def test_a_thousand_users_take_one_of_each() -> None:
    plan = planned().plans[0]
    assert (plan.instances, plan.primaries, plan.replicas, plan.redis) == (1, 1, 0, 1)


def test_a_fleet_that_cannot_grow_is_divided() -> None:
    steep = Curve(1_100.0, 0.05, 0.01)
    found = planned(replace(MEASURED, worker_us_by_workers={n: n * 1e6 / steep.at(n) for n in mixed.WORKERS}))
    plan = found.plans[-1]
    assert plan.fleets > 1
    assert plan.fleets * found.usable.share * found.workers.limit >= plan.rate
    assert plan.fleets == plan.primaries


def test_a_primary_beyond_the_greatest_size_is_divided() -> None:
    plan = planned(replace(MEASURED, primary_us=5_000.0)).plans[-1]
    assert plan.primaries * plan.postgres_vcpus * 0.6 * 1e6 >= plan.rate * 5_000


def test_slow_answers_lower_what_a_worker_may_do() -> None:
    slow = {n: 30 * p95 for n, p95 in MEASURED.p95_ms_by_connections.items()}
    found = planned(replace(MEASURED, p95_ms_by_connections=slow))
    assert found.usable.p95_ms <= 200
    assert found.usable.share < planned().usable.share


def test_a_target_below_a_single_answer_is_refused() -> None:
    slow = {n: 1_000 * p95 for n, p95 in MEASURED.p95_ms_by_connections.items()}
    with pytest.raises(BenchError, match="no fleet reaches"):
        planned(replace(MEASURED, p95_ms_by_connections=slow))


def test_prices_are_the_users_own() -> None:
    prices = Assumed.read()
    dear = replace(prices, instance=prices.instance | {"dollars": 2 * prices.instance["dollars"]})
    usual, doubled = (capacity.model(MEASURED, assumed).plans[-1].dollars for assumed in (prices, dear))
    assert doubled["instances"] == 2 * usual["instances"]
    assert doubled["Postgres"] == usual["Postgres"]


def test_it_prints_plans_costs_estimates_and_every_assumption(saved: Path, capsys: Capture) -> None:
    assert capacity.main(["--from", str(saved)]) == 0
    told = capsys.readouterr().out
    for expected in ("1,000,000 users", "PgBouncer", "estimate: provider queue", "7,700", "together", "holds"):
        assert expected in told
    for name in re.findall(r"^(\w+) = ", PRICES.read_text().partition("[[estimate]]")[0], re.MULTILINE):
        assert re.search(rf"\b{name}\b", told), f"{name} is assumed, and not told"
    picture = saved.with_suffix(".svg").read_text()
    assert picture.startswith("<?xml")
    assert "one worker" in picture


def test_control_measurements_off_the_law_are_not_believed(saved: Path, capsys: Capture) -> None:
    found = asdict(MEASURED)
    found["rate_by_connections"][64] *= 0.5
    saved.write_text(json.dumps(found))
    assert capacity.main(["--from", str(saved)]) == 1
    assert "believe nothing below" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rate_by_connections": 5}'])
def test_a_file_without_measurements_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "empty.json"
    path.write_text(text)
    with pytest.raises(BenchError, match=r"empty\.json"):
        Measured.read(path)


@pytest.mark.parametrize(("line", "wrong"), [("utilisation = 0.6", "utilisation = 1.5"), ("[load]", "[lead]")])
def test_a_broken_table_of_prices_is_named(tmp_path: Path, line: str, wrong: str) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(PRICES.read_text().replace(line, wrong))
    with pytest.raises(BenchError, match=r"prices\.toml"):
        Assumed.read(path)
