from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from imagepipe.communicator.lines import LONGEST, Lines


def _fed(*blocks: bytes) -> list[str]:
    lines: list[str] = []
    reader = Lines(lines.append)
    for block in blocks:
        reader.feed(block)
    reader.end()
    return lines


def test_lines_come_whole_wherever_the_blocks_are_cut() -> None:
    assert _fed(b"on", b"e\ntw", b"o\n", b"three") == ["one", "two", "three"]


def test_a_character_may_be_cut_in_two() -> None:
    text = "naïve ☃\n".encode()
    assert _fed(*(text[i : i + 1] for i in range(len(text)))) == ["naïve ☃"]


def test_a_progress_bar_leaves_its_last_state() -> None:
    assert _fed(b"10%\r50%\r100%\nwindows\r\n") == ["100%", "windows"]


def test_what_is_no_utf_8_is_shown_as_such() -> None:
    assert _fed(b"\xff\xfe\n") == ["��"]


def test_a_stream_without_line_ends_is_handed_on_in_pieces() -> None:
    lines = _fed(*[b"x" * 10_000] * 20)
    assert sum(map(len, lines)) == 200_000
    assert max(map(len, lines)) <= LONGEST + 10_000


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\r\n"), min_size=1), max_size=20), st.data())
def test_no_line_is_lost_or_changed(texts: list[str], data: st.DataObject) -> None:
    stream = "".join(text + "\n" for text in texts).encode("utf-8", "surrogatepass").decode("utf-8", "replace").encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    edges = [0, *cuts, len(stream)]
    blocks = [stream[a:b] for a, b in pairwise(edges)]
    assert _fed(*blocks) == stream.decode().split("\n")[:-1]
