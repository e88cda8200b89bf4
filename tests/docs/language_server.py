"""A client of yaml-language-server, which editors start: the Language Server Protocol over standard input and output.

The server is the one that `make .setup/language-server/ready` installs, locked by tests/docs/language-server/.
"""

from __future__ import annotations

import json
import queue
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / ".setup/language-server/node_modules/yaml-language-server/bin/yaml-language-server"
SECONDS = 600.0
"""Longest wait for a message: an idle computer needs less than two seconds for the first one."""
SETTINGS = {"yaml": {"schemaStore": {"enable": False}, "validate": True, "completion": True, "hover": True}}
"""An editor's settings. Without the schema store, nothing is fetched from the network."""

PROPERTY = 10
"""The kind of a completion that is a key."""


class LanguageServer:
    """A running server, and what it says about texts."""

    def __init__(self, sending: IO[bytes], receiving: IO[bytes]) -> None:
        self._sending = sending
        self._number = 0
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._published: dict[str, list[dict[str, Any]]] = {}
        threading.Thread(target=self._read, args=(receiving,), daemon=True).start()
        self.request(
            "initialize",
            processId=None,
            rootUri=ROOT.as_uri(),
            capabilities={
                "workspace": {"configuration": True},
                "textDocument": {
                    "completion": {"completionItem": {"documentationFormat": ["markdown"]}},
                    "hover": {"contentFormat": ["markdown"]},
                    "publishDiagnostics": {},
                },
            },
        )
        self._notify("initialized")
        self._notify("workspace/didChangeConfiguration", settings=SETTINGS)

    def request(self, method: str, **parameters: Any) -> Any:
        """Send a request, and return its result."""
        self._number += 1
        self._send({"id": self._number, "method": method, "params": parameters})
        while True:
            message = self._next()
            if message.get("id") == self._number and "method" not in message:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self._handle(message)

    def problems(self, path: Path, text: str) -> list[tuple[int, str]]:
        """Open a text under this path, and return its diagnostics as line numbers, from 1, and messages."""
        uri = path.as_uri()
        self._notify(
            "textDocument/didOpen", textDocument={"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        )
        while uri not in self._published:
            self._handle(self._next())
        return [(each["range"]["start"]["line"] + 1, each["message"]) for each in self._published[uri]]

    def completions(self, path: Path, line: int, column: int) -> dict[str, str]:
        """Return the keys and values offered at a place of an open text, and the description of each."""
        return {each["label"]: _words(each.get("documentation")) for each in self._items(path, line, column)}

    def written(self, path: Path, line: int, column: int) -> dict[str, str]:
        """Return the keys offered at a place of an open text, and the text that an editor writes for each."""
        items = [each for each in self._items(path, line, column) if each["kind"] == PROPERTY]
        return {each["label"]: _without_stops(each["textEdit"]["newText"]) for each in items}

    def hover(self, path: Path, line: int, column: int) -> str:
        """Return the text shown for the word at a place of an open text."""
        found = self.request("textDocument/hover", **_place(path, line, column))
        return _words(found["contents"]) if found else ""

    def _items(self, path: Path, line: int, column: int) -> list[dict[str, Any]]:
        found = self.request("textDocument/completion", **_place(path, line, column))
        items: list[dict[str, Any]] = found["items"] if isinstance(found, dict) else found
        return items

    def end(self) -> None:
        """Ask the server to end."""
        self.request("shutdown")
        self._notify("exit")

    def _notify(self, method: str, **parameters: Any) -> None:
        self._send({"method": method, "params": parameters})

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._sending.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self._sending.flush()

    def _next(self) -> dict[str, Any]:
        try:
            message = self._messages.get(timeout=SECONDS)
        except queue.Empty:
            pytest.fail(f"the language server said nothing for {SECONDS:.0f} s")
        assert message is not None, "the language server has ended"
        return message

    def _handle(self, message: dict[str, Any]) -> None:
        match message:
            case {"method": "textDocument/publishDiagnostics", "params": published}:
                self._published[published["uri"]] = published["diagnostics"]
            case {"method": "workspace/configuration", "id": number, "params": {"items": items}}:
                self._send({"id": number, "result": [SETTINGS.get(each.get("section"), {}) for each in items]})
            case {"method": _, "id": number}:
                self._send({"id": number, "result": None})

    def _read(self, receiving: IO[bytes]) -> None:
        """Read messages until the server ends: in a thread of its own, so that every wait has a deadline."""
        while header := receiving.readline():
            length = 0
            while header.strip():
                name, _, value = header.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
                header = receiving.readline()
            self._messages.put(json.loads(receiving.read(length)))
        self._messages.put(None)


def _place(path: Path, line: int, column: int) -> dict[str, Any]:
    return {"textDocument": {"uri": path.as_uri()}, "position": {"line": line - 1, "character": column - 1}}


def _words(content: Any) -> str:
    """Return Markdown or plain text as one line of text."""
    text = content["value"] if isinstance(content, dict) else content or ""
    return " ".join(str(text).replace("\\", "").split())


def _without_stops(snippet: str) -> str:
    """Return the text of a snippet, without the marks of the places at which an editor stops."""
    text = re.sub(r"\$\{\d+:((?:\\.|[^}\\])*)\}|\$\d+", lambda match: match[1] or "", snippet)
    return re.sub(r"\\(.)", r"\1", text)


@contextmanager
def language_server() -> Iterator[LanguageServer]:
    """Start a server; end it afterwards, also after a failure."""
    node = shutil.which("node")
    if node is None or not PROGRAM.exists():
        pytest.fail("yaml-language-server is not installed: make .setup/language-server/ready, or make test")
    process = subprocess.Popen(
        [node, str(PROGRAM), "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        server = LanguageServer(process.stdin, process.stdout)
        yield server
        server.end()
        assert process.wait(timeout=SECONDS) == 0
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
