"""What each role may do. Tokens carry the scopes, so that no request has to look the role up."""

from collections.abc import Mapping

from app.platform.security.caller import Role

READ = frozenset({"equipment:read", "checkouts:read", "analytics:read", "members:read"})
WRITE = READ | {"equipment:write", "checkouts:write", "api_keys:manage"}
ADMINISTER = WRITE | {"audit:read", "members:manage"}

SCOPES: Mapping[Role, frozenset[str]] = {
    Role.OWNER: ADMINISTER,
    Role.ADMIN: ADMINISTER,
    Role.MEMBER: WRITE,
    Role.VIEWER: READ,
}
