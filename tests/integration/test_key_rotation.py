"""The key that signs access tokens is changed under load: no request fails, on whichever of two processes."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app.platform.security import key_folder
from tests.support.api import new_app, over_socket, serving
from tests.support.calls import EQUIPMENT, body_of
from tests.support.identity import AUTH, bearer, logged_in
from tests.support.stack import DataServices

pytestmark = pytest.mark.asyncio(loop_scope="session")

ACTIVATION = 1.0
CLIENTS = 4


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_folder, "LOOK_SECONDS", 0.1)


def put_key(folder: Path, name: str, age: float = 0.0) -> Path:
    path = folder / f"{name}.pem"
    written = folder / f".{name}"
    private = ed25519.Ed25519PrivateKey.generate()
    written.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    os.utime(written, (time.time() - age,) * 2)
    return written.rename(path)


@pytest.fixture
def urls(services: DataServices, api_database: str, tmp_path: Path, quick: None) -> Iterator[list[str]]:
    """Two processes, as far as what they keep in memory goes, that read the same folder."""
    put_key(tmp_path, "old", age=1_000)
    changes = {"jwt_keys_folder": tmp_path, "jwt_key_activation_seconds": ACTIVATION}
    first, second = (new_app(services, api_database, **changes) for _ in range(2))
    with serving(first) as one, serving(second) as other:
        yield [one, other]


async def key_ids(url: str) -> list[str]:
    async with httpx.AsyncClient() as client:
        return [key["kid"] for key in body_of(await client.get(f"{url}/.well-known/jwks.json"))["keys"]]


async def work(urls: list[str], enough: asyncio.Event, statuses: Counter[int]) -> None:
    """Refreshes at one process, and reads at the other with what it got."""
    async with over_socket(urls[0]) as home, over_socket(urls[1]) as away:
        _, token = await logged_in(home)
        while not enough.is_set():
            answer = await home.post(f"{AUTH}/refresh", json={"refresh_token": token["refresh_token"]})
            statuses[answer.status_code] += 1
            token = body_of(answer)
            for client in (home, away):
                statuses[(await client.get(EQUIPMENT, headers=bearer(token))).status_code] += 1


async def rotated(urls: list[str], change: Any) -> Counter[int]:
    """What the clients were answered meanwhile."""
    enough, statuses = asyncio.Event(), Counter[int]()
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            order = urls if number % 2 else urls[::-1]
            group.create_task(work(order, enough, statuses))
        await asyncio.sleep(0.5)
        await change()
        await asyncio.sleep(0.5)
        enough.set()
    return statuses


async def until_signing(urls: list[str], others: set[str]) -> None:
    """Until every process signs with a key that is not among the others."""
    async with asyncio.timeout(20):
        for url in urls:
            while (await key_ids(url))[0] in others:  # noqa: ASYNC110 - files tell no one
                await asyncio.sleep(0.05)


async def statuses_with(token: dict[str, Any], urls: list[str]) -> list[int]:
    async with httpx.AsyncClient(headers=bearer(token)) as client:
        return [(await client.get(f"{url}{EQUIPMENT}")).status_code for url in urls]


async def token_of(url: str) -> dict[str, Any]:
    async with over_socket(url) as client:
        return (await logged_in(client))[1]


async def test_a_key_is_changed_under_load_and_no_request_fails(urls: list[str], tmp_path: Path) -> None:
    before, token = set(await key_ids(urls[0])), await token_of(urls[0])

    async def change() -> None:
        put_key(tmp_path, "new")
        await until_signing(urls, before)
        assert before < set(await key_ids(urls[1]))

    statuses = await rotated(urls, change)
    assert set(statuses) == {200}
    assert statuses[200] > 20
    assert await statuses_with(token, urls) == [200, 200]


async def test_control_without_the_overlap_tokens_of_before_are_refused(urls: list[str], tmp_path: Path) -> None:
    before, token = set(await key_ids(urls[0])), await token_of(urls[0])
    assert await statuses_with(token, urls) == [200, 200]
    (tmp_path / "old.pem").unlink()
    put_key(tmp_path, "new", age=1_000)
    await until_signing(urls, before)
    assert await statuses_with(token, urls) == [401, 401]
