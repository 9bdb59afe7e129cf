"""Servers that many tests share: started once per session, and per worker of pytest-xdist."""

from collections.abc import Iterator

import pytest

from tests.support.native import NativeStack, native_stack
from tests.support.stack import DataServices, data_services


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `--dist loadgroup` a file stays on one worker, and all that use the whole stack share one."""
    for item in items:
        group = "system" if "system" in item.path.parts else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))
