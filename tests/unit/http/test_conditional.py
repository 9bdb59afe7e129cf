from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from app.platform.errors import VersionConflict
from app.platform.http.conditional import (
    etag_of,
    if_none_match,
    json_response,
    last_modified,
    not_modified_headers,
    require_if_match,
    version_etag,
)
from app.platform.http.problems import PreconditionRequired

ADAPTER = TypeAdapter(dict[str, Any])


def answer(method: str = "GET", headers: dict[str, str] | None = None, **options: Any) -> Response:
    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return json_response(Request({"type": "http", "method": method, "headers": raw}), ADAPTER, {"a": 1}, **options)


def test_tags_differ_with_the_body_and_the_version():
    assert etag_of(b"a") != etag_of(b"b")
    assert version_etag(1, b"a") != version_etag(2, b"a")
    assert version_etag(1, b"a") != version_etag(1, b"b")


@pytest.mark.parametrize(
    ("header", "known"),
    [
        (None, False),
        ('"x"', True),
        ('W/"x"', True),
        ('"y", "x"', True),
        ("*", True),
        ('"y"', False),
        ("x", False),
        ("", False),
        ('"y" ' * 2_000 + '"x"', False),
    ],
)
def test_if_none_match_compares_weakly_and_reads_a_bounded_header(header: str | None, known: bool):
    assert if_none_match(header, '"x"') is known


@pytest.mark.parametrize("header", ['"7"', '"7-abc"', 'W/"7-abc"', '"6-abc", "7-def"', "*"])
def test_if_match_of_the_current_version_passes(header: str):
    require_if_match(header, 7)


@pytest.mark.parametrize("header", ['"6-abc"', '"77-abc"', '"17"', "7", '"', ""])
def test_if_match_of_another_version_is_a_conflict(header: str):
    with pytest.raises(VersionConflict):
        require_if_match(header, 7)


def test_if_match_has_to_be_sent():
    with pytest.raises(PreconditionRequired):
        require_if_match(None, 7)


def test_an_answer_is_private_and_has_a_strong_tag():
    response = answer()
    assert response.status_code == 200
    assert response.body == b'{"a":1}'
    assert response.headers["etag"] == etag_of(b'{"a":1}')
    assert response.headers["cache-control"] == "private, no-cache"


def test_a_known_answer_is_not_sent_again():
    etag = answer(version=3).headers["etag"]
    response = answer(headers={"if-none-match": etag}, version=3, cache_control="public, max-age=5")
    assert response.status_code == 304
    assert response.body == b""
    assert dict(response.headers) == {"etag": etag, "cache-control": "public, max-age=5"}


def test_only_a_read_is_answered_with_not_modified():
    assert answer("PATCH", {"if-none-match": "*"}).status_code == 200


def test_the_tag_of_an_answer_can_be_sent_back_in_if_match():
    require_if_match(answer(version=3).headers["etag"], 3)


def test_last_modified_is_an_http_date():
    assert last_modified(datetime(2026, 1, 31, 12, 0, 5, 999, UTC)) == "Sat, 31 Jan 2026 12:00:05 GMT"


def test_not_modified_keeps_what_a_cache_needs():
    headers = [(b"etag", b'"x"'), (b"content-length", b"5"), (b"vary", b"accept"), (b"content-type", b"text/html")]
    assert not_modified_headers(headers) == [(b"etag", b'"x"'), (b"vary", b"accept")]
