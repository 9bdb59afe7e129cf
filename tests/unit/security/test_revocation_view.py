"""What a process knows of revocations, how old that may be, and what it does when it can't be found out."""

import asyncio
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest

from app.platform.security import revocation
from app.platform.security.caller import Caller, Role
from app.platform.security.revocation import Revocations, RevocationsUnknown
from app.platform.security.revocation_log import ENDED, Behind, Revoked

ORGANIZATION, USER = uuid4(), uuid4()


class Log:
    """A source that has what a test puts into it; each reading gives what is new, as a server does."""

    def __init__(self, *revoked: Revoked) -> None:
        self.revoked = list(revoked)
        self.error: Exception | None = None
        self.readings = 0

    async def read(self) -> Sequence[Revoked]:
        self.readings += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return list(self.revoked)

    read_caught_up = read

    def close(self) -> None:
        pass


def caller(*, epoch: int = 1, session_id: UUID | None = None) -> Caller:
    return Caller(USER, ORGANIZATION, Role.MEMBER, frozenset(), "id", session_id or uuid4(), epoch)


async def known(primary: Log, *replicas: Log, keep_seconds: float = 60) -> Revocations:
    revocations = Revocations(primary, replicas, keep_seconds=keep_seconds)
    await revocations.ready()
    return revocations


async def test_an_ended_session_is_revoked_and_another_is_not() -> None:
    ended = uuid4()
    revocations = await known(Log(Revoked(ended, ENDED)))
    assert revocations.is_revoked(caller(session_id=ended))
    assert not revocations.is_revoked(caller())


async def test_tokens_of_an_earlier_epoch_are_revoked() -> None:
    revocations = await known(Log(Revoked(USER, 2)))
    assert [revocations.is_revoked(caller(epoch=epoch)) for epoch in (0, 1, 2, 3)] == [True, True, False, False]


async def test_an_older_revocation_takes_nothing_back() -> None:
    log = Log(Revoked(USER, 3))
    revocations = await known(log)
    log.revoked = [Revoked(USER, 2)]
    await revocations.refresh()
    assert revocations.is_revoked(caller(epoch=2))


async def test_what_no_token_is_left_of_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation, "MARGIN_SECONDS", 0.0)
    log = Log(Revoked(USER, 2))
    revocations = await known(log, keep_seconds=0.05)
    log.revoked = []
    await asyncio.sleep(0.06)
    await revocations.refresh()
    assert not revocations.is_revoked(caller())
    assert not revocations._least


async def test_what_is_known_is_good_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    revocations = await known(log)
    assert revocations.is_fresh
    await revocations.ready()
    assert log.readings == 1
    monkeypatch.setattr(revocation, "FRESH_SECONDS", 0.0)
    assert not revocations.is_fresh


async def test_many_who_wait_ask_once() -> None:
    log = Log()
    revocations = Revocations(log, (), keep_seconds=60)
    await asyncio.gather(*(revocations.ready() for _ in range(50)))
    assert log.readings == 1


async def test_while_the_primary_is_away_all_replicas_answer_for_it() -> None:
    primary, first, second = Log(), Log(Revoked(USER, 2)), Log(Revoked(ORGANIZATION, 2))
    primary.error = OSError("away")
    revocations = await known(primary, first, second)
    assert revocations.is_revoked(caller())


@pytest.mark.parametrize("error", [OSError("away"), Behind("it")])
async def test_one_replica_that_does_not_know_is_enough_to_trust_nobody(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(revocation, "FRESH_SECONDS", 0.1)
    primary, well, unwell = Log(), Log(), Log()
    primary.error, unwell.error = OSError("away"), error
    with pytest.raises(RevocationsUnknown):
        await known(primary, well, unwell)


async def test_without_a_primary_and_replicas_nobody_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation, "FRESH_SECONDS", 0.1)
    primary = Log()
    primary.error = OSError("away")
    with pytest.raises(RevocationsUnknown):
        await known(primary)


async def test_more_than_can_be_kept_means_nobody_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation, "FRESH_SECONDS", 0.1)
    monkeypatch.setattr(revocation, "MAX_ROWS", 3)
    with pytest.raises(RevocationsUnknown):
        await known(Log(*(Revoked(uuid4(), ENDED) for _ in range(3))))


async def test_a_wake_up_asks_before_the_pause_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation, "PAUSE_SECONDS", 60.0)
    log = Log()
    revocations = Revocations(log, (), keep_seconds=60)
    await revocations.start()
    log.revoked = [Revoked(USER, 2)]
    revocations.wake()
    async with asyncio.timeout(5):
        while not revocations.is_revoked(caller()):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
    await revocations.aclose()


async def test_control_switched_off_everything_is_good_and_nobody_is_asked() -> None:
    log = Log(Revoked(USER, 2))
    revocations = Revocations(log, (), keep_seconds=60, enabled=False)
    await revocations.start()
    await revocations.ready()
    assert not revocations.is_revoked(caller())
    assert log.readings == 0
