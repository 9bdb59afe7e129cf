"""Which metrics a query asks for."""

import re

STRING = re.compile(r'"[^"]*"')
BRACES = re.compile(r"\{[^}]*\}")
LABELS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
RANGE = re.compile(r"\[[^\]]*\]")
NAME = re.compile(r"\b[a-zA-Z_:][\w:]*\b(?!\s*\()")
KEYWORDS = {"and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring"}


def metrics_of(query: str) -> set[str]:
    for pattern in (STRING, BRACES, LABELS, RANGE):
        query = pattern.sub(" ", query)
    return set(NAME.findall(query)) - KEYWORDS
