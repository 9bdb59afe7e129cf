"""The native stack with PgBouncer in front of Postgres: `make up POOLER=pgbouncer`."""

import os
import shutil
import signal
from collections.abc import Iterator

import httpx
import pytest

from deploy.local.postgres import PASSWORD
from tests.support.api import connected
from tests.support.native import NativeStack, native_stack
from tests.support.redis_server import eventually

pytestmark = pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="pgbouncer is not installed")

BACKENDS = """
SELECT count(*) FILTER (WHERE client_port = ANY($1)) AS pooled, count(*) AS all
FROM pg_stat_activity WHERE datname = 'headroom' AND pid <> pg_backend_pid()
"""


@pytest.fixture(scope="module")
def pooled() -> Iterator[NativeStack]:
    with native_stack(POOLER="pgbouncer", API_INSTANCES="1", WEB_CONCURRENCY="1", POSTGRES_REPLICAS="1") as started:
        yield started
