from uuid import uuid4

from app.platform.security.caller import Caller, Role


def test_roles_are_ordered() -> None:
    assert Role.OWNER.at_least(Role.ADMIN)
    assert Role.ADMIN.at_least(Role.ADMIN)
    assert not Role.VIEWER.at_least(Role.MEMBER)


def test_the_key_tells_users_and_organizations_apart() -> None:
    user, here, there = uuid4(), uuid4(), uuid4()
    keys = {
        Caller(user, organization, Role.MEMBER, frozenset(), "token").key
        for user, organization in ((user, here), (user, there), (uuid4(), here))
    }
    assert len(keys) == 3


def test_the_key_is_the_callers_whatever_the_token() -> None:
    user, organization = uuid4(), uuid4()
    one = Caller(user, organization, Role.MEMBER, frozenset(), "one")
    two = Caller(user, organization, Role.ADMIN, frozenset({"audit:read"}), "two")
    assert one.key == two.key
