"""Who is asking."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID


class Role(StrEnum):
    """What a member may be in an organization, the least first."""

    VIEWER = "viewer"
    MEMBER = "member"
    ADMIN = "admin"
    OWNER = "owner"

    def at_least(self, other: Role) -> bool:
        return _RANK[self] >= _RANK[other]


_RANK = {role: rank for rank, role in enumerate(Role)}


NO_SESSION = UUID(int=0)
STANDARD_TIER = "standard"


@dataclass(frozen=True, slots=True)
class Caller:
    user_id: UUID
    organization_id: UUID
    role: Role
    scopes: frozenset[str]
    token_id: str
    session_id: UUID = NO_SESSION
    epoch: int = 0  # of the user when the token was issued: a later change of what they may do begins another one
    api_key_id: UUID | None = None  # where it was a key that spoke for the user
    tier: str = STANDARD_TIER  # of the organization: what its rate limits are multiplied by (see `limits`)
    key: str = field(init=False, repr=False, compare=False)  # names the caller in cache and limit keys

    def __post_init__(self) -> None:
        # A user may belong to several organizations, and sees other things in each.
        object.__setattr__(self, "key", f"{self.organization_id.hex}.{self.user_id.hex}")
