"""A shell and a byte channel on a machine whose host key was known before we came; with `streams`, all of paramiko."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal, Protocol

from imagepipe.clock import Deadline
from imagepipe.communicator.ended import EndMark
from imagepipe.communicator.streams import OnLine, Output, Sender, close
from imagepipe.errors import ConnectError
from imagepipe.values import Endpoint

if TYPE_CHECKING:
    import paramiko

# paramiko takes 0.1 s to load: each function here loads it when it is needed, and `Connections.prepare` does while an
# instance boots.

# paramiko's transport thread logs what goes wrong with a traceback; we say it in our own words, once.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False

CONNECT_SECONDS = 5.0
BANNER_SECONDS = 10.0
AUTH_SECONDS = 15.0
DEAD_SECONDS = 60
"""What the kernel waits for the other side to confirm what we sent, keep-alives too; then the machine is gone."""
FIRST_PAUSE_SECONDS = 0.2
KEEPALIVE_SECONDS = 15
"""NAT gateways forget a quiet connection after 350 s (VPC user guide)."""
WINDOW_BYTES = 8 * 1024 * 1024
"""What the other side may send before we say go on; paramiko's 2 MiB waits for us at each turn."""
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
"""AES-GCM first: one pass with AES instructions. paramiko lists it last."""

SIGNATURES = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
"""By kind of key, how it may sign where that is not its own name (RFC 8332)."""

Why = Literal["unreachable", "refused", "timeout", "host-key", "auth", "protocol"]


class Cancel(Protocol):
    """What a command needs of a run that can be stopped."""

    def check(self) -> None: ...

    def calling(self, callback: Callable[[], None]) -> AbstractContextManager[None]: ...


@dataclass(frozen=True, slots=True)
class Watch:
    """What goes on beside a command: who hears its lines, until when it may run, and what may stop it."""

    on_line: OnLine
    deadline: Deadline
    cancel: Cancel


class NotConnected(ConnectError):
    """One attempt to connect failed; `why` says at which point."""

    def __init__(self, message: str, why: Why, *, at_bastion: bool = False) -> None:
        super().__init__(message)
        self.why: Why = why
        self.at_bastion = at_bastion
        """Whether it was the host to go through that we could not connect to."""


class Disconnected(ConnectError):
    """The connection broke while something ran on it."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended."""

    code: int | None
    """Its exit code; None where the deadline came first or a signal ended it."""
    timed_out: bool = False
    pipes: tuple[str, ...] = ()
    """Of a command with a mark: the pipes of its output, where other processes hold them open after its end."""
    holders: tuple[str, ...] = ()
    """Processes that hold the output of a script that has ended: `sleep (1234)`."""


class Connection:
    """An authenticated connection. Commands may run on it side by side."""

    def __init__(self, endpoint: Endpoint, transport: paramiko.Transport) -> None:
        self.endpoint = endpoint
        self._transport = transport

    def is_alive(self) -> bool:
        return self._transport.is_active()

    def tunnel(self, host: str, port: int) -> paramiko.Channel:
        """A byte stream to a port that this machine can reach. Raises NotConnected."""

        import paramiko

        where = f"{host}:{port} through {self._where()}"
        try:
            return self._transport.open_channel("direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=CONNECT_SECONDS)
        except paramiko.ChannelException as error:
            # RFC 4254, 5.1: 1 is "administratively prohibited", 2 "connect failed".
            if error.code == 1:
                message = f"{where}: the bastion does not let us pass (AllowTcpForwarding, PermitOpen)"
                raise NotConnected(message, "auth", at_bastion=True) from error
            raise NotConnected(f"{where}: the bastion cannot connect to it: {error.text}", "refused") from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise NotConnected(f"{where}: no answer: {error}", "timeout") from error

    def close(self) -> None:
        self._transport.close()

    def run(
        self,
        command: str,
        watch: Watch,
        *,
        send: Callable[[Callable[[bytes], None]], None] | bytes = b"",
        mark: EndMark | None = None,
    ) -> Result:
        """Run a command; its output comes line by line while it runs, both streams drained at once.

        `send` goes to its standard input: bytes, or a function that is given the write. With a mark, the output ends
        where the command writes it; else with the streams, or when they have been quiet for a while after its end.
        Raises Disconnected where the connection broke, and what the watch's cancel raises.
        """
        channel = self.open_channel()
        sender = Sender(channel, send)
        try:
            with closing(channel, watch) as timed_out:
                self.start(channel, command)
                output = Output(channel, watch.on_line, mark)
                threading.Thread(target=sender.run, daemon=True).start()
                output.wait()
                code = channel.exit_status
            watch.cancel.check()
            if timed_out.is_set():
                return Result(None, timed_out=True)
            if sender.error is not None:
                raise sender.error
            if code < 0 and not self.is_alive():
                raise Disconnected(f"the connection to {self._where()} broke")
            if code < 0:
                return Result(None)
            if code == 0:
                close(channel)  # which ends a write that nobody reads
                sender.is_done.wait()
                if sender.error is not None:
                    raise sender.error
            return Result(code, pipes=output.held_pipes())
        finally:
            close(channel)

    def open_channel(self) -> paramiko.Channel:
        """A channel for one command. Raises Disconnected."""
        import paramiko

        try:
            return self._transport.open_session(timeout=AUTH_SECONDS)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise Disconnected(f"the connection to {self._where()} broke: {error}") from error

    def start(self, channel: paramiko.Channel, command: str) -> None:
        """Run the command on the channel, which goes on by itself. Raises Disconnected."""
        import paramiko

        try:
            channel.exec_command(command)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise Disconnected(f"the connection to {self._where()} broke: {error}") from error

    def _where(self) -> str:
        return f"{self.endpoint.user}@{self.endpoint.host}:{self.endpoint.port}"


@contextmanager
def closing(channel: paramiko.Channel, watch: Watch) -> Iterator[threading.Event]:
    """Close the channel, and so end every read of it, on a cancel or at the deadline, which sets the event."""
    timed_out = threading.Event()

    def end() -> None:
        close(channel)
        channel.status_event.set()

    def expire() -> None:
        timed_out.set()
        end()

    timer = threading.Timer(watch.deadline.remaining(), expire)
    timer.daemon = True
    timer.start()
    try:
        with watch.cancel.calling(end):
            yield timed_out
    finally:
        timer.cancel()


def public_key(endpoint: Endpoint) -> str:
    """The base64 of the public key that opens a machine, as an `authorized_keys` line has it."""

    import paramiko

    return paramiko.PKey.from_path(endpoint.private_key).get_base64()


def connect(endpoint: Endpoint, through: Connection | None = None) -> Connection:
    """One attempt. The host key is checked before anything of ours is sent. Raises NotConnected."""

    import paramiko

    where = f"{endpoint.host}:{endpoint.port}"
    stream = _socket(endpoint, where) if through is None else through.tunnel(endpoint.host, endpoint.port)
    transport = _transport(endpoint, stream, where)
    try:
        _verify(endpoint, transport, where)
        try:
            key = paramiko.PKey.from_path(endpoint.private_key)
        except (OSError, paramiko.SSHException, ValueError) as error:
            raise NotConnected(
                f"{where}: the private key {endpoint.private_key} cannot be read: {error}", "auth"
            ) from error
        try:
            transport.auth_publickey(endpoint.user, key)
        except paramiko.AuthenticationException as error:
            message = f"{where}: the machine does not let user '{endpoint.user}' in with this key ({key.get_name()})"
            raise NotConnected(message, "auth") from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise NotConnected(
                f"{where}: ended while logging in: {str(error) or type(error).__name__}", "protocol"
            ) from error
    except BaseException:
        transport.close()
        raise
    transport.set_keepalive(KEEPALIVE_SECONDS)
    return Connection(endpoint, transport)


def _socket(endpoint: Endpoint, where: str) -> socket.socket:
    try:
        sock = socket.create_connection((endpoint.host, endpoint.port), timeout=CONNECT_SECONDS)
    except TimeoutError as error:
        raise NotConnected(f"{where}: no answer in {CONNECT_SECONDS:g} s", "timeout") from error
    except ConnectionRefusedError as error:
        raise NotConnected(f"{where}: connection refused", "refused") from error
    except OSError as error:
        raise NotConnected(f"{where}: {error.strerror or error}", "unreachable") from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; elsewhere a machine that vanished is noticed later
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_SECONDS * 1000)
    return sock


def _transport(endpoint: Endpoint, stream: socket.socket | paramiko.Channel, where: str) -> paramiko.Transport:
    import paramiko

    transport = paramiko.Transport(stream, default_window_size=WINDOW_BYTES)
    transport.banner_timeout = BANNER_SECONDS
    transport.auth_timeout = AUTH_SECONDS
    options = transport.get_security_options()
    options.ciphers = [cipher for cipher in CIPHERS if cipher in options.ciphers]
    if endpoint.host_key is not None:
        # Ask for the kind of key that we know, or the machine may show another of its keys.
        kind = endpoint.host_key.split()[0]
        options.key_types = SIGNATURES.get(kind, (kind,))
    try:
        transport.start_client(timeout=BANNER_SECONDS)
        if not transport.initial_kex_done:  # it returns at its timeout, and says nothing
            raise paramiko.SSHException(f"no keys were exchanged in {BANNER_SECONDS:g} s")
    except (paramiko.SSHException, EOFError, OSError) as error:
        transport.close()
        is_key = isinstance(error, paramiko.SSHException) and "host key" in str(error).lower()
        said = str(error).replace("[Errno", ": [Errno") or type(error).__name__  # paramiko joins two messages
        message = f"{where}: the port is open, and no SSH answers: {said}"
        raise NotConnected(message, "host-key" if is_key else "protocol") from error
    return transport


def _verify(endpoint: Endpoint, transport: paramiko.Transport, where: str) -> None:
    if endpoint.host_key is None:
        return
    shown = transport.get_remote_server_key()
    kind, expected = endpoint.host_key.split()[:2]
    if shown.get_name() != kind or shown.get_base64() != expected:
        raise NotConnected(
            f"{where}: shows host key {shown.get_name()} {shown.get_base64()[:32]}…, which is not the machine's",
            "host-key",
        )


class Connections:
    """Keeps a connection to each machine warm between steps; a broken one is made anew."""

    def __init__(self) -> None:
        self._open: dict[Endpoint, Connection] = {}
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Load the library meanwhile, for who will connect soon."""
        threading.Thread(target=import_module, args=("paramiko",), name="loading paramiko", daemon=True).start()

    def get(self, endpoint: Endpoint) -> Connection:
        """A live connection. Raises NotConnected after one attempt."""
        with self._lock:
            known = self._open.get(endpoint)
        if known is not None and known.is_alive():
            return known
        made = connect(endpoint, self._bastion(endpoint.via) if endpoint.via else None)
        with self._lock:
            self._open[endpoint] = made
        return made

    def _bastion(self, endpoint: Endpoint) -> Connection:
        try:
            return self.get(endpoint)
        except NotConnected as error:
            raise NotConnected(f"bastion {error}", error.why, at_bastion=True) from error

    def reconnect(
        self, endpoint: Endpoint, deadline: Deadline, sleep: Callable[[float], None], check: Callable[[], None]
    ) -> Connection:
        """A live connection, tried again while the machine comes back.

        Between two tries it calls `sleep` and `check`, which raise where there is no use in another one.
        Raises ConnectError.
        """
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return self.get(endpoint)
            except NotConnected as error:
                if deadline.is_past():
                    raise ConnectError(f"SSH did not come back within {deadline.seconds:g} s: {error}") from error
            sleep(pause)
            check()
            pause = min(pause * 1.5, 1.0)

    def drop(self, endpoint: Endpoint) -> None:
        """Close the connection to a machine, if there is one."""
        with self._lock:
            known = self._open.pop(endpoint, None)
        if known is not None:
            known.close()

    def close(self) -> None:
        """Close them all."""
        with self._lock:
            known = list(self._open.values())
            self._open.clear()
        for connection in known:
            connection.close()
