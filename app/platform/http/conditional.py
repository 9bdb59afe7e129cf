"""Conditional requests (RFC 9110, section 13): entity tags, 304 for readers, 412 and 428 for writers."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from email.utils import format_datetime
from hashlib import blake2b
from typing import Any

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from app.platform.errors import VersionConflict
from app.platform.http.problems import PreconditionRequired

PRIVATE = "private, no-cache"  # the caller's own cache may keep it and asks before it uses it
SAFE_METHODS = ("GET", "HEAD")
MAX_HEADER = 4_096  # characters of If-Match or If-None-Match that are looked at

# nginx turns "x" into W/"x" when it compresses, and clients send back what they were given. Both forms name the
# same state of the resource, so the prefix is read over even where RFC 9110 asks for the strong comparison.
ENTITY_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')

# RFC 9110, section 15.4.5: what a 304 repeats of the 200 that it stands for.
NOT_MODIFIED_HEADERS = frozenset(
    {b"cache-control", b"content-location", b"etag", b"expires", b"last-modified", b"vary"}
)


def etag_of(body: bytes) -> str:
    return f'"{_digest(body)}"'


def version_etag(version: int, body: bytes) -> str:
    """The tag of one representation of a version: `If-Match` looks at the version, `If-None-Match` at all of it."""
    return f'"{version}-{_digest(body)}"'


def _digest(body: bytes) -> str:
    return blake2b(body, digest_size=12).hexdigest()


def last_modified(moment: datetime) -> str:
    """For the header of that name; `moment` is in UTC."""
    return format_datetime(moment.replace(microsecond=0), usegmt=True)


def if_none_match(header: str | None, etag: str) -> bool:
    """Whether the client has this representation already."""
    if header is None:
        return False
    return header.strip() == "*" or etag in _tags(header)


def require_if_match(header: str | None, version: int) -> None:
    """Raises `PreconditionRequired` without an If-Match, `VersionConflict` when it doesn't name this version."""
    if header is None:
        raise PreconditionRequired("Send If-Match with the ETag that you read.")
    if header.strip() == "*":
        return
    if not any(tag == f'"{version}"' or tag.startswith(f'"{version}-') for tag in _tags(header)):
        raise VersionConflict("If-Match doesn't name the current version: read it again.")


def _tags(header: str) -> list[str]:
    return ENTITY_TAG.findall(header[:MAX_HEADER])


def json_response(
    request: Request,
    adapter: TypeAdapter[Any],
    value: Any,
    *,
    status: int = 200,
    version: int | None = None,
    headers: Mapping[str, str] | None = None,
    cache_control: str = PRIVATE,
) -> Response:
    """Finished bytes with a strong ETag, or 304 when the client of a GET has them.

    With a `version` the ETag may be sent back in `If-Match`.
    """
    body = adapter.dump_json(value)
    etag = etag_of(body) if version is None else version_etag(version, body)
    told = {"ETag": etag, "Cache-Control": cache_control, **(headers or {})}
    response = Response(body, status, told, media_type="application/json")
    if request.method in SAFE_METHODS and if_none_match(request.headers.get("if-none-match"), etag):
        return not_modified(response)
    return response


def not_modified(response: Response) -> Response:
    answer = Response(status_code=304)
    answer.raw_headers = not_modified_headers(response.raw_headers)
    return answer


def not_modified_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Of a 200's headers (names in lower case), those that its 304 carries."""
    return [(name, value) for name, value in headers if name in NOT_MODIFIED_HEADERS]
