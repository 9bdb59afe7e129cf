"""Which position covers which, and how far behind that is in time."""

from hypothesis import given
from hypothesis import strategies as st

from app.platform.postgres.lag import PrimaryHistory
from app.platform.postgres.positions import covers, lsn_of, pack, timeline_of

timelines = st.integers(1, 2_047)
lsns = st.integers(0, 2**53 - 1)


@given(timelines, lsns)
def test_a_position_holds_both_and_fits_64_bits(timeline: int, lsn: int) -> None:
    position = pack(timeline, lsn)
    assert (timeline_of(position), lsn_of(position)) == (timeline, lsn)
    assert position < 2**64


def test_an_older_timeline_never_covers_a_newer_one() -> None:
    """A replica that went on beyond the fork has a larger LSN, and not what was committed after the promotion."""
    assert not covers(pack(1, 9_000), pack(2, 5_000))


def test_a_newer_timeline_covers_what_lies_before_its_replay() -> None:
    assert covers(pack(2, 6_000), pack(1, 5_000))
    assert not covers(pack(2, 4_000), pack(1, 5_000)), "it has not reached the fork yet"


@given(timelines, lsns, lsns)
def test_on_one_timeline_the_lsn_decides(timeline: int, replayed: int, required: int) -> None:
    assert covers(pack(timeline, replayed), pack(timeline, required)) == (replayed >= required)


def history_with(*seen: tuple[float, int]) -> PrimaryHistory:
    history = PrimaryHistory()
    for at, lsn in seen:
        history.record(at, pack(1, lsn))
    return history


def test_lag_is_the_age_of_the_oldest_position_not_replayed() -> None:
    history = history_with((1.0, 100), (2.0, 200), (3.0, 300))
    assert history.lag_seconds(pack(1, 300), now=4.0) == 0.0
    assert history.lag_seconds(pack(1, 250), now=4.0) == 1.0
    assert history.lag_seconds(pack(1, 100), now=4.0) == 2.0
    assert history.lag_seconds(pack(1, 0), now=4.0) == 3.0


def test_lag_does_not_grow_while_the_primary_is_idle() -> None:
    history = history_with((1.0, 100), (2.0, 100), (3.0, 100))
    assert history.lag_seconds(pack(1, 100), now=500.0) == 0.0


def test_lag_grows_while_a_replica_stands_still() -> None:
    history = history_with((1.0, 100), (2.0, 200))
    assert [history.lag_seconds(pack(1, 100), now=now) for now in (2.5, 3.0, 60.0)] == [0.5, 1.0, 58.0]


def test_a_replica_on_the_old_timeline_falls_behind_from_the_promotion_on() -> None:
    history = PrimaryHistory()
    history.record(1.0, pack(1, 100))
    history.record(2.0, pack(2, 90))
    assert history.lag_seconds(pack(1, 100), now=5.0) == 3.0


def test_nothing_known_is_no_lag() -> None:
    assert PrimaryHistory().lag_seconds(pack(1, 0), now=1.0) == 0.0


def test_a_position_after_a_moment_needs_a_look_after_it() -> None:
    history = history_with((1.0, 100), (2.0, 200), (3.0, 300))
    assert history.position_after(1.5) == pack(1, 200)
    assert history.position_after(3.0) == pack(1, 300)
    assert history.position_after(3.5) is None
    history.record(4.0, pack(1, 300))
    assert history.position_after(3.5) == pack(1, 300)
