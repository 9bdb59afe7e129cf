"""Every other query of the repositories, with something to ask for. One that is missing here fails a test."""

from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from inspect import signature
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.features.api_keys import repository as api_keys
from app.features.api_keys.repository import ApiKeyRepository
from app.features.checkouts.repository import CheckoutRepository
from app.features.equipment.repository import EquipmentRepository
from app.features.identity.credential_repository import CredentialRepository
from app.features.identity.repository import IdentityRepository
from app.features.identity.session_repository import SessionRepository
from app.features.organizations import invitation_repository as invitations
from app.features.organizations.invitation_repository import InvitationRepository
from app.features.organizations.repository import MemberRepository
from app.platform.postgres.base import uuid7
from bench.queries import Examples, Query, pages

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
MOST_PER_ITEM = 50
DIGEST = bytes(32)
PERSON = {"email": "new@example.com", "full_name": "New", "role": "member", "password_hash": "-"}
Ask = Callable[..., Query]


def queries(examples: Examples) -> Iterator[Query]:
    """All of them, by method."""
    ask = partial(asked, examples.organization_id)
    yield from pages(examples)
    for each in (equipment, checkouts, people, sessions, credentials, factors, members, invited, keys):
        yield from each(ask, examples)


def asked(
    organization_id: UUID, repository: Callable[..., Any], method: str, /, *arguments: Any, **values: Any
) -> Query:
    """A method of a repository, which may see one organization alone."""
    scope = (organization_id,) if "organization_id" in signature(repository).parameters else ()

    async def run(session: AsyncSession) -> Any:
        return await getattr(repository(session, *scope), method)(*arguments, **values)

    return Query(f"{repository.__name__}.{method}", "", run)


def called(function: Callable[..., Awaitable[Any]], *arguments: Any, **values: Any) -> Query:
    """A function of a repository's module: for what is asked before the organization is known."""

    async def run(session: AsyncSession) -> Any:
        return await function(session, *arguments, **values)

    return Query(name_of(function), "", run)


def name_of(function: Callable[..., Any]) -> str:
    return f"{function.__module__.removeprefix('app.features.')}.{function.__name__}"


def both_statements(query: Query) -> Iterator[Query]:
    for number in (0, 1):
        yield Query(query.method, f"statement {number + 1}", query.run, statement=number)


def counting(query: Query) -> Query:
    return Query(query.method, query.variant, query.run, counts=True)


def equipment(ask: Ask, examples: Examples) -> Iterator[Query]:
    item = examples.rows["equipment"]["id"]
    yield ask(EquipmentRepository, "get", item)
    yield ask(EquipmentRepository, "lock", item)
    yield ask(EquipmentRepository, "add", {"asset_tag": "a new one", "name": "An item", "category": "camera"})
    yield ask(EquipmentRepository, "change", item, {"name": "Another"})
    yield ask(EquipmentRepository, "remove", item)
    yield counting(ask(EquipmentRepository, "figures"))


def checkouts(ask: Ask, examples: Examples) -> Iterator[Query]:
    checkout, ids = examples.rows["checkouts"], examples.item_ids
    new = {"equipment_id": checkout["equipment_id"], "user_id": checkout["user_id"], "due_at": NOW}
    yield ask(CheckoutRepository, "get", checkout["id"])
    yield ask(CheckoutRepository, "add", new)
    yield ask(CheckoutRepository, "close", checkout["id"], "good", None)
    yield ask(CheckoutRepository, "newest_of", ids, ("id",), MOST_PER_ITEM)
    yield ask(CheckoutRepository, "open_of", ids, ("id",))
    yield counting(ask(CheckoutRepository, "figures"))


def people(ask: Ask, examples: Examples) -> Iterator[Query]:
    user = user_of(examples)
    yield ask(IdentityRepository, "user_by_id", user)
    yield ask(IdentityRepository, "user_by_email", examples.email, "192.0.2.1")
    yield ask(IdentityRepository, "user", examples.organization_id, user)
    yield ask(IdentityRepository, "hold", user, "a hash")
    yield ask(IdentityRepository, "next_epoch", examples.organization_id, user)
    yield ask(IdentityRepository, "add_owner", "New", **PERSON, id=uuid7(), organization_id=uuid7())


def sessions(ask: Ask, examples: Examples) -> Iterator[Query]:
    user, session = user_of(examples), uuid7()
    whose = (examples.organization_id, user)
    secrets = {"salt": b"", "token_hash": DIGEST, "device": "", "address": ""}
    new = {"id": session, "organization_id": examples.organization_id, "user_id": user, **secrets}
    yield ask(SessionRepository, "add", HOUR, **new)
    yield ask(SessionRepository, "locked", session)
    yield ask(SessionRepository, "rotate", session, previous=DIGEST, digest=DIGEST, address="")
    yield ask(SessionRepository, "mark_repeated", session)
    yield ask(SessionRepository, "live", *whose, HOUR)
    yield ask(SessionRepository, "oldest_beyond", *whose, 20)
    yield ask(SessionRepository, "end", *whose, "a reason")
    yield ask(SessionRepository, "end", *whose, "a reason", [session])
    yield ask(SessionRepository, "forget")


def credentials(ask: Ask, examples: Examples) -> Iterator[Query]:
    user = user_of(examples)
    yield ask(CredentialRepository, "set_password", user, "a hash", instead_of="another")
    yield ask(CredentialRepository, "set_verified", user)
    yield ask(CredentialRepository, "add_token", user, "a purpose", DIGEST, HOUR)
    yield ask(CredentialRepository, "tokens_since", user, "a purpose", HOUR)
    yield ask(CredentialRepository, "token_owner", "a purpose", DIGEST)
    yield ask(CredentialRepository, "use_token", "a purpose", DIGEST)
    yield ask(CredentialRepository, "drop_tokens", user, "a purpose")
    yield ask(CredentialRepository, "forget_tokens")


def factors(ask: Ask, examples: Examples) -> Iterator[Query]:
    user = user_of(examples)
    yield ask(CredentialRepository, "sealed_secret", user)
    yield ask(CredentialRepository, "offer_factor", user, b"sealed")
    yield ask(CredentialRepository, "factors_after", user, 100)
    yield ask(CredentialRepository, "reseal", user, b"sealed anew", instead_of=b"sealed")
    yield ask(CredentialRepository, "use_step", user, 1)
    yield ask(CredentialRepository, "enable_factor", user)
    yield from both_statements(ask(CredentialRepository, "remove_factor", user))
    yield from both_statements(ask(CredentialRepository, "replace_codes", user, [DIGEST]))
    yield ask(CredentialRepository, "use_code", user, DIGEST)


def members(ask: Ask, examples: Examples) -> Iterator[Query]:
    user = user_of(examples)
    yield ask(MemberRepository, "lock_organization")
    yield ask(MemberRepository, "organization_name")
    yield ask(MemberRepository, "get", user)
    yield ask(MemberRepository, "standing", user)
    yield ask(MemberRepository, "set_tier", "standard")
    yield ask(MemberRepository, "other_owners", user)
    yield ask(MemberRepository, "change", user, role="viewer")


def invited(ask: Ask, examples: Examples) -> Iterator[Query]:
    one = uuid7()
    new = {"email": PERSON["email"], "role": "member", "expires_at": NOW, "invited_by": user_of(examples)}
    yield ask(InvitationRepository, "open_count")
    yield ask(InvitationRepository, "end_expired", PERSON["email"])
    yield ask(InvitationRepository, "add", **new)
    yield ask(InvitationRepository, "revoke", one)
    yield ask(InvitationRepository, "set_digest", one, DIGEST)
    yield called(invitations.find, DIGEST)
    yield called(invitations.accept, DIGEST)
    yield called(invitations.add_member, organization_id=examples.organization_id, **PERSON)


def keys(ask: Ask, examples: Examples) -> Iterator[Query]:
    one = uuid7()
    told = {"name": "a key", "slot": 0, "prefix": "headroom_", "scopes": ["equipment:read"]}
    new = {"user_id": user_of(examples), "digest": DIGEST, "expires_at": NOW, **told}
    yield ask(ApiKeyRepository, "lock", one)
    yield ask(ApiKeyRepository, "live_count")
    yield ask(ApiKeyRepository, "free_slots_of_expired", "a key")
    yield ask(ApiKeyRepository, "add", new)
    yield ask(ApiKeyRepository, "change", one, revoked_at=NOW)
    yield called(api_keys.find, DIGEST)
    yield called(api_keys.note_use, [(examples.organization_id, one)])


def user_of(examples: Examples) -> UUID:
    user: UUID = examples.rows["checkouts"]["user_id"]
    return user
