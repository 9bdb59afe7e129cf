"""Takes out of a text what may be about a person, or let somebody in. Errors quote what they failed at."""

import re

REMOVED = "[removed]"
MAX_CHARACTERS = 2_048

_PATTERNS = (
    re.compile(r"(?<=\[parameters: ).*", re.DOTALL),  # SQLAlchemy's, of the statement that failed
    re.compile(r"(?<=\)=\().*?(?=\) (?:already exists|is not present|is still referenced))"),  # Postgres' DETAIL
    re.compile(r"(?<=Failing row contains \().*(?=\))", re.DOTALL),
    re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),  # e-mail addresses
    re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"),  # JSON web tokens
    re.compile(r"(?i)(?<=bearer )\S+"),
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),  # user and password in an address
)


def scrubbed(text: str) -> str:
    """Cut to MAX_CHARACTERS, which also bounds what the patterns have to look at."""
    text = text[:MAX_CHARACTERS]
    for pattern in _PATTERNS:
        text = pattern.sub(REMOVED, text)
    return text
