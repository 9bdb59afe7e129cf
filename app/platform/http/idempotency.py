"""`Idempotency-Key`: a write that is sent again has its effect once, and is answered as it was the first time.

After draft-ietf-httpapi-idempotency-key-header, whose keys are strings in quotes (RFC 9651); most clients send theirs
without, and both spellings are the same key. Key, effect and answer are one transaction: whatever dies, and when,
either all of them are there or none is. The key is claimed where the transaction begins, before the first statement of
the endpoint; the answer is kept where the endpoint is done, before the COMMIT.
"""

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, TypeVar
from uuid import UUID

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from prometheus_client import Counter
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.platform.http import kept_answers
from app.platform.http.kept_answers import KeptAnswer, KeyOwner
from app.platform.http.problems import BadRequest, InvalidRequest, Problem, problem_response, problem_responses
from app.platform.postgres import WriteSession
from app.platform.postgres.errors import LOCK_TIMEOUT, sqlstate
from app.platform.security.caller import Caller
from app.platform.security.secrets import Keyring

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
# As it is; or a string of RFC 9651, in which spaces may be, and quotes and backslashes after a backslash.
VALID_KEY = r'[!#-~][!-~]{0,254}|"([ !#-\[\]-~]|\\["\\]){1,255}"'
KEY = re.compile(VALID_KEY)
ESCAPED = re.compile(r"\\(.)")
MAX_BODY_BYTES = 65_536  # of an answer that is kept
NO_ORGANIZATION = UUID(int=0)

PARAMETER = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "Names this request: however often it is sent within 24 hours, it has its effect once",
    "schema": {"type": "string", "pattern": f"^({VALID_KEY})$"},
}

ATTEMPT = "idempotency"  # in the request's scope; not in its state, which the parts of a batch share
MARK = "__idempotent__"

REQUESTS = Counter(
    "idempotency_requests_total",
    "Requests with an Idempotency-Key that came to their effect, by outcome: new, replayed, conflict or mismatch",
    ("outcome",),
)

Responses = dict[int | str, dict[str, Any]]
Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Dependency = TypeVar("Dependency", bound=Callable[..., Any])


class KeyInUse(Problem):
    """A request with this `Idempotency-Key` is still under way. Send it again later: it has its effect once."""

    status = 409
    slug = "idempotency-key-in-use"
    title = "A request with this Idempotency-Key is under way"

    def __init__(self) -> None:
        super().__init__(headers={"Retry-After": "1"})


class KeyReused(Problem):
    """This `Idempotency-Key` was sent before with another request. A key belongs to one request and its repetitions."""

    status = 422
    slug = "idempotency-key-reused"
    title = "The Idempotency-Key belongs to another request"


class AnswerNotKept(Problem):
    """The request was carried out before; its answer was too large, or too secret, to be kept. `Location`, if there is
    one, says where to look.
    """

    status = 409
    slug = "answer-not-kept"
    title = "The request was carried out before, and its answer is gone"


class Replayed(Exception):
    """Raised where the transaction begins, in place of the effect, which is there already."""

    def __init__(self, answer: KeptAnswer) -> None:
        super().__init__()
        self.answer = answer


@dataclass(slots=True)
class Attempt:
    """One request that carries a key; `session` once it has opened one."""

    key: str
    owner: KeyOwner
    fingerprint: bytes
    accepted: frozenset[bytes] = frozenset()  # the fingerprint under each secret that is accepted
    session: WriteSession | None = None

    def begin(self, _session: Any, _transaction: Any, connection: Connection) -> None:
        """SQLAlchemy's `after_begin`."""
        try:
            kept = kept_answers.found(connection.execute(kept_answers.claim(self.owner, self.key)))
        except DBAPIError as error:
            if sqlstate(error) != LOCK_TIMEOUT:
                raise
            REQUESTS.labels("conflict").inc()
            raise KeyInUse() from error
        if kept is None:
            REQUESTS.labels("new").inc()
        elif kept.fingerprint not in {self.fingerprint, *self.accepted}:
            REQUESTS.labels("mismatch").inc()
            raise KeyReused()
        else:
            REQUESTS.labels("replayed").inc()
            raise Replayed(kept)

    async def keep(self, response: Response) -> None:
        """In the transaction of the effect. Without one there was no effect, and nothing to keep."""
        if self.session is None or not self.session.in_transaction():
            return
        headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in response.raw_headers]
        tags = sorted(self.session.touched)
        answer = KeptAnswer(self.fingerprint, response.status_code, headers, kept_body(response), tags)
        await kept_answers.keep(self.session, self.owner, self.key, answer)

    async def replay(self, answer: KeptAnswer, path: str) -> Response:
        """Commits what the first transaction touched once more: its process may have died before it told the caches.

        In a new transaction: with the one that found the answer goes whatever the endpoint had pending.
        """
        assert self.session is not None
        await self.session.rollback()
        await self.session.execute(kept_answers.claim(self.owner, self.key))
        self.session.touch(*answer.tags)
        return replayed_response(answer, path)


class Idempotency:
    """`secret` keys the fingerprints: a request may hold a password, which nobody should find out from its hash."""

    def __init__(self, secret: str | Keyring, *, enabled: bool = True) -> None:
        self._keys = Keyring.of(secret).derived(fingerprint_key)
        self._enabled = enabled

    async def attempt(self, request: Request) -> Attempt | None:
        """None where the request carries no key. Raises `BadRequest` where it can't be one."""
        keys = request.headers.getlist(HEADER)
        if not keys or not self._enabled:
            return None
        if len(keys) > 1 or not KEY.fullmatch(keys[0]):
            raise BadRequest(f"{HEADER} has to be 1 to 255 visible ASCII characters, with or without quotes, once.")
        body = await read_body(request)
        fingerprint, *others = (fingerprint_of(request, body, key) for key in self._keys.all)
        return Attempt(unquoted(keys[0]), owner_of(request, fingerprint), fingerprint, frozenset(others))


def unquoted(key: str) -> str:
    return ESCAPED.sub(r"\1", key[1:-1]) if key.startswith('"') else key


def fingerprint_key(secret: str) -> bytes:
    return blake2b(secret.encode(), person=b"idempotency-key").digest()


def fingerprint_of(request: Request, body: bytes, key: bytes) -> bytes:
    digest = blake2b(key=key, digest_size=16)
    for part in (request.method.encode(), request.scope["path"].encode(), request.scope["query_string"], body):
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.digest()


class IdempotentRoute(APIRoute):
    """Heeds the key wherever the endpoint asks for a session that writes; other endpoints have no effect to repeat.

    The application's state holds `resources.idempotency`.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        if self.idempotent:
            self.responses = documented_with(self.responses)
            self.openapi_extra = {**(self.openapi_extra or {}), "parameters": [PARAMETER]}

    @property
    def idempotent(self) -> bool:
        return any(map(is_marked, self.dependant.dependencies))

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def handle_once(request: Request) -> Response:
            idempotency: Idempotency = request.app.state.resources.idempotency
            attempt = request.scope[ATTEMPT] = await idempotency.attempt(request)
            if attempt is None:
                return await handle(request)
            try:
                response = await handle(request)
                await attempt.keep(response)
            except Replayed as replayed:
                return await attempt.replay(replayed.answer, request.scope["path"])
            return response

        return handle_once if self.idempotent else handle


def idempotent(dependency: Dependency) -> Dependency:
    """Marks the dependency that opens the session in which endpoints write; it calls `guard`."""
    setattr(dependency, MARK, True)
    return dependency


def is_marked(dependant: Dependant) -> bool:
    return hasattr(dependant.call, MARK) or any(map(is_marked, dependant.dependencies))


def documented_with(responses: Responses) -> Responses:
    """An endpoint's responses, completed by what a key may lead to."""
    own = problem_responses(BadRequest, KeyInUse, AnswerNotKept, InvalidRequest, KeyReused)
    for status in own.keys() & responses.keys():
        own[status]["description"] = f"{responses[status]['description']}; or: {own[status]['description']}"
    return {**responses, **own}


def guard(request: Request, session: WriteSession) -> None:
    """Claims the request's key, if it has one, when the session's transaction begins."""
    attempt: Attempt | None = request.scope.get(ATTEMPT)
    if attempt is not None:
        attempt.session = session
        event.listen(session.sync_session, "after_begin", attempt.begin, once=True)


def owner_of(request: Request, fingerprint: bytes) -> KeyOwner:
    """An anonymous caller is known by what it asks for alone: strangers who choose the same key never meet."""
    caller = request.scope["state"].get("caller")
    if isinstance(caller, Caller):
        return KeyOwner(caller.organization_id, caller.user_id)
    return KeyOwner(NO_ORGANIZATION, UUID(bytes=fingerprint))


async def read_body(request: Request) -> bytes:
    try:
        return await request.body()
    except ClientDisconnect:
        raise BadRequest("The body ended early.") from None


def kept_body(response: Response) -> bytes | None:
    """None for what is streamed, too large, or not to be stored anywhere (RFC 9111, section 5.2.2.5)."""
    body = getattr(response, "body", None)
    if body is None or len(body) > MAX_BODY_BYTES or "no-store" in response.headers.get("cache-control", ""):
        return None
    return bytes(body)


def replayed_response(answer: KeptAnswer, path: str) -> Response:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    if answer.body is None:
        response = problem_response(AnswerNotKept(f"It was answered with status {answer.status}."), path)
        response.raw_headers += [pair for pair in headers if pair[0] == b"location"]
    else:
        response = Response(answer.body, answer.status)
        response.raw_headers = headers
    response.headers[REPLAYED] = "true"
    return response
