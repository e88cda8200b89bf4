"""Find secrets by content: private keys, AWS keys, and the build's own secrets by value.

A block is searched for a few exact strings, which Python does at a gigabyte per second; a pattern is only tried around
one of them. So a mention of private keys, as in libraries and manuals, costs nothing and is not a finding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from re import Pattern
from typing import NamedTuple

BLOCK_BYTES = 1 << 20
OVERLAP_BYTES = 8 << 10
"""Overlap of consecutive blocks: nothing that a pattern finds is longer."""
LEAST_BODY = 60
"""Shortest base64 body of a key; an Ed25519 key, the shortest, has 64 characters."""
NEAR_BYTES = 1024
"""Largest distance between an access key id and its secret."""
LEAST_SECRET = 8
"""Shortest secret that is searched for: shorter ones occur in programs by chance."""
LEAST_LINE = 20


def _of_itself(block: bytes, at: int) -> bool:
    return True


class Anchor(NamedTuple):
    """A string that is quickly found, and the check that decides whether it is a finding."""

    rule: str
    text: bytes
    """Exact text, or the beginning of the pattern."""
    matches: Callable[[bytes, int], bool] = _of_itself
    """Function that returns whether a place is a finding, given the block and the position of the text."""
    pattern: Pattern[bytes] | None = None
    """Pattern to search for instead of the text. As fast as a text only if the pattern begins with a fixed letter."""

    def places(self, block: bytes) -> Iterator[int]:
        """Yield the places of the text in a block."""
        if self.pattern is not None:
            yield from (found.start() for found in self.pattern.finditer(block))
            return
        at = block.find(self.text)
        while at >= 0:
            yield at
            at = block.find(self.text, at + 1)


def is_private_key(block: bytes, at: int) -> bool:
    """Return whether a key follows its header: with real or escaped line ends, indented or not, encrypted or not."""
    header = _HEADER.match(block, max(block.rfind(b"-----BEGIN ", max(0, at - 64), at), 0))
    if header is None or header.start() > at:
        return False
    body, _, _ = block[header.end() : header.end() + OVERLAP_BYTES // 2].partition(b"-----")
    return _BODY.match(_BETWEEN.sub(b"", _FIELDS.sub(b"", body))) is not None


def is_aws_id(block: bytes, at: int) -> bool:
    """Return whether this is an access key id with its secret near it. An id alone is not a secret."""
    found = _ID.match(block, at)
    if found is None or (at and block[at - 1 : at].isalnum()) or b"EXAMPLE" in found.group():
        return False
    near = block[max(0, at - NEAR_BYTES) : found.end() + NEAR_BYTES]
    return any(_is_random(each.group()) for each in _SECRET.finditer(near))


def is_aws_secret(block: bytes, at: int) -> bool:
    """Return whether a possible secret access key follows its name."""
    found = _VALUE.match(block, at)
    return found is not None and _is_random(found.group(1))


_HEADER = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----")
_FIELDS = re.compile(rb"[A-Za-z-]+: ?(?:[^\n\\]|\\[^n])*(?:\\n|\n)")  # Proc-Type, DEK-Info; Version and Comment of PGP
_BETWEEN = re.compile(rb"(?:\\[nrt]|[\s\"',\\])+")
_BODY = re.compile(rb"[A-Za-z0-9+/=]{%d}" % LEAST_BODY)
_ID = re.compile(rb"A[KS]IA[A-Z2-7]{16}(?![A-Za-z0-9])")
_SECRET = re.compile(rb"(?<![A-Za-z0-9/+])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])")
_VALUE = re.compile(rb"[A-Za-z_]+[\"']?\s*[:=]\s*[\"']?([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])")


def _is_random(secret: bytes) -> bool:
    """Return whether forty characters look like a secret, not like a digest, a path or an example."""
    kinds = (rb"[a-z]", rb"[A-Z]", rb"[0-9]")
    return all(re.search(kind, secret) for kind in kinds) and b"EXAMPLE" not in secret and len(set(secret)) > 16


KNOWN = (
    Anchor("private-key", b"PRIVATE KEY", is_private_key),
    Anchor("aws-key", b"A", is_aws_id, _ID),
    Anchor("aws-key", b"aws_secret_access_key", is_aws_secret),
    Anchor("aws-key", b"AWS_SECRET_ACCESS_KEY", is_aws_secret),
    Anchor("aws-key", b"ecretAccessKey", is_aws_secret),  # the first letter, S or s, is left out
)


def by_value(rule: str, values: Iterable[str]) -> list[Anchor]:
    """Return anchors for these values. A value of several lines is also found by its longest line, even if indented."""
    texts = set()
    for value in values:
        whole = value.strip()
        longest = max(whole.splitlines(), key=len, default="").strip()
        if len(whole) >= LEAST_SECRET:
            texts.add(whole)
        if len(longest) >= LEAST_LINE:
            texts.add(longest)
    return [Anchor(rule, text.encode("utf-8", "surrogateescape")) for text in sorted(texts)]


def search(blocks: Iterable[bytes], anchors: Iterable[Anchor]) -> set[str]:
    """Return the rules that a file's content violates, given its blocks in order."""
    found: set[str] = set()
    left = list(anchors)
    overlap = max([OVERLAP_BYTES, *(len(each.text) for each in left)])
    for block in _overlapping(blocks, overlap):
        left = [each for each in left if each.rule not in found]
        for anchor in left:
            if anchor.rule not in found and any(anchor.matches(block, at) for at in anchor.places(block)):
                found.add(anchor.rule)
    return found


def _overlapping(blocks: Iterable[bytes], overlap: int) -> Iterator[bytes]:
    rest = b""
    for block in blocks:
        whole = rest + block if rest else block
        yield whole
        rest = whole[-overlap:]
