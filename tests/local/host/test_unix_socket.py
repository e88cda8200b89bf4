"""A Unix socket in a folder with a long path is reached."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from imagepipe.local.host import unix_socket

NAME = "control.sock"


def test_a_socket_whose_path_is_too_long_for_connect_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(NAME)
        listening.listen()
        before = len(list(Path("/proc/self/fd").iterdir()))
        with unix_socket.connect(folder, NAME, seconds=5) as connection:
            accepted, _ = listening.accept()
            with accepted:
                connection.sendall(b"hello")
                assert accepted.recv(16) == b"hello"
        assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_missing_socket_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), unix_socket.connect(tmp_path, NAME, seconds=5):
        pass
