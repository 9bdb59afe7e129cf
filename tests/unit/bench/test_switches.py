"""The tables of prices and memory, from loads that are made up."""

from pathlib import Path

import pytest

from app.settings import Settings
from bench import growth, plots, switches
from bench.load import Load
from bench.memory import Memory
from bench.report import Table

WEIGHT = Memory(rss=160_000_000, pss=120_000_000)


def loads(*cpu_us: float) -> dict[str, list[Load]]:
    rounds = [Load(requests=1, rate=1, p50_ms=1, p90_ms=1, p95_ms=1, p99_ms=1, cpu_us=us) for us in cpu_us]
    return dict.fromkeys(switches.REQUESTS, rounds)


def table(**without: dict[str, list[Load]]) -> Table:
    measured = {name.replace("_", " "): (loads(100, 110), other) for name, other in without.items()}
    weights = dict.fromkeys((*measured, switches.ON), WEIGHT)
    return switches.table(measured, weights)


def test_a_price_is_with_over_without_round_by_round() -> None:
    [row, on] = table(audit=loads(50, 100)).rows
    assert row == ("without audit", *["1.55 (1.10 to 2.00)"] * len(switches.REQUESTS), "", "160", "120")
    assert on[0] == "all on"


def test_traces_are_what_the_other_service_has() -> None:
    found = switches.table({switches.TRACED: (loads(100), loads(105))}, {switches.TRACED: WEIGHT})
    assert found.rows[0][:2] == (switches.TRACED, "1.05 (1.05 to 1.05)")
    assert found.rows[0][-3] == "at most 1.10: kept"


@pytest.mark.parametrize(("cpu_us", "verdict"), [(99, "kept"), (90, "missed")])
def test_telemetry_has_a_goal(cpu_us: float, verdict: str) -> None:
    [row, _] = table(metrics_and_log_lines=loads(cpu_us, cpu_us * 1.1)).rows
    assert row[-3] == f"at most 1.03: {verdict}"


def test_every_switch_is_a_setting_and_not_the_default() -> None:
    usual = Settings(_env_file=None)
    for settings in switches.ALL_BUT.values():
        changed = Settings(_env_file=None, **{name.lower(): value for name, value in settings.items()})
        assert all(getattr(changed, name.lower()) != getattr(usual, name.lower()) for name in settings)


def test_every_switch_of_a_pattern_is_measured() -> None:
    known = {name.upper() for name in Settings.model_fields if name.endswith("_enabled")}
    assert known <= {name for settings in switches.ALL_BUT.values() for name in settings}


def sample(second: int, pss: int) -> growth.Sample:
    return float(second), pss, pss + 30_000_000


def test_growth_is_the_slope_of_the_second_half() -> None:
    filling = [sample(second, 100_000_000 + second * 1_000_000) for second in range(30)]
    steady = [sample(second, 130_000_000 + second * 10_000) for second in range(30, 60)]
    found = growth.table([*filling, *steady], requests=1)
    assert found.figures["slope_mb_per_minute"] == pytest.approx(0.6)
    assert [row[-1] for row in found.rows] == ["kept", "missed", "kept"]


def test_control_a_leak_is_told() -> None:
    leaking = [sample(second, 100_000_000 + second * 50_000) for second in range(60)]
    assert growth.table(leaking, requests=1).rows[-1][-1] == "missed"


def test_results_are_drawn(tmp_path: Path) -> None:
    throughput = Table("Throughput, of two", ("",), [], figures={"bare": [{"cpu_us": 50}], "list": [{"cpu_us": 100}]})
    plots.results(tmp_path / "a.svg", [throughput, table(audit=loads(50, 100)), Table("Else", ("",), [])])
    plots.results(tmp_path / "b.svg", [throughput, table(audit=loads(50, 100)), Table("Else", ("",), [])])
    assert "over that without it" in (tmp_path / "a.svg").read_text()
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_without_a_part_to_draw_there_is_no_picture(tmp_path: Path) -> None:
    plots.results(tmp_path / "a.svg", [Table("Else", ("",), [])])
    assert list(tmp_path.iterdir()) == []
