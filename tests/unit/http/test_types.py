from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from time import perf_counter
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr, TypeAdapter, ValidationError

from app.platform.http.types import (
    MAX_JSON_DEPTH,
    MAX_JSON_VALUES,
    DigitsOnly,
    JsonObject,
    Line,
    Money,
    Secret,
    Tags,
    Text,
    UtcTime,
)


class Everything(BaseModel):
    text: Annotated[Text, Field(max_length=10)] = ""
    secret: Annotated[Secret, Field(min_length=1)] = SecretStr("x")
    line: Annotated[Line, Field(min_length=1, max_length=10)] = "x"
    tags: Tags = []
    time: UtcTime = datetime(2026, 1, 1, tzinfo=UTC)
    money: Money = Decimal(1)
    json_: JsonObject = {}


def refused(**values: Any) -> str:
    with pytest.raises(ValidationError) as error:
        Everything(**values)
    assert error.value.error_count() == 1
    return str(error.value.errors()[0]["msg"])


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", "a\x00b"),
        ("text", "x" * 11),
        ("text", "\ud800"),
        ("text", 1),
        ("secret", "\ud800 and more"),
        ("secret", "a\x00b"),
        ("line", "\udfff"),
        ("line", "a\x00b"),
        ("line", "a\nb"),
        ("line", "a\x7fb"),
        ("line", "   "),
        ("tags", ["x"] * 10_000),
        ("tags", [""]),
        ("tags", ["x" * 51]),
        ("tags", "x"),
        ("time", "2026-01-31"),
        ("time", "2026-01-31T12:00:00"),
        ("time", "2026-13-31T12:00:00Z"),
        ("time", "0001-01-01T00:00:00+23:59"),
        ("time", "9999-12-31T23:59:59-23:59"),
        ("time", 1_700_000_000),
        ("time", 1e400),
        ("money", 12.5),
        ("money", 12),
        ("money", True),
        ("money", "1e400"),
        ("money", "NaN"),
        ("money", "Infinity"),
        ("money", "-1"),
        ("money", "1.234"),
        ("money", "1.23\n"),
        ("money", "٣"),
        ("money", "9" * 13),
        ("json_", []),
        ("json_", {"a": float("nan")}),
        ("json_", {"a": [float("inf")]}),
        ("json_", {"a": 1e101}),
        ("json_", {"a": 10**400}),
        ("json_", {"a": "\x00"}),
        ("json_", {"\x00": 1}),
        ("json_", {"a": {"b": "\ud800"}}),
        ("json_", {"\udfff": 1}),
        ("json_", {"k" * 65: 1}),
        ("json_", {"a": "x" * 2_001}),
        ("json_", {"a": [0] * MAX_JSON_VALUES}),
        ("json_", {"a": nested(MAX_JSON_DEPTH)}),
        ("json_", {"a": nested(100_000)}),
    ],
)
def test_what_can_not_be_stored_is_refused(name: str, value: Any):
    assert len(refused(**{name: value})) < 300


def test_what_can_be_stored_is_taken():
    found = Everything(
        text="a\nb\t",
        line="  é 📷 ",
        tags=[" a "],
        money="1299.90",  # type: ignore[arg-type]
        json_={"a": [1, 2.5, None, True, "x", {"b": nested(MAX_JSON_DEPTH - 3)}]},
    )
    assert (found.text, found.line, found.tags, found.money) == ("a\nb\t", "é 📷", ["a"], Decimal("1299.90"))


def test_a_large_wrong_list_is_refused_as_fast_as_a_small_one():
    wrong = [1] * 500_000
    started = perf_counter()
    refused(tags=wrong)
    assert perf_counter() - started < 0.05


@given(st.datetimes(timezones=st.timedeltas(timedelta(hours=-12), timedelta(hours=14)).map(timezone)))
def test_times_are_written_in_utc(moment: datetime):
    adapter = TypeAdapter(UtcTime)
    try:
        value = adapter.validate_python(moment)
    except ValidationError:
        assert moment.year in (1, 9999)
        return
    assert value == moment
    written = adapter.dump_json(value)
    assert written.endswith(b'Z"')
    assert adapter.validate_json(written) == value


def test_money_is_a_string_on_the_wire():
    adapter = TypeAdapter(Money)
    assert adapter.dump_json(Decimal("1299.90")) == b'"1299.90"'
    assert adapter.json_schema()["type"] == "string"


DIGITS = TypeAdapter(Annotated[int, Field(ge=1), DigitsOnly])
LOOSE = {"1.0": 1, "1_0": 10, "+1": 1, " 1": 1, "1\n": 1}


@pytest.mark.parametrize("text", [*LOOSE, "٣", "1e1", "", "-1", "9" * 5_000])
def test_an_integer_is_digits_and_nothing_else(text: str):
    with pytest.raises(ValidationError):
        DIGITS.validate_python(text)


def test_digits_are_an_integer():
    assert [DIGITS.validate_python(value) for value in ("10", "007", 10)] == [10, 7, 10]
    assert DIGITS.json_schema() == {"type": "integer", "minimum": 1}


def test_control_pydantic_alone_takes_more():
    assert {text: TypeAdapter(int).validate_python(text) for text in LOOSE} == LOOSE
