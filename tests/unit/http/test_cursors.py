from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from app.platform.http.cursors import CursorSeal, InvalidCursor, Position, cursor_key

KEY = cursor_key("secret")
SEAL = CursorSeal.bind(KEY, "equipment", "name", UUID(int=1), {"status": "available"})

# Of whole seconds, as all there are: Python itself reads an offset below a second back as none.
OFFSETS = st.integers(-23 * 3600, 23 * 3600).map(lambda seconds: timezone(timedelta(seconds=seconds)))
VALUES = st.one_of(
    st.text(st.characters(), max_size=50),
    st.integers(),
    st.floats(allow_nan=False),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.dates(),
    st.datetimes(timezones=st.just(UTC) | OFFSETS),
)


@given(VALUES, st.uuids(), st.sampled_from(["next", "prev"]))
def test_values_come_back_as_they_were(value: object, tiebreak: UUID, direction: str):
    position = SEAL.decode(SEAL.encode(Position(direction, (value, tiebreak))))  # type: ignore[arg-type]
    assert position == Position(direction, (value, tiebreak))  # type: ignore[arg-type]
    assert type(position.values[0]) is type(value)


@pytest.mark.parametrize("value", ["\ud800", "\x00", '"\\', "\U0001f4f7", datetime(2026, 1, 1, 1, 2, 3, 4, UTC)])
def test_values_that_are_easily_lost(value: object):
    assert SEAL.decode(SEAL.encode(Position("next", (value,)))).values == (value,)


@pytest.mark.parametrize("value", [None, b"bytes", [1]])
def test_what_can_be_no_sort_key_is_refused(value: object):
    with pytest.raises(TypeError):
        SEAL.encode(Position("next", (value,)))


@given(st.text(max_size=100) | st.binary(max_size=100).map(lambda data: urlsafe_b64encode(data).decode()))
def test_made_up_cursors_are_refused(cursor: str):
    with pytest.raises(InvalidCursor):
        SEAL.decode(cursor)


@given(st.data())
def test_a_cursor_with_any_bit_flipped_is_refused(data: st.DataObject):
    sealed = bytearray(urlsafe_b64decode(SEAL.encode(Position("next", ("a", 1))) + "=="))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(InvalidCursor):
        SEAL.decode(urlsafe_b64encode(bytes(sealed)).decode())


def test_a_truncated_or_overlong_cursor_is_refused():
    cursor = SEAL.encode(Position("next", ("a", 1)))
    for end in range(len(cursor)):
        with pytest.raises(InvalidCursor):
            SEAL.decode(cursor[:end])
    with pytest.raises(InvalidCursor):
        SEAL.decode("A" * 100_000)


@pytest.mark.parametrize(
    "other",
    [
        CursorSeal.bind(KEY, "checkouts", "name", UUID(int=1), {"status": "available"}),
        CursorSeal.bind(KEY, "equipment", "-name", UUID(int=1), {"status": "available"}),
        CursorSeal.bind(KEY, "equipment", "name", UUID(int=2), {"status": "available"}),
        CursorSeal.bind(KEY, "equipment", "name", UUID(int=1), {"status": "retired"}),
        CursorSeal.bind(KEY, "equipment", "name", UUID(int=1), {}),
        CursorSeal.bind(cursor_key("another"), "equipment", "name", UUID(int=1), {"status": "available"}),
    ],
)
def test_a_cursor_works_only_where_it_was_made(other: CursorSeal):
    with pytest.raises(InvalidCursor):
        other.decode(SEAL.encode(Position("next", ("a",))))


class Filters(BaseModel):
    tag: list[str] = []
    since: date | None = None
    price: Decimal | None = None


def test_bindings_are_compared_by_value():
    cursor = CursorSeal.bind(KEY, Filters(tag=["a"], since=date(2026, 1, 1)), {"x", "y"}, {"b": 1, "a": 2})
    same = CursorSeal.bind(KEY, Filters(tag=["a"], since=date(2026, 1, 1)), {"y", "x"}, {"a": 2, "b": 1})
    assert cursor == same
    assert cursor != CursorSeal.bind(KEY, Filters(tag=["a", "b"]), {"x", "y"}, {"b": 1, "a": 2})
