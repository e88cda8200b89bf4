"""SSH connections to machines with known host keys. Only this module and `streams` use paramiko."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Literal, Protocol

from imagepipe.clock import Deadline
from imagepipe.communicator.end_mark import EndMark
from imagepipe.communicator.streams import OnLine, Output, Sender, close
from imagepipe.dataclass import dataclass
from imagepipe.errors import ConnectError
from imagepipe.values import Endpoint, Reachable

if TYPE_CHECKING:
    import paramiko

# Importing paramiko takes 0.1 s, so each function here imports it when needed; `Connections.prepare` imports it while
# an instance boots.

# paramiko's transport thread logs errors with tracebacks; we report each error once, as an exception.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False

CONNECT_SECONDS = 5.0
BANNER_SECONDS = 10.0
AUTH_SECONDS = 15.0
DEAD_SECONDS = 60
"""Time that the kernel waits for an acknowledgement of sent data, such as a keep-alive, before it ends a connection."""
RECONNECT_SECONDS = 300.0
"""Time for a machine to come back after a step has ended the connection or rebooted it."""
FIRST_PAUSE_SECONDS = 0.2
KEEPALIVE_SECONDS = 15
"""Interval of keep-alives: NAT gateways drop an idle connection after 350 s (VPC user guide)."""
WINDOW_BYTES = 8 * 1024 * 1024
"""Receive window. With paramiko's default of 2 MiB, the sender would have to pause in every round trip."""
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
"""Ciphers, AES-GCM first because it needs one pass with AES instructions; paramiko lists it last."""

SIGNATURES = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
"""Signature algorithms by key type, if they are not the type's own name (RFC 8332)."""

Why = Literal["unreachable", "refused", "timeout", "host-key", "private-key", "auth", "protocol"]


class Cancel(Protocol):
    """The part of a run's cancel flag that a command needs."""

    def check(self) -> None: ...

    def calling(self, callback: Callable[[], None]) -> AbstractContextManager[None]: ...


@dataclass(frozen=True, slots=True)
class Watch:
    """The receiver of a command's lines, its deadline and its cancel flag."""

    on_line: OnLine
    deadline: Deadline
    cancel: Cancel


class NotConnected(ConnectError):
    """One attempt to connect failed; `why` names the point of failure."""

    def __init__(self, message: str, why: Why, *, at_bastion: bool = False) -> None:
        super().__init__(message)
        self.why: Why = why
        self.at_bastion = at_bastion
        """True if the attempt failed at the bastion, not at the machine behind it."""


class Disconnected(ConnectError):
    """The connection broke during an operation."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a command."""

    code: int | None
    """Exit code; None if the deadline came first or a signal ended the command."""
    timed_out: bool = False
    pipes: tuple[str, ...] = ()
    """Output pipes that other processes still hold open after the command's end; known only with a mark."""
    holders: tuple[str, ...] = ()
    """Processes that keep the output of a finished script open: `sleep (1234)`."""


class Connection:
    """An authenticated connection. Commands may run on it in parallel."""

    def __init__(self, endpoint: Endpoint, transport: paramiko.Transport) -> None:
        self.endpoint = endpoint
        self._transport = transport

    def is_alive(self) -> bool:
        return self._transport.is_active()

    def verified_endpoint(self) -> Endpoint:
        """Return the endpoint with the host key that this connection has seen, even if it accepted a new one."""
        shown = self._transport.get_remote_server_key()
        return replace(self.endpoint, host_key=f"{shown.get_name()} {shown.get_base64()}")

    def tunnel(self, host: str, port: int) -> paramiko.Channel:
        """Return a byte stream to a port that this machine can reach. Raises NotConnected."""

        import paramiko

        where = f"{host}:{port} through {self._where()}"
        try:
            return self._transport.open_channel("direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=CONNECT_SECONDS)
        except paramiko.ChannelException as error:
            # RFC 4254, 5.1: 1 is "administratively prohibited", 2 "connect failed".
            if error.code == 1:
                message = f"{where}: the bastion does not allow forwarding (AllowTcpForwarding, PermitOpen)"
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
        """Run a command and pass on its output line by line; both streams are drained in parallel.

        `send` goes to its standard input: bytes, or a function that gets the write function. With a mark, the output
        ends at the mark. Without one, it ends when the streams are closed, or when nothing arrives for a while after
        the command's exit. Raises Disconnected if the connection breaks; exceptions of the watch's cancel flag are
        passed on.
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
                close(channel)  # ends a write of input that the command did not read
                sender.is_done.wait()
                if sender.error is not None:
                    raise sender.error
            return Result(code, pipes=output.held_pipes())
        finally:
            close(channel)

    def open_channel(self) -> paramiko.Channel:
        """Open a channel for one command. Raises Disconnected."""
        import paramiko

        try:
            return self._transport.open_session(timeout=AUTH_SECONDS)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise Disconnected(f"the connection to {self._where()} broke: {error}") from error

    def start(self, channel: paramiko.Channel, command: str) -> None:
        """Start the command on the channel without waiting for it. Raises Disconnected."""
        import paramiko

        try:
            channel.exec_command(command)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise Disconnected(f"the connection to {self._where()} broke: {error}") from error

    def _where(self) -> str:
        return f"{self.endpoint.user}@{self.endpoint.host}:{self.endpoint.port}"


@contextmanager
def closing(channel: paramiko.Channel, watch: Watch) -> Iterator[threading.Event]:
    """Close the channel, which ends every read of it, on a cancel or at the deadline. The deadline sets the event."""
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
    """Return the base64 of the public key for an endpoint, as in an `authorized_keys` line."""

    import paramiko

    return paramiko.PKey.from_path(endpoint.private_key).get_base64()


def connect(endpoint: Endpoint, through: Connection | None = None) -> Connection:
    """Make one attempt to connect. The host key is verified before anything is sent. Raises NotConnected."""

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
                f"{where}: the private key {endpoint.private_key} cannot be read: {error}", "private-key"
            ) from error
        try:
            more = transport.auth_publickey(endpoint.user, key)
        except paramiko.BadAuthenticationType as error:
            accepted = ", ".join(error.allowed_types) or "nothing"
            message = f"{where}: the machine does not accept keys for user '{endpoint.user}', only: {accepted}"
            raise NotConnected(message, "auth") from error
        except paramiko.AuthenticationException as error:
            message = f"{where}: the machine does not accept this key for user '{endpoint.user}' ({key.get_name()})"
            raise NotConnected(message, "auth") from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise NotConnected(
                f"{where}: the connection ended during the login: {str(error) or type(error).__name__}", "protocol"
            ) from error
        if more:
            message = f"{where}: for user '{endpoint.user}' the machine wants more than the key: {', '.join(more)}"
            raise NotConnected(message, "auth")
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
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # only on Linux; elsewhere a vanished machine is noticed later
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
        # Ask for the type of the known key, or the machine may present another of its keys.
        kind = endpoint.host_key.split()[0]
        options.key_types = SIGNATURES.get(kind, (kind,))
    try:
        transport.start_client(timeout=BANNER_SECONDS)
        if not transport.initial_kex_done:  # start_client returns at its timeout without an error
            raise paramiko.SSHException(f"no keys were exchanged in {BANNER_SECONDS:g} s")
    except (paramiko.SSHException, EOFError, OSError) as error:
        transport.close()
        is_key = isinstance(error, paramiko.SSHException) and "host key" in str(error).lower()
        reason = _reason(error)
        message = f"{where}: the port is open, but no SSH server answers: {reason}"
        raise NotConnected(message, "host-key" if is_key else "protocol") from error
    return transport


def _reason(error: Exception) -> str:
    """Return why no server answered. For paramiko, silence, an end and a reset are all errors in reading the banner."""
    text = str(error)
    if text.startswith("Error reading SSH protocol banner"):
        cause = text.removeprefix("Error reading SSH protocol banner").strip()
        return f"it sent no SSH banner{f': {cause}' if cause else ''}"
    return text or type(error).__name__


def _verify(endpoint: Endpoint, transport: paramiko.Transport, where: str) -> None:
    if endpoint.host_key is None:
        return
    shown = transport.get_remote_server_key()
    kind, expected = endpoint.host_key.split()[:2]
    if shown.get_name() != kind or shown.get_base64() != expected:
        raise NotConnected(
            f"{where}: presents host key {shown.get_name()} {shown.get_base64()[:32]}…, which is not the expected one",
            "host-key",
        )


class Connections:
    """A pool with one open connection per machine; a broken one is replaced."""

    def __init__(self) -> None:
        self._open: dict[Endpoint, Connection] = {}
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Import paramiko in the background, before the first connection."""
        threading.Thread(target=import_module, args=("paramiko",), name="import paramiko", daemon=True).start()

    def get(self, endpoint: Endpoint) -> Connection:
        """Return a live connection. Raises NotConnected after one attempt."""
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
        self, machine: Reachable, deadline: Deadline, sleep: Callable[[float], None], check: Callable[[str], None]
    ) -> Connection:
        """Return a live connection; retry while the machine comes back.

        Between two attempts it calls `sleep`, and `check` with the instance's id; they raise if another attempt is
        useless. Raises ConnectError.
        """
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return self.get(machine.endpoint)
            except NotConnected as error:
                if deadline.is_past():
                    raise ConnectError(f"SSH did not come back within {deadline.seconds:g} s: {error}") from error
            sleep(pause)
            check(machine.instance.id)
            pause = min(pause * 1.5, 1.0)

    def drop(self, endpoint: Endpoint) -> None:
        """Close the connection to a machine, if there is one."""
        with self._lock:
            known = self._open.pop(endpoint, None)
        if known is not None:
            known.close()

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            known = list(self._open.values())
            self._open.clear()
        for connection in known:
            connection.close()
