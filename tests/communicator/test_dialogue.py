"""Dialogues with a running command: bytes in both directions, and the ways in which a dialogue ends."""

from __future__ import annotations

import time

import pytest

from imagepipe.communicator import dialogue
from imagepipe.communicator.dialogue import open_dialogue
from imagepipe.communicator.ssh import Connection, Disconnected
from tests.communicator.conftest import Shell


def test_bytes_go_both_ways_and_lines_of_the_error_stream_beside_them(connection: Connection) -> None:
    shell = Shell(connection)
    with open_dialogue(connection, "echo aside >&2; cat; exit 5", shell.watch()) as talk:
        talk.write(b"there and back")
        assert talk.read(100) == b"there and back"
        assert talk.code() == 5
        assert talk.read(100) == b""
    assert list(talk.errors) == ["aside"]


def test_a_command_that_does_not_end_is_not_waited_for_until_the_deadline(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialogue, "END_SECONDS", 0.2)
    began = time.monotonic()
    with open_dialogue(connection, "exec sleep 30", Shell(connection).watch()) as talk:
        assert talk.code() is None
    assert time.monotonic() - began < 10
    assert connection.is_alive()


def test_at_the_deadline_the_talk_is_over(connection: Connection) -> None:
    with open_dialogue(connection, "exec sleep 30", Shell(connection).watch(0.3)) as talk:
        assert talk.read(1) == b""
        with pytest.raises(Disconnected, match="did not end in time"):
            talk.code()


def test_who_says_nothing_for_too_long_is_no_longer_waited_for(connection: Connection) -> None:
    """The limit is for each silence, not for the whole command."""
    command = "while read word; do echo $word; done"
    began = time.monotonic()
    with open_dialogue(connection, command, Shell(connection).watch(), silent_seconds=3) as talk:
        while time.monotonic() - began < 3.5:
            talk.write(b"alive\n")
            assert talk.read(100) == b"alive\n"
            assert not talk.is_silent
            time.sleep(0.4)
        assert talk.read(100) == b""
        assert talk.is_silent
    assert connection.is_alive()
