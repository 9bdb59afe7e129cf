import pytest

from app.platform.telemetry.scrubbing import MAX_CHARACTERS, REMOVED, scrubbed

SECRET = "S3cret"


@pytest.mark.parametrize(
    "text",
    [
        f"insert failed [SQL: INSERT INTO users VALUES ($1)] [parameters: ('{SECRET}', 'two')]",
        f"DETAIL: Key (organization_id, asset_tag)=(01, {SECRET}) already exists.",
        f"DETAIL: Failing row contains (1, {SECRET}, null).",
        f"no user {SECRET}@example.com",
        f"token eyJhbGciOiJFZERTQSJ9.{SECRET}.abc is bad",
        f"Authorization: Bearer {SECRET}",
        f"can't connect to postgresql://headroom:{SECRET}@db/headroom",
    ],
)
def test_what_is_private_is_removed(text: str) -> None:
    assert SECRET not in scrubbed(text)
    assert REMOVED in scrubbed(text)


def test_the_rest_stays() -> None:
    text = "division by zero in /api/v1/equipment/{equipment_id}: Key (id) of 7 items"
    assert scrubbed(text) == text


def test_it_is_bounded() -> None:
    assert len(scrubbed("x" * 10 * MAX_CHARACTERS)) == MAX_CHARACTERS
