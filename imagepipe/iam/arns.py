"""Wildcards of IAM's language (IAM user guide, "IAM JSON policy elements: Resource")."""

from __future__ import annotations

import re
from functools import lru_cache


def text_fits(pattern: str, text: str) -> bool:
    """Return whether a pattern with `*` (any characters) and `?` (one character) matches a text."""
    return _compiled(pattern).fullmatch(text) is not None


def arn_fits(pattern: str, arn: str) -> bool:
    """Return whether a pattern matches an ARN: a wildcard stays within its part between colons, except in the last."""
    if pattern == "*":
        return True
    wanted, found = pattern.split(":", 5), arn.split(":", 5)
    return len(wanted) == len(found) and all(map(text_fits, wanted, found))


@lru_cache(maxsize=4096)  # the local cloud evaluates the policies at each call
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(each, re.escape(each)) for each in pattern), re.DOTALL)
