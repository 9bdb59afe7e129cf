"""Refresh tokens: who can make one, and what can be told from one."""

from uuid import uuid4

import pytest

from app.platform.security.refresh_tokens import RefreshTokens
from app.platform.security.secrets import Keyring

TOKENS = RefreshTokens.keyed_by("a secret of the tests")
SALT = b"s" * 32


def test_a_token_is_read_back() -> None:
    token = TOKENS.first(uuid4())
    assert TOKENS.parse(token.text) == token
    assert token.text.startswith("hrr_")


def test_first_tokens_are_random() -> None:
    session_id = uuid4()
    assert TOKENS.first(session_id).secret != TOKENS.first(session_id).secret


def test_the_successor_is_the_same_however_often_it_is_derived() -> None:
    token = TOKENS.first(uuid4())
    assert TOKENS.successor(token, SALT) == TOKENS.successor(token, SALT) != token


def test_the_successor_takes_the_key_the_salt_and_the_token() -> None:
    token = TOKENS.first(uuid4())
    others = (
        RefreshTokens.keyed_by("another").successor(token, SALT),
        TOKENS.successor(token, b"t" * 32),
        TOKENS.successor(TOKENS.first(token.session_id), SALT),
    )
    assert len({TOKENS.successor(token, SALT).secret, *(other.secret for other in others)}) == 4


def test_one_that_was_made_up_is_told_from_ours() -> None:
    token = RefreshTokens.keyed_by("another").first(uuid4())
    read = TOKENS.parse(token.text)
    assert read is not None
    assert not read.genuine


def test_while_the_key_is_rotated_tokens_of_both_keys_are_ours_and_each_successor_is_known() -> None:
    ring = Keyring("old")
    tokens = RefreshTokens.keyed_by(ring)
    token = tokens.first(uuid4())
    text, successor = token.text, tokens.successor(token, SALT)
    ring.follow(Keyring("new", ["old"]))
    read = tokens.parse(text)
    assert read is not None
    assert read.genuine
    assert successor in tokens.successors(token, SALT)
    assert tokens.successor(token, SALT) == RefreshTokens.keyed_by("new").successor(token, SALT) != successor


def test_when_the_old_key_is_gone_it_makes_nothing_of_ours() -> None:
    ring = Keyring("old")
    tokens = RefreshTokens.keyed_by(ring)
    token = tokens.first(uuid4())
    text, successor = token.text, tokens.successor(token, SALT)
    ring.follow(Keyring("new"))
    read = tokens.parse(text)
    assert read is not None
    assert not read.genuine
    assert read.digest == token.digest, "its session goes on: that is known by its hash"
    assert successor not in tokens.successors(token, SALT)


def test_what_is_kept_is_not_what_logs_in() -> None:
    token = TOKENS.first(uuid4())
    assert token.secret not in token.digest
    assert token.digest not in (token.secret, token.text.encode())


def test_a_successor_reads_the_same_wherever_it_is_given_while_keys_change() -> None:
    before, after = (RefreshTokens.keyed_by(Keyring(*keys)) for keys in (("old", ["new"]), ("new", ["old"])))
    token = before.first(uuid4())
    assert {each.text for each in before.successors(token, SALT)} == {
        each.text for each in after.successors(token, SALT)
    }


@pytest.mark.parametrize("text", ["", "hrr_", "hrr_x", "hrr_" + "A" * 85, "hrr_" + "A" * 400, "hrr_é", "A" * 90])
def test_what_can_not_be_one_is_none(text: str) -> None:
    assert TOKENS.parse(text) is None
