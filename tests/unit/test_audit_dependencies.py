"""What is said of pip-audit's results: nothing that was not audited passes as sound."""

import json
from typing import Any

import pytest

from deploy.audit_dependencies import Outcome, outcome_of, verdict

SOUND = {"name": "a", "version": "1", "vulns": []}
VULNERABLE = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "c", "skip_reason": "not found"}


def output(*dependencies: dict[str, Any]) -> str:
    return json.dumps({"dependencies": dependencies, "fixes": []})


@pytest.mark.parametrize(
    ("written", "code", "required_code", "told"),
    [
        (output(SOUND), 0, 0, "1 packages, no known vulnerability"),
        (output(SOUND, VULNERABLE), 1, 1, "b 2: PYSEC-1 (fixed in 3)"),
        (output(SKIPPED, VULNERABLE), 1, 1, "b 2: PYSEC-1"),
        (output(SOUND, SKIPPED), 0, 2, "NOT AUDITED"),
        (output(SKIPPED), 0, 2, "NOT AUDITED"),
        (output(), 0, 2, "NOT AUDITED"),
        ("", 0, 2, "NOT AUDITED"),
        ("Traceback ...", 0, 2, "NOT AUDITED"),
    ],
)
def test_the_verdict(written: str, code: int, required_code: int, told: str) -> None:
    outcome = outcome_of(written)
    for required, expected in ((False, code), (True, required_code)):
        found, text = verdict("x.lock", outcome, required=required)
        assert found == expected
        assert told in text


def test_what_was_skipped_is_counted() -> None:
    assert outcome_of(output(SOUND, SKIPPED, SKIPPED)) == Outcome(1, 2, [])
