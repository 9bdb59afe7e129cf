"""Every query about what stands in for a password, or beside it. Whatever is good once is used by one statement."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncSession

from app.features.identity.models import RecoveryCode, SecondFactor, SingleUseToken, User
from app.platform.postgres import repository


@repository
class CredentialRepository:
    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    # Passwords

    async def set_password(self, user_id: UUID, password_hash: str, *, instead_of: str | None = None) -> bool:
        """`instead_of`: only where that is the present one."""
        statement = update(User).where(User.id == user_id).values(password_hash=password_hash)
        if instead_of is not None:
            statement = statement.where(User.password_hash == instead_of)
        return await self.session.scalar(statement.returning(User.id)) is not None

    async def set_verified(self, user_id: UUID) -> None:
        unverified = (User.id == user_id, User.email_verified_at.is_(None))
        await self.session.execute(update(User).where(*unverified).values(email_verified_at=func.now()))

    # Tokens that are sent by mail

    async def add_token(self, user_id: UUID, purpose: str, token_hash: bytes, lasts: timedelta) -> None:
        values = {"user_id": user_id, "purpose": purpose, "token_hash": token_hash, "expires_at": func.now() + lasts}
        await self.session.execute(insert(SingleUseToken).values(**values))

    async def tokens_since(self, user_id: UUID, purpose: str, ago: timedelta) -> int:
        own = (SingleUseToken.user_id == user_id, SingleUseToken.purpose == purpose)
        counted = select(func.count()).where(*own, SingleUseToken.created_at > func.now() - ago)
        return await self.session.scalar(counted) or 0

    async def token_owner(self, purpose: str, token_hash: bytes) -> UUID | None:
        return await self.session.scalar(select(SingleUseToken.user_id).where(*_good(purpose, token_hash)))

    async def use_token(self, purpose: str, token_hash: bytes) -> UUID | None:
        """Whose it was; None where it is not (or no longer) good. Of many at once one gets it."""
        used = delete(SingleUseToken).where(*_good(purpose, token_hash)).returning(SingleUseToken.user_id)
        return await self.session.scalar(used)

    async def drop_tokens(self, user_id: UUID, purpose: str) -> None:
        own = (SingleUseToken.user_id == user_id, SingleUseToken.purpose == purpose)
        await self.session.execute(delete(SingleUseToken).where(*own))

    async def forget_tokens(self) -> None:
        await self.session.execute(delete(SingleUseToken).where(SingleUseToken.expires_at < func.now()))

    # The second factor

    async def sealed_secret(self, user_id: UUID, *, enabled: bool = True) -> bytes | None:
        state = SecondFactor.enabled_at.is_not(None) if enabled else SecondFactor.enabled_at.is_(None)
        return await self.session.scalar(
            select(SecondFactor.sealed_secret).where(SecondFactor.user_id == user_id, state)
        )

    async def offer_factor(self, user_id: UUID, sealed_secret: bytes) -> bool:
        """Instead of one that was offered before; False where one is in use."""
        offered = postgresql.insert(SecondFactor).values(user_id=user_id, sealed_secret=sealed_secret)
        instead = offered.on_conflict_do_update(
            index_elements=[SecondFactor.user_id],
            set_={"sealed_secret": sealed_secret, "last_step": 0},
            where=SecondFactor.enabled_at.is_(None),
        )
        return await self.session.scalar(instead.returning(SecondFactor.user_id)) is not None

    async def factors_after(self, user_id: UUID, limit: int) -> Sequence[tuple[UUID, bytes]]:
        """Of users past that one, in their order, with what is sealed."""
        statement = select(SecondFactor.user_id, SecondFactor.sealed_secret).where(SecondFactor.user_id > user_id)
        rows = await self.session.execute(statement.order_by(SecondFactor.user_id).limit(limit))
        return [(row.user_id, row.sealed_secret) for row in rows]

    async def reseal(self, user_id: UUID, sealed_secret: bytes, *, instead_of: bytes) -> bool:
        """False where another was set up meanwhile."""
        same = (SecondFactor.user_id == user_id, SecondFactor.sealed_secret == instead_of)
        statement = update(SecondFactor).where(*same).values(sealed_secret=sealed_secret)
        return await self.session.scalar(statement.returning(SecondFactor.user_id)) is not None

    async def use_step(self, user_id: UUID, step: int) -> bool:
        """Of many that use the same step at once one gets it: the others find it used when they get the row."""
        unused = (SecondFactor.user_id == user_id, SecondFactor.last_step < step)
        used = update(SecondFactor).where(*unused).values(last_step=step).returning(SecondFactor.user_id)
        return await self.session.scalar(used) is not None

    async def enable_factor(self, user_id: UUID) -> None:
        await self.session.execute(
            update(SecondFactor).where(SecondFactor.user_id == user_id).values(enabled_at=func.now())
        )

    async def remove_factor(self, user_id: UUID) -> None:
        await self.session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user_id))
        await self.session.execute(delete(SecondFactor).where(SecondFactor.user_id == user_id))

    async def replace_codes(self, user_id: UUID, hashes: Sequence[bytes]) -> None:
        await self.session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user_id))
        rows = [{"user_id": user_id, "code_hash": code_hash} for code_hash in hashes]
        await self.session.execute(insert(RecoveryCode).values(rows))

    async def use_code(self, user_id: UUID, code_hash: bytes) -> bool:
        own = (RecoveryCode.user_id == user_id, RecoveryCode.code_hash == code_hash)
        used = delete(RecoveryCode).where(*own).returning(RecoveryCode.user_id)
        return await self.session.scalar(used) is not None


def _good(purpose: str, token_hash: bytes) -> tuple[ColumnElement[bool], ...]:
    wanted = (SingleUseToken.token_hash == token_hash, SingleUseToken.purpose == purpose)
    return (*wanted, SingleUseToken.expires_at > func.now())
