"""What a process makes of a timeline that it hears of. The servers themselves: test_postgres_split_brain.py."""

import pytest

from app.platform.postgres.errors import CommitOutcomeUnknown
from app.platform.postgres.fence import Fence
from app.platform.postgres.options import DatabaseOptions
from app.platform.postgres.positions import pack
from app.platform.postgres.primary import Primary


class CountedAborts:
    def __init__(self, primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
        self.number = 0
        monkeypatch.setattr(primary.writer.connector, "abort", self)

    def __call__(self) -> None:
        self.number += 1


@pytest.fixture
def primary() -> Primary:
    return Primary(DatabaseOptions("postgresql+asyncpg://nobody@127.0.0.1:1/nothing"))


def test_the_first_timeline_ends_no_connection(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start a replica may answer first: what is on its way to the primary is not to be ended for that."""
    aborts = CountedAborts(primary, monkeypatch)
    primary.heard(pack(3, 1_000))
    primary.heard(pack(3, 2_000))
    assert (aborts.number, primary.fence.timeline) == (0, 3)


def test_control_a_newer_one_does(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    aborts = CountedAborts(primary, monkeypatch)
    primary.heard(pack(3, 1_000))
    primary.heard(pack(4, 1_000))
    primary.heard(pack(4, 2_000))
    assert (aborts.number, primary.fence.timeline) == (1, 4)


def test_an_older_one_changes_nothing() -> None:
    fence = Fence()
    fence.hear(4)
    assert not fence.hear(3)
    assert fence.excludes(3)
    assert not fence.excludes(4)


def test_what_was_committed_on_an_older_one_is_no_success() -> None:
    fence = Fence()
    fence.hear(4)
    fence.check_commit(pack(4, 1))
    with pytest.raises(CommitOutcomeUnknown):
        fence.check_commit(pack(3, 1_000))


def test_control_switched_off_it_excludes_nothing() -> None:
    fence = Fence(enabled=False)
    fence.hear(4)
    fence.check_commit(pack(3, 1_000))
