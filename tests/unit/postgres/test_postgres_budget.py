"""The arithmetic of connections, and what a statement says about where it comes from."""

import pytest

from app.platform.postgres.budget import (
    Capacity,
    ConnectionBudgetExceeded,
    Fleet,
    check_budget,
    primary_pools,
    replica_pools,
)
from app.platform.postgres.labels import request_name, route_comment
from app.platform.postgres.options import DatabaseOptions
from app.platform.postgres.transaction import TransactionLimits
from app.platform.resilience.deadlines import deadline
from app.platform.telemetry.context import UNMATCHED_ROUTE, RequestContext, request_context

CAPACITY = Capacity("primary", max_connections=100, reserved=3)
OPTIONS = DatabaseOptions("url", replica_urls=("url",), pool_size=10, pool_overflow=5)


def test_a_budget_that_just_fits() -> None:
    assert primary_pools(OPTIONS) == (15, 5)
    check_budget(Fleet(2, 2), primary_pools(OPTIONS), CAPACITY)  # 2 x 2 x (15 + 5 + 2) = 88


def test_one_process_too_many() -> None:
    with pytest.raises(ConnectionBudgetExceeded, match=r"5 instances x 1 workers x \(15 \+ 5 \+ 2\) connections = 110"):
        check_budget(Fleet(5, 1), primary_pools(OPTIONS), CAPACITY)


def test_a_replica_needs_one_pool() -> None:
    assert replica_pools(OPTIONS) == (15,)


def test_without_replicas_the_primary_reads_with_a_full_pool() -> None:
    assert primary_pools(DatabaseOptions("url", pool_size=10, pool_overflow=5)) == (15, 15)


def test_a_comment_holds_the_route_and_can_not_be_left() -> None:
    assert route_comment("/api/v1/equipment/{id}") == "/* /api/v1/equipment/{id} */ "
    assert route_comment("/x*/; DROP TABLE y; /*") == "/* /x/DROPTABLEy/ */ "
    assert route_comment(UNMATCHED_ROUTE) == ""


def test_a_request_is_named_by_its_trace_within_what_postgres_keeps() -> None:
    assert request_name("api-1", RequestContext("abc")) == "api-1 abc"
    assert request_name("api-1", RequestContext("abc", trace_id="f" * 32)) == "api-1 " + "f" * 32
    assert request_name("api-1", RequestContext("x'; DROP--" + "y" * 200)).startswith("api-1 xDROP--y")
    assert len(request_name("a" * 60, RequestContext("b" * 60))) == 63


def limits(*, pooled: bool = False) -> TransactionLimits:
    return TransactionLimits("headroom", 5.0, 2.0, 30.0, per_transaction=pooled)


def test_a_transaction_with_time_enough_says_nothing() -> None:
    assert limits().begin("") == "BEGIN;"


def test_a_transaction_gets_no_more_than_its_request_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.platform.resilience.deadlines.time.monotonic", lambda: 100.0)
    token = deadline.set(101.5)
    try:
        expected = "BEGIN;SET LOCAL statement_timeout='1500';SET LOCAL lock_timeout='1500';"
        assert limits().begin("") == expected
    finally:
        deadline.reset(token)


def test_behind_a_pooler_a_transaction_says_all_of_it() -> None:
    begin = limits(pooled=True).begin(" ISOLATION LEVEL serializable")
    assert begin.startswith("BEGIN ISOLATION LEVEL serializable;")
    for name in ("statement_timeout='5000'", "lock_timeout='2000'", "idle_in_transaction_session_timeout='30000'"):
        assert f"SET LOCAL {name};" in begin


def test_within_a_request_a_transaction_says_which() -> None:
    token = request_context.set(RequestContext("abc"))
    try:
        assert limits().begin("") == "BEGIN;SET LOCAL application_name='headroom abc';"
    finally:
        request_context.reset(token)
