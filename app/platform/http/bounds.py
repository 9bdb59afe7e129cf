"""What a request may hold at most, checked before anything reads it."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.platform.http.problems import BodyTooLarge, InvalidRequest, Problem, UnsupportedMediaType, send_problem

MAX_QUERY_BYTES = 8_192
MAX_JSON_SEPARATORS = 20_000  # commas
PLAIN = (b"", b"identity")


class RequestBoundsMiddleware:
    """Refuses bodies over `max_body_bytes`, JSON of too many values, compressed bodies, long query strings, and NUL in
    path or query.

    A body that doesn't say its length is refused at the chunk that goes over the limit.
    """

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif (problem := self._refusal(scope)) is not None:
            await send_problem(send, problem, scope["path"])
        else:
            await self.app(scope, self._bounded(scope, receive), send)

    def _refusal(self, scope: Scope) -> Problem | None:
        query = scope["query_string"]
        if len(query) > MAX_QUERY_BYTES:
            return InvalidRequest.at(("query",), f"must not be longer than {MAX_QUERY_BYTES} bytes", "query_too_long")
        if b"%00" in query or b"\x00" in query:
            return InvalidRequest.at(("query",), "must not contain NUL characters", "nul_character")
        if "\x00" in scope["path"]:
            return InvalidRequest.at(("path",), "must not contain NUL characters", "nul_character")
        if _content_length(scope) > self.max_body_bytes:
            return self._too_large()
        if _header(scope, b"content-encoding").strip().lower() not in PLAIN:
            # What a compressed body unfolds to is bounded by nothing that it says. RFC 9110, section 15.5.16.
            return UnsupportedMediaType("The body must not be compressed.", headers={"Accept-Encoding": "identity"})
        return None

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        # Validating costs microseconds a value: a megabyte of `[1,1,1,...` would hold the event loop for seconds.
        count_values = b"json" in _header(scope, b"content-type")
        size = separators = 0

        async def bounded() -> Message:
            nonlocal size, separators
            message = await receive()
            body = message.get("body", b"")
            size += len(body)
            if size > self.max_body_bytes:
                raise self._too_large()
            if count_values:
                separators += body.count(b",")
                if separators > MAX_JSON_SEPARATORS:
                    raise BodyTooLarge(f"The JSON of the body is limited to {MAX_JSON_SEPARATORS} values.")
            return message

        return bounded

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body is limited to {self.max_body_bytes} bytes.")


def _content_length(scope: Scope) -> int:
    length = _header(scope, b"content-length")
    return int(length) if length.isdigit() else 0


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")
