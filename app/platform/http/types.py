"""Types that schemas share: what Postgres can store, and one spelling on the wire for each kind of value."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from math import isfinite
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    FailFast,
    Field,
    SecretStr,
    StringConstraints,
    WithJsonSchema,
)

# RFC 3339, section 5.6
RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
DIGITS = re.compile(r"[0-9]{1,20}")
MONEY_PATTERN = r"^[0-9]{1,12}(\.[0-9]{1,2})?$"
TEXT_PATTERN = r"^[^\u0000]*$"
LINE_PATTERN = r"^[^\u0000-\u001f\u007f]*$"
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
EDGES_OF_TIME = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))

MAX_JSON_VALUES = 500
MAX_JSON_DEPTH = 8
MAX_JSON_TEXT = 2_000  # characters
MAX_JSON_KEY = 64  # characters
MAX_JSON_INTEGER = 2**53 - 1  # RFC 7493, section 2.2: what every client reads exactly
MAX_JSON_FLOAT = 1e100  # jsonb writes numbers out in full


def refuse_unstorable(value: str) -> str:
    """JSON can hold more than UTF-8 and Postgres can: `\\u0000`, and `\\ud800` without its other half."""
    if "\x00" in value:
        raise ValueError("must not contain NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain half of a surrogate pair") from None
    return value


def refuse_unstorable_secret(value: SecretStr) -> SecretStr:
    refuse_unstorable(value.get_secret_value())
    return value


def refuse_control(value: str) -> str:
    if CONTROL.search(value):
        raise ValueError("must be one line, without control characters")
    return value


def refuse_other_than_rfc_3339(value: object) -> object:
    if isinstance(value, datetime) or (isinstance(value, str) and RFC_3339.fullmatch(value)):
        return value
    raise ValueError("must be a time of RFC 3339 with its offset, like 2026-01-31T12:00:00Z")


def refuse_other_than_digits(value: object) -> object:
    if isinstance(value, str) and not DIGITS.fullmatch(value):
        raise ValueError("must be an integer in decimal digits")
    return value


def once_each(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values))


def to_utc(value: datetime) -> datetime:
    try:
        moment = value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is out of range") from None
    # asyncpg writes the first and the last moment that Python knows as -infinity and infinity.
    if moment in EDGES_OF_TIME:
        raise ValueError("is out of range")
    return moment


def refuse_other_than_money(value: object) -> object:
    if isinstance(value, Decimal) or (isinstance(value, str) and re.fullmatch(MONEY_PATTERN, value)):
        return value
    raise ValueError("must be an amount in a string, like '1299.90'")


def refuse_unbounded_json(value: dict[str, Any]) -> dict[str, Any]:
    for count, (depth, item) in enumerate(_walk(value)):
        if count >= MAX_JSON_VALUES:
            raise ValueError(f"must not hold more than {MAX_JSON_VALUES} values")
        if depth > MAX_JSON_DEPTH:
            raise ValueError(f"must not be nested deeper than {MAX_JSON_DEPTH}")
        _refuse_unbounded_scalar(item)
    return value


def _walk(value: Any) -> Iterator[tuple[int, Any]]:
    """Every value in it with its depth, without recursion."""
    waiting = [(0, value)]
    while waiting:
        depth, item = waiting.pop()
        yield depth, item
        if isinstance(item, dict):
            for key in item:
                _refuse_unbounded_text(key, MAX_JSON_KEY)
            waiting.extend((depth + 1, each) for each in item.values())
        elif isinstance(item, list):
            waiting.extend((depth + 1, each) for each in item)


def _refuse_unbounded_scalar(value: Any) -> None:
    if isinstance(value, str):
        _refuse_unbounded_text(value, MAX_JSON_TEXT)
    elif isinstance(value, int) and abs(value) > MAX_JSON_INTEGER:
        raise ValueError("holds an integer beyond 2**53 - 1")
    elif isinstance(value, float) and not (isfinite(value) and abs(value) <= MAX_JSON_FLOAT):
        raise ValueError("holds a number that is not finite, or too large")


def _refuse_unbounded_text(value: str, limit: int) -> None:
    if len(value) > limit:
        raise ValueError(f"holds a text of more than {limit} characters")
    refuse_unstorable(value)


# Add the length where it is used: `Annotated[Line, Field(max_length=200)]`.
Text = Annotated[str, AfterValidator(refuse_unstorable), Field(json_schema_extra={"pattern": TEXT_PATTERN})]
Line = Annotated[
    str,
    StringConstraints(strip_whitespace=True),
    AfterValidator(refuse_control),
    Field(json_schema_extra={"pattern": LINE_PATTERN}),
]
Secret = Annotated[SecretStr, AfterValidator(refuse_unstorable_secret)]

# For an integer of a query string, behind its bounds: `Annotated[int, Field(ge=1), DigitsOnly]`. Pydantic alone takes
# `1.0`, `1_0` and ` 1` for an integer too.
DigitsOnly = BeforeValidator(refuse_other_than_digits)

# A list that stops at its first wrong item, so that a large wrong one is refused as fast as a small one.
Tag = Annotated[Line, Field(min_length=1, max_length=50)]
Tags = Annotated[list[Tag], FailFast(), Field(max_length=20), AfterValidator(once_each)]

# Written with Z, whatever offset it came with; what comes from the database is in UTC already.
UtcTime = Annotated[AwareDatetime, BeforeValidator(refuse_other_than_rfc_3339), AfterValidator(to_utc)]

Money = Annotated[
    Decimal,
    BeforeValidator(refuse_other_than_money),
    WithJsonSchema({"type": "string", "pattern": MONEY_PATTERN, "examples": ["1299.90"]}),
]

JsonObject = Annotated[dict[str, Any], AfterValidator(refuse_unbounded_json)]
