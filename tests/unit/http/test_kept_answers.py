"""What is kept of an answer, and how it is told again."""

import pytest
from starlette.responses import Response, StreamingResponse

from app.platform.http.idempotency import MAX_BODY_BYTES, kept_body, replayed_response
from app.platform.http.kept_answers import KeptAnswer


@pytest.mark.parametrize("body", [b"", b"{}", b"b" * MAX_BODY_BYTES])
def test_a_body_is_kept(body: bytes) -> None:
    assert kept_body(Response(body)) == body


@pytest.mark.parametrize(
    "response",
    [
        Response(b"b" * (MAX_BODY_BYTES + 1)),
        Response(b"a secret", headers={"Cache-Control": "private, no-store"}),
        StreamingResponse(iter(["a", "b"])),
    ],
    ids=["too large", "no-store", "streamed"],
)
def test_some_are_not_kept(response: Response) -> None:
    assert kept_body(response) is None


def test_headers_are_told_as_they_were() -> None:
    headers = [["content-type", "text/plain"], ["set-cookie", "a=1"], ["set-cookie", "b=\u00e9"]]
    response = replayed_response(KeptAnswer(b"", 202, headers, b"body", []), "/path")
    assert (response.status_code, response.body) == (202, b"body")
    assert response.raw_headers[:3] == [
        (b"content-type", b"text/plain"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=\xe9"),
    ]
    assert response.headers["idempotency-replayed"] == "true"
