"""What an API key looks like, and how long it is remembered."""

import asyncio
import re
import time
from collections.abc import Collection
from uuid import UUID, uuid4

import pytest

from app.platform.security.api_keys import (
    MOST_LOOKUPS,
    MOST_REMEMBERED,
    PATTERN,
    ApiKeys,
    FoundKey,
    digest_of,
    is_well_formed,
    new_key,
    shown_part,
)
from app.platform.security.caller import Caller, Role
from app.platform.security.tokens import ExpiredToken, InvalidToken


class Keys:
    """A database of one key, that counts how often it is asked."""

    def __init__(self, lifetime_seconds: float = 60.0) -> None:
        self.key = new_key()
        self.asked = 0
        self.at_once = 0
        self.most_at_once = 0
        self.used: list[UUID] = []
        key_id = uuid4()
        caller = Caller(uuid4(), uuid4(), Role.MEMBER, frozenset(), str(key_id), api_key_id=key_id)
        self.found: FoundKey | None = FoundKey(caller, time.time() + lifetime_seconds)

    async def find(self, digest: bytes) -> FoundKey | None:
        self.asked += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0.01)
        self.at_once -= 1
        return self.found if digest == digest_of(self.key) else None

    async def note_use(self, keys: Collection[tuple[UUID, UUID]]) -> None:
        self.used += [key_id for _, key_id in keys]


def test_keys_differ_and_have_one_form() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(is_well_formed(key) for key in keys)


def test_a_scanner_finds_a_key_in_a_text_by_its_pattern() -> None:
    key = new_key()
    found = re.search(PATTERN, f"curl -H 'Authorization: Bearer {key}' https://example.com")
    assert found is not None
    assert found[0] == key


def test_a_slip_of_the_pen_is_noticed_without_asking_anybody() -> None:
    key = new_key()
    for place in range(len("headroom_"), len(key)):
        wrong = key[:place] + ("A" if key[place] != "A" else "B") + key[place + 1 :]
        assert not is_well_formed(wrong)


@pytest.mark.parametrize("token", ["", "headroom_", "headroom_" + "0" * 49 + "0", "headroom-" + "0" * 49, "x" * 58])
def test_what_is_no_key(token: str) -> None:
    assert not is_well_formed(token)


def test_what_is_shown_of_a_key_is_no_use() -> None:
    assert len(new_key()) - len(shown_part(new_key())) > 40


async def test_a_key_is_asked_for_once_in_a_while() -> None:
    keys = Keys()
    api_keys = ApiKeys(keys.find, keys.note_use)
    callers = await asyncio.gather(*(api_keys.verify(keys.key) for _ in range(20)))
    assert api_keys.known(keys.key) is callers[0]
    assert len(set(map(id, callers))) == 1
    assert keys.asked == 1


async def test_what_is_remembered_is_the_same_object_as_long_as_nothing_changed() -> None:
    keys = Keys()
    api_keys = ApiKeys(keys.find, keys.note_use, remember_seconds=0)
    first = await api_keys.verify(keys.key)
    assert await api_keys.verify(keys.key) is first
    assert keys.asked == 2


async def test_a_key_that_is_forgotten_is_asked_for_again() -> None:
    keys = Keys()
    api_keys = ApiKeys(keys.find, keys.note_use)
    await api_keys.verify(keys.key)
    api_keys.forget(keys.key)
    keys.found = None
    with pytest.raises(InvalidToken):
        await api_keys.verify(keys.key)
    assert api_keys.known(keys.key) is None


async def test_an_expired_key_is_refused_though_it_is_remembered() -> None:
    keys = Keys(lifetime_seconds=0.05)
    api_keys = ApiKeys(keys.find, keys.note_use)
    await api_keys.verify(keys.key)
    await asyncio.sleep(0.06)
    assert api_keys.known(keys.key) is None
    with pytest.raises(ExpiredToken):
        await api_keys.verify(keys.key)
    assert keys.asked == 1


async def test_unknown_keys_are_remembered_too_and_few_are_asked_for_at_once() -> None:
    keys = Keys()
    api_keys = ApiKeys(keys.find, keys.note_use)
    guesses = [new_key() for _ in range(40)] * 2
    results = await asyncio.gather(*(api_keys.verify(guess) for guess in guesses), return_exceptions=True)
    assert {type(result) for result in results} == {InvalidToken}
    assert keys.asked == 40
    assert keys.most_at_once <= MOST_LOOKUPS


async def test_what_is_remembered_is_bounded() -> None:
    keys = Keys()
    api_keys = ApiKeys(keys.find, keys.note_use)
    api_keys._remembered.update({number.to_bytes(2): None for number in range(MOST_REMEMBERED)})  # type: ignore[misc]
    await api_keys.verify(keys.key)
    assert len(api_keys._remembered) == MOST_REMEMBERED


async def test_its_use_is_noted_once_however_often_it_is_used() -> None:
    keys = Keys()
    api_keys = ApiKeys(keys.find, keys.note_use)
    for _ in range(5):
        await api_keys.verify(keys.key)
    await api_keys.uses.write_noted()
    await api_keys.uses.write_noted()
    assert len(keys.used) == 1


async def test_a_database_that_is_away_costs_the_note_and_no_more() -> None:
    async def refuse(_: Collection[UUID]) -> None:
        raise OSError

    keys = Keys()
    api_keys = ApiKeys(keys.find, refuse)
    await api_keys.verify(keys.key)
    await api_keys.uses.write_noted()
