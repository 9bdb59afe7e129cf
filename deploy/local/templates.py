"""Files with names in capital letters, `${LIKE_THIS}`, filled in as envsubst does."""

import re
from collections.abc import Mapping


def render(template: str, variables: Mapping[str, str]) -> str:
    """Raises KeyError for a variable that is not given."""
    return re.sub(r"\$\{([A-Z_]+)\}", lambda match: variables[match[1]], template)
