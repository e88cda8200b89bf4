"""Against a real OpenSSH server."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from imagepipe.communicator import keys
from imagepipe.communicator.ssh import Connection, Connections, Disconnected, NotConnected, connect
from imagepipe.errors import Cancelled
from tests.communicator.conftest import Shell
from tests.communicator.sshd import Sshd, sshd


def test_a_command_gives_its_lines_and_its_code(shell: Shell) -> None:
    result = shell.run("echo one; echo two >&2; printf three; exit 4")
    assert result.code == 4
    assert shell.out == ["one", "three"]
    assert shell.err == ["two"]


def test_lines_arrive_while_the_command_runs(shell: Shell) -> None:
    came: list[float] = []
    on_line = shell.on_line

    def note(stream: object, text: str) -> None:
        came.append(time.monotonic())
        on_line("out", text)

    shell.on_line = note  # type: ignore[method-assign]
    shell.run("echo first; sleep 0.5; echo second")
    assert came[1] - came[0] > 0.3


def test_twenty_thousand_lines_on_standard_error_neither_hang_nor_get_lost(shell: Shell) -> None:
    text = "x" * 40
    command = f'i=0; while [ $i -lt 20000 ]; do echo "line $i {text}" >&2; i=$((i+1)); done; echo end'
    assert shell.run(command).code == 0
    assert len(shell.err) == 20000
    assert shell.err[19999].startswith("line 19999 ")
    assert shell.out == ["end"]


def test_eight_mebibytes_on_both_streams_at_once(shell: Shell) -> None:
    half = "head -c 8388608 /dev/zero | tr '\\0' 'x' | fold -w 1024"
    assert shell.run(f"({half}) & ({half}) >&2; wait").code == 0
    assert sum(map(len, shell.out)) == sum(map(len, shell.err)) == 8 << 20


def test_standard_input_is_sent_whole_while_output_comes_back(shell: Shell) -> None:
    data = os.urandom(3 << 20)

    def send(write: object) -> None:
        for start in range(0, len(data), 100_000):
            write(data[start : start + 100_000])  # type: ignore[operator]

    assert shell.run("sha256sum", send=send).code == 0
    import hashlib

    assert shell.out[0].split()[0] == hashlib.sha256(data).hexdigest()


def test_a_command_that_does_not_read_its_input_is_no_error(shell: Shell) -> None:
    assert shell.run("true", send=b"x" * (4 << 20)).code == 0


def test_a_deadline_ends_the_wait(shell: Shell) -> None:
    began = time.monotonic()
    result = shell.run("sleep 60", seconds=0.3)
    assert (result.code, result.timed_out) == (None, True)
    assert time.monotonic() - began < 50


def test_a_cancel_ends_the_wait(shell: Shell) -> None:
    threading.Timer(0.2, lambda: shell.cancel.set("got SIGINT")).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        shell.run("sleep 60")
    assert time.monotonic() - began < 50


def test_a_command_that_a_signal_ends_has_no_code(shell: Shell) -> None:
    result = shell.run("kill -9 $$")
    assert (result.code, result.timed_out) == (None, False)
    assert shell.connection.is_alive()


def test_a_connection_that_breaks_in_the_middle_is_told_apart(server: Sshd, shell: Shell) -> None:
    def cut() -> None:
        for pid in server.connections():
            os.kill(pid, signal.SIGKILL)

    threading.Timer(0.3, cut).start()
    with pytest.raises(Disconnected, match="broke"):
        shell.run("sleep 60")


def test_the_wrong_host_key_is_refused_before_anything_is_sent(server: Sshd, tmp_path: Path) -> None:
    other = " ".join(keys.generate("other").public.split()[:2])
    before = server.log.count("Accepted publickey")
    with pytest.raises(NotConnected, match="which is not the expected one") as failed:
        connect(replace(server.endpoint, host_key=other))
    assert failed.value.why == "host-key"
    assert server.log.count("Accepted publickey") == before


def test_a_host_key_of_another_kind_is_refused(server: Sshd) -> None:
    with pytest.raises(NotConnected):
        connect(replace(server.endpoint, host_key="ecdsa-sha2-nistp256 AAAA"))


def test_accept_new_takes_any_host_key(server: Sshd) -> None:
    connect(replace(server.endpoint, host_key=None)).close()


def test_an_unknown_user_key_is_said(server: Sshd, tmp_path: Path) -> None:
    keys.write_private(tmp_path / "key", keys.generate("stranger"))
    with pytest.raises(NotConnected, match="does not accept this key for user") as failed:
        connect(replace(server.endpoint, private_key=str(tmp_path / "key")))
    assert failed.value.why == "auth"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("PubkeyAuthentication=no", "does not accept keys for user '.*', only: password"),
        ("AuthenticationMethods=publickey,password", "wants more than the key: password"),
    ],
)
def test_a_server_that_wants_something_other_than_a_key_is_named(tmp_path: Path, option: str, message: str) -> None:
    options = (option, "KbdInteractiveAuthentication=no")
    with sshd(tmp_path / "sshd", *options) as server, pytest.raises(NotConnected, match=message) as failed:
        connect(server.endpoint)
    assert failed.value.why == "auth"


def test_a_private_key_that_cannot_be_read_is_the_users_mistake(server: Sshd, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("no key")
    with pytest.raises(NotConnected, match="cannot be read") as failed:
        connect(replace(server.endpoint, private_key=str(tmp_path / "key")))
    assert failed.value.why == "private-key"


def test_a_closed_port_is_said(server: Sshd) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(NotConnected, match="connection refused") as failed:
        connect(replace(server.endpoint, port=port))
    assert failed.value.why == "refused"


def test_something_that_is_no_ssh_server_is_said(server: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            client, _ = listener.accept()
            client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            client.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(NotConnected) as failed:
            connect(replace(server.endpoint, port=listener.getsockname()[1]))
    assert failed.value.why == "protocol"
    assert "Error reading" not in str(failed.value), "paramiko's words"


def test_aes_gcm_is_what_is_spoken(server: Sshd, connection: Connection) -> None:
    assert "aes128-gcm@openssh.com" in repr(connection._transport)


def test_a_warm_connection_is_used_again_and_a_dead_one_made_again(tmp_path: Path) -> None:
    with sshd(tmp_path / "sshd") as server:
        pool = Connections()
        first = pool.get(server.endpoint)
        assert pool.get(server.endpoint) is first
        for pid in server.connections():
            os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + 60
        while first.is_alive() and time.monotonic() < until:
            time.sleep(0.02)
        assert pool.get(server.endpoint) is not first
        pool.close()


def test_a_private_key_file_is_the_users_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    keys.write_private(path, keys.generate("x"))
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_private_key_is_forgotten_with_what_was_not_written_whole_of_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    keys.write_private(path, keys.generate("x"))
    path.with_name(".key.half").touch()
    for _ in range(2):
        keys.delete_private_key({"private_key": str(path)})
        assert list(tmp_path.iterdir()) == []


def test_a_server_that_greets_and_then_says_nothing_is_one_failed_attempt(
    server: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagepipe.communicator.ssh.BANNER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            accepted, _ = listening.accept()
            with accepted:
                accepted.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                accepted.recv(1 << 16)
                time.sleep(1.5)

        greeting = threading.Thread(target=greet)
        greeting.start()
        with pytest.raises(NotConnected, match="no keys were exchanged") as failed:
            connect(replace(server.endpoint, port=listening.getsockname()[1]))
        greeting.join()
    assert failed.value.why == "protocol"
