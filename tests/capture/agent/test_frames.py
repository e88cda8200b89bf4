from __future__ import annotations

import io

import pytest

from imagepipe.capture.agent.frames import HANDSHAKE, HEAD, ProtocolError, Wire


def _receiving(content: bytes) -> Wire:
    return Wire(io.BytesIO(content).read, lambda _: None)


def _sent(*messages: dict[str, object] | bytes) -> bytes:
    out = io.BytesIO()
    wire = Wire(lambda _: b"", out.write)
    for message in messages:
        wire.send_data(message) if isinstance(message, bytes) else wire.send(**message)
    return out.getvalue()


def test_messages_and_blocks_arrive_as_they_were_sent_and_then_the_end() -> None:
    wire = _receiving(_sent({"say": "grüße"}, b"\0\xff" * 70000, {"part": 1}))
    assert wire.receive() == {"say": "grüße"}
    assert wire.receive() == b"\0\xff" * 70000
    assert wire.receive() == {"part": 1}
    assert wire.receive() is None


def test_a_stream_that_comes_in_pieces_is_put_together() -> None:
    content = io.BytesIO(_sent({"say": "a"}, b"block"))
    wire = Wire(lambda count: content.read(min(count, 1)), lambda _: None)
    assert [wire.receive(), wire.receive()] == [{"say": "a"}, b"block"]


@pytest.mark.parametrize("cut", [1, 4, 6], ids=["in the head", "in the length", "in the body"])
def test_a_frame_that_is_cut_off_is_no_end(cut: int) -> None:
    with pytest.raises(ProtocolError, match="in the middle of a frame"):
        _receiving(_sent(b"block")[:cut]).receive()


@pytest.mark.parametrize("head", [b"x\0\0\0\1", HEAD.pack(b"D", 1 << 30)], ids=["of no kind", "too large"])
def test_what_is_no_frame_is_not_waited_for(head: bytes) -> None:
    with pytest.raises(ProtocolError, match="not a frame"):
        _receiving(head + b"y").receive()


def test_what_a_shell_prints_before_the_agent_begins_is_told_apart_from_it() -> None:
    wire = _receiving(b"Welcome!\nJ\0\0\0\1x" + HANDSHAKE + _sent({"say": "a"}))
    assert wire.await_handshake() == b"Welcome!\nJ\0\0\0\1x"
    assert wire.receive() == {"say": "a"}


@pytest.mark.parametrize("came", [b"", b"Your password is old.\n", b"y\n" * 70_000], ids=["none", "text", "ever"])
def test_where_no_agent_begins_what_came_instead_is_said(came: bytes) -> None:
    with pytest.raises(ProtocolError, match="no agent started") as caught:
        _receiving(came).await_handshake()
    assert repr(came[:20])[2:-1] in str(caught.value)
