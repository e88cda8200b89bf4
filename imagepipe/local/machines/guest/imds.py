"""The instance metadata service of one machine, at 169.254.169.254 in a network namespace of its own.

The namespace is separate because a listener in the machine's own would take port 80 from the machine's servers. A veth
pair joins the two. Answers follow the EC2 user guide, "Use the Instance Metadata Service": tokens (version 2), and
version 1 only where the instance does not require them.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from imagepipe.files import write_atomically
from imagepipe.local.host.processes import is_alive
from imagepipe.local.machines import endpoint
from imagepipe.local.machines.driver import Machine

ADDRESS = "169.254.169.254"
GUEST_SIDE = "169.254.169.253/30"
OWN_SIDE = f"{ADDRESS}/30"
INTERFACE = "imds0"
FILE = "imds.json"
LINK_SECONDS = 20
SEED_PATH = "imagepipe-seed"
TOKEN = "X-aws-ec2-metadata-token"  # noqa: S105 - a header's name
TTL = "X-aws-ec2-metadata-token-ttl-seconds"
MAX_TTL_SECONDS = 21600
VERSIONS = ("1.0", "2009-04-04", "2016-09-02", "2021-03-23", "latest")


def document(machine: Machine) -> dict[str, Any]:
    """Make the document from which the service answers; a seed is served even if the service is disabled."""
    return {
        "meta-data": dict(machine.metadata.values),
        "identity": machine.metadata.identity,
        "user-data": base64.b64encode(machine.seed.user_data).decode("ascii"),
        "tokens-required": machine.metadata.tokens_required,
        "is-enabled": machine.metadata.is_enabled,
    }


def write(folder: Path, machine: Machine, *, namespace: int) -> None:
    """Write the document for the service's process; readable by root alone, as user data holds keys.

    `namespace` is the file descriptor of this computer's network that the process inherits.
    """
    way = {"endpoint-port": endpoint.port_of(folder.parent), "namespace": namespace}
    write_atomically(folder / FILE, json.dumps(document(machine) | way))


def rewrite(folder: Path, machine: Machine) -> None:
    """Write the machine's metadata as it is now; the service's process reads it before its next answer."""
    before = json.loads((folder / FILE).read_text(encoding="utf-8"))
    write_atomically(folder / FILE, json.dumps(before | document(machine)))


class Reread:
    """Reads a document again whenever its file was replaced."""

    def __init__(self, file: Path, *, part: str = "") -> None:
        self._file = file
        self._part = part
        self._lock = threading.Lock()
        self._seen = self._version()

    def __call__(self) -> Mapping[str, Any] | None:
        """Return the document if it was replaced since the last call; None if it was not, or is gone."""
        with self._lock:
            now = self._version()
            if now is None or now == self._seen:
                return None
            self._seen = now
            whole: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
        return whole[self._part] if self._part else whole

    def _version(self) -> tuple[int, int] | None:
        try:
            found = self._file.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns


class Answers:
    """The values by path, and the tokens that give access to them."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._tokens: dict[str, float] = {}
        self._lock = threading.Lock()
        self.load(document)

    def load(self, document: Mapping[str, Any]) -> None:
        """Answer from this document from now on. Tokens stay valid, as on EC2."""
        self._tree = _tree(document)
        self._user_data = base64.b64decode(document["user-data"])
        self._tokens_required = bool(document["tokens-required"])
        self.is_enabled = bool(document.get("is-enabled", True))
        self._seed = {name: base64.b64decode(body) for name, body in document.get("seed", {}).items()}

    def token(self, seconds: str | None) -> str | None:
        """Make a token; None for an invalid lifetime."""
        if seconds is None or not seconds.isdecimal() or not 1 <= int(seconds) <= MAX_TTL_SECONDS:
            return None
        token, now = secrets.token_urlsafe(42), time.monotonic()
        with self._lock:
            self._tokens = {known: end for known, end in self._tokens.items() if end > now}
            self._tokens[token] = now + int(seconds)
        return token

    def seed(self, path: str) -> bytes | None:
        """Return one of cloud-init's documents. The firmware of a QEMU machine tells cloud-init to look here."""
        folder, _, name = path.strip("/").partition("/")
        return self._seed.get(name) if folder == SEED_PATH else None

    def may_ask(self, token: str | None) -> bool:
        """Tell if a request may be answered: with a valid token, or without one in version 1."""
        if token is None:
            return not self._tokens_required
        with self._lock:
            return self._tokens.get(token, 0.0) > time.monotonic()

    def at(self, path: str) -> bytes | None:
        """Return the value or the listing at a path; None if there is neither."""
        version, _, rest = path.strip("/").partition("/")
        if not version:
            return "\n".join(VERSIONS).encode()
        if version not in VERSIONS:
            return None
        if rest == "user-data":
            return self._user_data or None
        node: Any = self._tree if self._user_data else {k: v for k, v in self._tree.items() if k != "user-data"}
        for part in rest.split("/") if rest else ():
            node = node.get(part.partition("=")[0]) if isinstance(node, dict) else None
        if node is None or isinstance(node, str):
            return None if node is None else node.encode()
        return "\n".join(_listed(name, node[name]) for name in sorted(node)).encode()


def _tree(document: Mapping[str, Any]) -> dict[str, Any]:
    root: dict[str, Any] = {"user-data": ""}
    paths = {f"meta-data/{path}": value for path, value in document["meta-data"].items()}
    if document["identity"]:
        paths["dynamic/instance-identity/document"] = document["identity"]
    for path, value in paths.items():
        *folders, leaf = path.split("/")
        node = root
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = value
    return root


def _listed(name: str, node: Any) -> str:
    """Format a name in a listing: folders end with a slash, and a public key is listed as `0=its-name`."""
    if isinstance(node, dict) and "openssh-key" in node:
        return f"{name}={node['openssh-key'].rpartition(' ')[2]}"
    return f"{name}/" if isinstance(node, dict) else name


class _Handler(BaseHTTPRequestHandler):
    server_version = "EC2ws"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    answers: Answers
    reread: Callable[[], Mapping[str, Any] | None]

    def _refresh(self) -> None:
        if (changed := self.reread()) is not None:
            self.answers.load(changed)

    def do_PUT(self) -> None:
        self._refresh()
        if self.path != "/latest/api/token" or not self.answers.is_enabled:
            return self._send(404)
        # An open proxy must not get a token for somebody else (EC2 user guide, IMDSv2).
        if self.headers.get("X-Forwarded-For"):
            return self._send(403)
        ttl = self.headers.get(TTL)
        token = self.answers.token(ttl)
        return self._send(400) if token is None else self._send(200, token.encode(), {TTL: str(ttl)})

    def do_GET(self) -> None:
        self._refresh()
        path = self.path.partition("?")[0]
        if (seed := self.answers.seed(path)) is not None:
            return self._send(200, seed)
        if not self.answers.is_enabled:
            return self._send(403)
        if not self.answers.may_ask(self.headers.get(TOKEN)):
            return self._send(401)
        found = self.answers.at(path)
        return self._send(404) if found is None else self._send(200, found)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

    def do_POST(self) -> None:
        self._send(405)

    do_DELETE = do_POST  # noqa: N815

    def _send(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def server(
    document: Mapping[str, Any],
    address: tuple[str, int],
    reread: Callable[[], Mapping[str, Any] | None] = lambda: None,
) -> ThreadingHTTPServer:
    """Make the service, which listens already. `reread` is called before each answer; it returns a changed document."""
    handler = type("Handler", (_Handler,), {"answers": Answers(document), "reread": staticmethod(reread)})
    return ThreadingHTTPServer(address, handler)


def main(arguments: Sequence[str]) -> int:
    """FILE PID STARTED: serve until that process, which made this namespace's peer, has ended."""
    file, pid, started = arguments
    until = os.pidfd_open(int(pid))
    reread = Reread(Path(file))
    answers = json.loads(Path(file).read_text(encoding="utf-8"))
    end = time.monotonic() + LINK_SECONDS
    while not Path("/proc/self/net/dev").read_text().count(f"{INTERFACE}:"):
        if time.monotonic() > end or not is_alive(int(pid), started):
            return 1
        time.sleep(0.005)
    subprocess.run(["ip", "address", "add", OWN_SIDE, "dev", INTERFACE], check=True)
    subprocess.run(["ip", "link", "set", INTERFACE, "up"], check=True)
    service = server(answers, (ADDRESS, 80), reread)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    endpoint.serve(answers, ADDRESS)
    select.select([until], [], [])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
