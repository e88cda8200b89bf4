"""Secrets by content, in every dress that they come in."""

from __future__ import annotations

import pytest

from imagepipe.hygiene.content import KNOWN, by_value, search
from tests.hygiene.planted import AWS_ID, AWS_SECRET, PEM_KINDS, pem


def _rules(content: bytes | str) -> set[str]:
    return search([content if isinstance(content, bytes) else content.encode()], KNOWN)


@pytest.mark.parametrize("kind", PEM_KINDS)
def test_a_private_key_of_any_kind_is_one(kind: str) -> None:
    assert _rules(pem(kind)) == {"private-key"}
    assert _rules(f"first\n{pem(kind)}last\n") == {"private-key"}


def test_a_pgp_key_is_one() -> None:
    body = "lQOYBGVkZ2UBCADKz0lq7Hm3q0Zs1m9m4x2VbN0d8f3kq1w2e3r4t5y6u7i8o9p0"
    block = f"-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: GnuPG v2\n\n{body}\n-----END PGP PRIVATE KEY BLOCK-----\n"
    assert _rules(block) == {"private-key"}


def test_a_key_after_a_mere_mention_is_found() -> None:
    assert _rules(f"-----BEGIN PRIVATE KEY----- is the header\n{pem('ec')}") == {"private-key"}


@pytest.mark.parametrize(
    "text",
    [
        f"aws_secret_access_key={AWS_SECRET}",
        f"aws_secret_access_key = {AWS_SECRET}\n",
        f"export AWS_SECRET_ACCESS_KEY='{AWS_SECRET}'",
        f'"secretAccessKey": "{AWS_SECRET}"',
        f"{AWS_ID}:{AWS_SECRET}",
        f"{AWS_SECRET}\n{'x' * 500}\n{AWS_ID}\n",
    ],
)
def test_a_secret_access_key_is_found_by_its_name_or_by_its_id(text: str) -> None:
    assert _rules(text) == {"aws-key"}


@pytest.mark.parametrize(
    "text",
    [
        AWS_SECRET,
        f"{AWS_ID} {'x' * 2000} {AWS_SECRET}",
        f"x{AWS_ID} {AWS_SECRET}",
        f"{AWS_ID}7 {AWS_SECRET}",
        f"aws_secret_access_key={AWS_SECRET}x",
        f"aws_secret_access_key={'aB1' + 'a' * 37}",
    ],
    ids=["alone", "far from its id", "id within a word", "id that is longer", "longer", "not random"],
)
def test_forty_letters_are_not_always_a_key(text: str) -> None:
    assert _rules(text) == set()


def test_values_are_found_exactly_and_short_ones_are_not_looked_for() -> None:
    anchors = by_value("build-secret", ["hunter2hunter2\n", "prod", "", "ünïcödé-wörd"])
    assert {each.text for each in anchors} == {b"hunter2hunter2", "ünïcödé-wörd".encode()}
    assert search([b"a=hunter2hunter2;"], anchors) == {"build-secret"}
    assert search([b"a=hunter2hunter;prod"], anchors) == set()


def test_of_a_value_with_several_lines_one_that_is_indented_is_enough() -> None:
    anchors = by_value("build-secret", ["short\n0123456789 0123456789 0123456789\nend"])
    assert search([b"  short\n  0123456789 0123456789 0123456789\n  end\n"], anchors) == {"build-secret"}


def test_a_value_longer_than_the_overlap_is_found_across_blocks() -> None:
    value = "0123456789abcdef" * 2000
    anchors = by_value("build-secret", [value])
    content = bytes(5000) + value.encode()
    blocks = [content[at : at + 4096] for at in range(0, len(content), 4096)]
    assert search(blocks, anchors) == {"build-secret"}
