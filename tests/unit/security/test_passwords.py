import asyncio
from time import perf_counter

import pytest

from app.platform.security.passwords import MAX_PASSWORD_BYTES, PasswordHasher, PasswordTooLong


def cheap(concurrency: int = 2) -> PasswordHasher:
    return PasswordHasher(concurrency, memory_kib=64, passes=1)


async def test_hash_and_verify() -> None:
    hasher = cheap()
    hashed = await hasher.hash("correct horse")
    assert await hasher.verify(hashed, "correct horse")
    assert not await hasher.verify(hashed, "battery staple")
    assert await hasher.hash("correct horse") != hashed


async def test_parameters_are_those_of_owasp() -> None:
    assert (await PasswordHasher(1).hash("correct horse")).startswith("$argon2id$v=19$m=19456,t=2,p=1$")


async def test_one_password_however_the_keyboard_composes_it() -> None:
    hasher = cheap()
    assert await hasher.verify(await hasher.hash("caf\u00e9"), "cafe\u0301")


@pytest.mark.parametrize("password", ["", "\0", "a\0b", "\ud800", "😀" * 250])
async def test_odd_passwords(password: str) -> None:
    hasher = cheap()
    assert await hasher.verify(await hasher.hash(password), password)
    assert not await hasher.verify(await hasher.hash(password), password + "x")


async def test_too_long_is_refused_before_any_work() -> None:
    hasher = cheap()
    longest = "x" * MAX_PASSWORD_BYTES
    assert await hasher.verify(await hasher.hash(longest), longest)
    with pytest.raises(PasswordTooLong):
        await hasher.hash(longest + "x")
    assert not await hasher.verify("never looked at", longest + "x")
    assert not await hasher.verify_absent(longest + "x")


async def test_nobodys_password_is_never_right() -> None:
    assert not await cheap().verify_absent("correct horse")


async def test_an_absent_account_takes_as_long_as_a_present_one() -> None:
    hasher = PasswordHasher(1)
    hashed = await hasher.hash("correct horse")
    known, unknown = [], []
    for _ in range(9):  # interleaved, so that both see the same machine
        known.append(await _seconds(hasher.verify(hashed, "wrong")))
        unknown.append(await _seconds(hasher.verify_absent("wrong")))
    assert 0.5 < sorted(unknown)[4] / sorted(known)[4] < 2


async def _seconds(verifying: object) -> float:
    started = perf_counter()
    await verifying  # type: ignore[misc]
    return perf_counter() - started


async def test_needs_rehash_when_parameters_change() -> None:
    old = await cheap().hash("correct horse")
    assert not cheap().needs_rehash(old)
    assert PasswordHasher(1).needs_rehash(old)


async def test_the_loop_runs_on_and_hashes_are_few_at_a_time() -> None:
    hasher = PasswordHasher(2)
    running = asyncio.gather(*(hasher.hash("correct horse") for _ in range(10)))
    longest, most, started = 0.0, 0, perf_counter()
    while not running.done():
        before = perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, perf_counter() - before)
        most = max(most, hasher._limiter.borrowed_tokens)
    await running
    assert most == 2
    assert longest < (perf_counter() - started) / 2  # on the loop, they would hold it for as long as all take


async def test_waiting_for_a_turn_can_be_given_up() -> None:
    hasher = PasswordHasher(1)
    first = asyncio.create_task(hasher.hash("first"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.005):
            await asyncio.gather(*(hasher.hash("later") for _ in range(50)))
    assert await first
    assert await hasher.verify(await hasher.hash("still works"), "still works")
