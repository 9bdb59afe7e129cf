"""The rules of sessions: how they begin, go on from one refresh token to the next, and end.

After RFC 9700, 4.14.2: a refresh token is good once. Who presents one that was used before may be a thief, or the owner
whom the thief has overtaken: the session ends. One use again is no theft: a client whose answer was lost comes back
with the token before within `grace`, and is given the same successor, once.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from hmac import compare_digest
from typing import Literal
from uuid import UUID

from prometheus_client import Counter

from app.features.identity.repository import IdentityRepository, Row
from app.features.identity.session_repository import SessionRepository
from app.platform.audit import Actor, record
from app.platform.cache import tag
from app.platform.errors import NotFound, Unauthenticated
from app.platform.postgres import ReadSession, WriteSession
from app.platform.postgres.base import uuid7
from app.platform.security.caller import Caller
from app.platform.security.refresh_tokens import RefreshToken, RefreshTokens
from app.platform.security.revocation_log import revoke

MAX_DEVICE_CHARACTERS = 200
TAG = "sessions"  # of a user: what is cached of their sessions

SESSIONS = Counter("sessions_total", "Log-ins and what became of them", ["event"])

Reason = Literal["logged out", "ended by its owner", "password changed", "token reused", "too many", "disabled"]


class SessionOver(Unauthenticated):
    slug = "session-over"
    title = "The session is over: log in again"


@dataclass(frozen=True, slots=True)
class Client:
    """What a session's owner will know it by."""

    device: str
    address: str

    @classmethod
    def of(cls, user_agent: str | None, address: str) -> "Client":
        return cls((user_agent or "unknown")[:MAX_DEVICE_CHARACTERS], address)


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    idle: timedelta
    absolute: timedelta
    grace: timedelta
    most: int  # live sessions of one user; beyond that the oldest end


@dataclass(frozen=True, slots=True)
class Sessions:
    """Opens them and keeps them going."""

    tokens: RefreshTokens
    policy: SessionPolicy

    async def open(self, session: WriteSession, account: Row, client: Client) -> RefreshToken:
        """For an account whose credentials were checked just now. Raises `SessionOver` where they changed since."""
        if not await IdentityRepository(session).hold(account["id"], account["password_hash"]):
            raise SessionOver()
        repository, token = SessionRepository(session), self.tokens.first(uuid7())
        owner = account["organization_id"], account["id"]
        await repository.add(
            self.policy.absolute,
            id=token.session_id,
            organization_id=owner[0],
            user_id=owner[1],
            salt=secrets.token_bytes(32),
            token_hash=token.digest,
            device=client.device,
            address=client.address,
        )
        if surplus := await repository.oldest_beyond(*owner, self.policy.most):
            await _end(session, *owner, "too many", surplus)
        session.touch(tag(account["id"], TAG))
        record(session, Actor(*owner), "session.opened", token.session_id)
        SESSIONS.labels("opened").inc()
        return token

    async def refresh(
        self, session: WriteSession, token: RefreshToken, client: Client
    ) -> tuple[Row, RefreshToken] | None:
        """The account, and the next token; None where there is none. Commit in any case: it may have ended a family."""
        repository = SessionRepository(session)
        found = await repository.locked(token.session_id)
        if found is None or not self._is_live(found):
            SESSIONS.labels("refused").inc()
            return None
        successor = self.tokens.successor(token, found["salt"])
        if compare_digest(token.digest, found["token_hash"]):
            await repository.rotate(
                token.session_id, previous=token.digest, digest=successor.digest, address=client.address
            )
            session.touch(tag(found["id"], TAG))
            SESSIONS.labels("refreshed").inc()
            return found, successor
        if (given := self._given_before(token, found)) is not None:
            SESSIONS.labels("repeated").inc()
            if found["previous_repeated"]:
                return None
            await repository.mark_repeated(token.session_id)
            return found, given
        if token.genuine:
            SESSIONS.labels("reused").inc()
            await _end(session, found["organization_id"], found["id"], "token reused", [token.session_id])
        return None

    def _is_live(self, found: Row) -> bool:
        in_time = found["expires_in"] > 0 and found["used_ago"] < self.policy.idle.total_seconds()
        return in_time and found["ended_at"] is None and found["disabled_at"] is None

    def _given_before(self, token: RefreshToken, found: Row) -> RefreshToken | None:
        """The successor of the token just before, so soon that its answer may have been lost; it is newest still."""
        in_grace = found["rotated_ago"] <= self.policy.grace.total_seconds()
        if not in_grace or not compare_digest(token.digest, found["previous_hash"] or b""):
            return None
        newest = (
            each
            for each in self.tokens.successors(token, found["salt"])
            if compare_digest(each.digest, found["token_hash"])
        )
        return next(newest, None)

    async def listed(self, session: ReadSession, caller: Caller) -> Sequence[Row]:
        repository = SessionRepository(session)
        return await repository.live(caller.organization_id, caller.user_id, self.policy.idle)


async def end_one(session: WriteSession, caller: Caller, session_id: UUID, because: Reason) -> None:
    """Raises `NotFound` where the caller has no such session that is live."""
    if not await _end(session, caller.organization_id, caller.user_id, because, [session_id]):
        raise NotFound()


async def log_out(session: WriteSession, caller: Caller) -> None:
    """Its access tokens too, even if nobody knows of the session any more."""
    await _end(session, caller.organization_id, caller.user_id, "logged out", [caller.session_id])
    await revoke(session, caller.session_id)


async def end_all(session: WriteSession, organization_id: UUID, user_id: UUID, because: Reason) -> None:
    """Access tokens that no session is known of, too."""
    await _end(session, organization_id, user_id, because, None)
    epoch = await IdentityRepository(session).next_epoch(organization_id, user_id)
    if epoch is None:
        raise Unauthenticated("The account of this token is gone.")
    await revoke(session, user_id, epoch)


async def end_disabled(session: WriteSession, caller: Caller, user_id: UUID) -> None:
    """All of a user whom the caller has disabled: what they hold is no good either when they come back."""
    await _end(session, caller.organization_id, user_id, "disabled", None, by=caller.user_id)


async def _end(
    session: WriteSession,
    organization_id: UUID,
    user_id: UUID,
    because: Reason,
    only: Sequence[UUID] | None,
    by: UUID | None = None,
) -> Sequence[UUID]:
    """By the user themselves, unless it says by whom."""
    ended = await SessionRepository(session).end(organization_id, user_id, because, only)
    for session_id in ended:
        await revoke(session, session_id)
        record(session, Actor(organization_id, by or user_id), "session.ended", session_id, because=because)
    session.touch(tag(user_id, TAG))
    SESSIONS.labels("ended").inc(len(ended))
    return ended
