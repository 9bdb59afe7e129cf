"""A token that was not signed here, or is too old, is as none."""

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.platform.postgres.positions import pack
from app.platform.postgres.tokens import ConsistencyTokens

POSITION = pack(3, 0x1_6B37_4D48)

tokens = ConsistencyTokens("a secret that is long enough")


@given(st.integers(0, 2_047), st.integers(0, 2**53 - 1))
def test_a_token_tells_its_position(timeline: int, lsn: int) -> None:
    assert tokens.verify(tokens.sign(pack(timeline, lsn))) == pack(timeline, lsn)


def test_a_token_is_short_and_fits_a_header() -> None:
    token = tokens.sign(POSITION)
    assert len(token) < 50
    assert token.replace("-", "").replace("_", "").isalnum()


def test_an_expired_token_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    token = ConsistencyTokens("secret", lifetime_seconds=60).sign(POSITION)
    assert ConsistencyTokens("secret").verify(token) == POSITION
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    assert ConsistencyTokens("secret").verify(token) is None


def test_a_token_of_another_secret_is_none() -> None:
    assert tokens.verify(ConsistencyTokens("another secret").sign(POSITION)) is None


def test_no_changed_byte_passes() -> None:
    signed = base64.urlsafe_b64decode(tokens.sign(POSITION) + "==")
    for index in range(len(signed)):
        changed = bytearray(signed)
        changed[index] ^= 1
        assert tokens.verify(base64.urlsafe_b64encode(changed).rstrip(b"=").decode()) is None


@given(st.text(max_size=100))
def test_anything_else_is_none(text: str) -> None:
    assert tokens.verify(text) is None


def test_odd_tokens_of_the_right_length_are_none() -> None:
    length = len(tokens.sign(POSITION))
    for odd in ("é" * length, "=" * length, " " * length, "!" * length, "A" * length):
        assert tokens.verify(odd) is None
