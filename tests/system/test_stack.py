"""The verbs of the native stack, on a small one that these tests may break."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.support.native import NativeStack, native_stack
from tests.support.stack import POOLED

RECOVERY_SECONDS = 30
API_ROLES = {"nginx", "api", "worker", "postgres-primary", "postgres-replica", "redis"}
API_ROLES |= {"pgbouncer"} if POOLED else set()


@pytest.fixture(scope="module")
def small() -> Iterator[NativeStack]:
    with native_stack(API_INSTANCES="1", WEB_CONCURRENCY="1", POSTGRES_REPLICAS="1") as started:
        yield started


def eventually(true: Callable[[], bool]) -> None:
    end = time.monotonic() + RECOVERY_SECONDS
    while not true():
        assert time.monotonic() < end, f"not within {RECOVERY_SECONDS} s"
        time.sleep(0.1)


def is_ready(stack: NativeStack) -> bool:
    try:
        return httpx.get(f"{stack.http}/readyz", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def pids(stack: NativeStack) -> dict[str, int]:
    return {process["name"]: process["pid"] for process in stack.status()["processes"]}


def test_status_says_where_everything_is(small: NativeStack) -> None:
    status = small.status()
    assert status["urls"] == {"http": small.http, "https": small.https, "ops": small.ops}
    assert {process["role"] for process in status["processes"]} == API_ROLES
    for process in status["processes"]:
        os.kill(process["pid"], 0)
        assert is_open(process["port"]), process
    assert [(database["name"], database["role"]) for database in status["databases"]] == [
        ("primary", "primary"),
        ("replica-1", "replica"),
    ]
    assert status["redis"]["url"].startswith("redis://")
    assert (small.folder / "state" / "logs").samefile(status["logs"])


def test_the_table_names_every_process(small: NativeStack) -> None:
    table = small.must("status")
    assert all(name in table for name in pids(small))


def test_up_a_second_time_changes_nothing(small: NativeStack) -> None:
    before = pids(small)
    small.must("up")
    assert pids(small) == before


def test_up_with_another_setting_restarts_what_it_concerns(small: NativeStack) -> None:
    before = pids(small)
    changed = NativeStack(small.folder, small.settings | {"RATE_LIMIT_SCALE": "7"})
    assert "restarting api-1" in changed.must("up")
    assert {name for name, pid in pids(small).items() if pid != before[name]} == {"api-1", "worker"}
    small.must("up")


def test_up_with_other_ports_is_refused_while_it_runs(small: NativeStack) -> None:
    moved = NativeStack(small.folder, small.settings | {"HTTP_PORT": "1"})
    done = moved.run("up")
    assert done.returncode == 1
    assert "`make down` first" in done.stderr


def test_a_port_in_use_is_named_with_its_variable(small: NativeStack) -> None:
    port = small.settings["HTTP_PORT"]
    other = NativeStack(small.folder, small.settings | {"STATE_DIR": str(small.folder / "other")})
    done = other.run("up")
    assert done.returncode == 1
    assert f"port {port}" in done.stderr
    assert "HTTP_PORT" in done.stderr


def test_the_worker_sends_mail(small: NativeStack) -> None:
    person = {
        "email": "ann@example.com",
        "password": "correct horse battery",
        "full_name": "Ann",
        "organization": "Acme",
    }
    assert httpx.post(f"{small.http}/api/v1/auth/register", json=person).status_code == 201
    folder = small.folder / "state" / "mail"
    eventually(lambda: any("To: ann@example.com" in mail.read_text() for mail in folder.glob("*.eml")))


@pytest.mark.parametrize("name", ["api-1", "worker", "nginx", "redis", "postgres-replica-1", "postgres-primary"])
def test_a_program_that_is_killed_comes_back(small: NativeStack, name: str) -> None:
    before = small.pid(name)
    os.kill(before, signal.SIGKILL)
    eventually(lambda: pids(small).get(name, before) != before and is_ready(small))


def test_what_a_killed_supervisor_leaves_behind_is_cleared_away(small: NativeStack) -> None:
    ports = [process["port"] for process in small.status()["processes"]]
    os.kill(int((small.folder / "state" / "run" / "supervisord.pid").read_text()), signal.SIGKILL)
    assert is_open(ports[0])
    small.must("down")
    assert not any(is_open(port) for port in ports)
    small.must("up")
    assert is_ready(small)


def test_down_stops_all_of_it_and_up_finds_its_data_again(small: NativeStack) -> None:
    ports = [process["port"] for process in small.status()["processes"]]
    small.must("down")
    assert not any(is_open(port) for port in ports)
    assert small.run("status").returncode == 1
    small.must("down")  # harmless
    small.must("up")
    login = {"email": "demo@example.com", "password": "headroom-demo"}
    assert httpx.post(f"{small.http}/api/v1/auth/login", json=login).status_code == 200
