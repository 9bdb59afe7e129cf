"""Servers that many tests share: started once per session, and per worker of pytest-xdist."""

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.support.native import NativeStack, native_stack
from tests.support.stack import DataServices, data_services

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("headroom", deadline=None, print_blob=True)
hypothesis.settings.load_profile("headroom")


@pytest.fixture(scope="session")
def services() -> Iterator[DataServices]:
    """Postgres with two replicas, and Redis. Whoever breaks them starts some of his own."""
    with data_services() as started:
        yield started


@pytest.fixture(scope="session")
def stack() -> Iterator[NativeStack]:
    """Everything, as `make up` starts it, with limits that a test does not run into."""
    with native_stack(RATE_LIMIT_SCALE="1000") as started:
        yield started


class ByFile(LoadScopeScheduling):
    """A file stays on one worker, and so do all files that use the whole stack, since two of those are too many."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "system" if "system/" in file else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)
