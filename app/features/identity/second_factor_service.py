"""The rules of the second factor: a code from an app, good once, or one of ten recovery codes, each good once."""

from dataclasses import dataclass
from uuid import UUID

from app.features.identity.credential_repository import CredentialRepository
from app.features.identity.repository import Row
from app.platform.audit import record
from app.platform.errors import Conflict, Unauthenticated
from app.platform.postgres import WriteSession
from app.platform.security import totp
from app.platform.security.caller import Caller
from app.platform.security.sealing import Sealer
from app.platform.security.single_use import code_digest, new_code

CODES = 10


class CodeNeeded(Unauthenticated):
    """The password is right; send a code of the second factor, or a recovery code, as `otp`."""

    slug = "second-factor-needed"
    title = "A code of the second factor is needed"


class WrongCode(Unauthenticated):
    slug = "wrong-code"
    title = "The code is wrong, or was used before"


class FactorInUse(Conflict):
    slug = "second-factor-in-use"
    title = "There is a second factor already: disable it first"


class NoFactor(Conflict):
    slug = "no-second-factor"
    title = "There is no second factor to do this with"


@dataclass(frozen=True, slots=True)
class Setup:
    secret: str
    uri: str
    qr_svg: str


@dataclass(frozen=True, slots=True)
class SecondFactors:
    """`issuer`: what apps show beside the code."""

    sealer: Sealer
    issuer: str

    async def check(self, session: WriteSession, user_id: UUID, code: str | None) -> None:
        """Uses the code up, where a second factor is in use. Raises `CodeNeeded` or `WrongCode`."""
        repository = CredentialRepository(session)
        sealed = await repository.sealed_secret(user_id)
        if sealed is None:
            return
        if not code:
            raise CodeNeeded()
        if not await self._uses(repository, user_id, sealed, code) and not await repository.use_code(
            user_id, code_digest(code, user_id.bytes)
        ):
            raise WrongCode()

    async def set_up(self, session: WriteSession, user: Row) -> Setup:
        """Raises `FactorInUse`. Nothing is asked for before it is enabled with a first code."""
        secret = totp.new_secret()
        sealed = self.sealer.seal(secret.encode(), user["id"].bytes)
        if not await CredentialRepository(session).offer_factor(user["id"], sealed):
            raise FactorInUse()
        uri = totp.provisioning_uri(secret, user["email"], self.issuer)
        return Setup(secret, uri, totp.qr_code(uri))

    async def enable(self, session: WriteSession, caller: Caller, code: str) -> list[str]:
        """The recovery codes. Raises `NoFactor` where none was set up, or `WrongCode`."""
        repository = CredentialRepository(session)
        sealed = await repository.sealed_secret(caller.user_id, enabled=False)
        if sealed is None:
            raise NoFactor()
        if not await self._uses(repository, caller.user_id, sealed, code):
            raise WrongCode()
        await repository.enable_factor(caller.user_id)
        record(session, caller, "second_factor.enabled", caller.user_id)
        return await _new_codes(repository, caller.user_id)

    async def renew_codes(self, session: WriteSession, caller: Caller) -> list[str]:
        """Raises `NoFactor`."""
        repository = CredentialRepository(session)
        if await repository.sealed_secret(caller.user_id) is None:
            raise NoFactor()
        record(session, caller, "second_factor.codes_renewed", caller.user_id)
        return await _new_codes(repository, caller.user_id)

    async def disable(self, session: WriteSession, caller: Caller) -> None:
        record(session, caller, "second_factor.disabled", caller.user_id)
        await CredentialRepository(session).remove_factor(caller.user_id)

    async def _uses(self, repository: CredentialRepository, user_id: UUID, sealed: bytes, code: str) -> bool:
        secret = self.sealer.open(sealed, user_id.bytes).decode()
        step = totp.matching_step(secret, code.strip().replace(" ", ""))
        return step is not None and await repository.use_step(user_id, step)


async def _new_codes(repository: CredentialRepository, user_id: UUID) -> list[str]:
    codes = [new_code() for _ in range(CODES)]
    await repository.replace_codes(user_id, [code_digest(code, user_id.bytes) for code in codes])
    return codes
