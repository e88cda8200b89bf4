"""The screenshots of the docs, from real builds: `python -m docs.generate.screenshots FOLDER`.

Builds run on a local cloud of the script's own, in a folder that is deleted afterwards. This needs root, Chromium and
some five minutes, and the base image of your own store is used if it is there.
"""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import pyte

from imagepipe.local.store import default_base_cache, default_root
from tests.report.browser import Browser, browser

ROOT = Path(__file__).resolve().parents[2]
COLUMNS, ROWS = 108, 27
COMMAND = "imagepipe build specs/web-server.yaml --local"
MOMENT = "test-boot"
"""The last screen whose lower part shows this stage is the screenshot: the new image boots, and the rest is done."""
COLOURS = {
    "default": "#d6d9de",
    "dim": "#969da8",
    "red": "#ff8f87",
    "green": "#7fd49d",
    "brown": "#f0c06a",
    "blue": "#8ab8ff",
    "magenta": "#d3a5f5",
    "cyan": "#68cfd8",
}
"""Colours of the terminal, by pyte's names; brown is yellow."""
TERMINAL = """<!doctype html><meta charset="utf-8"><title>terminal</title><style>
  body { margin: 0; background: #16181c; }
  main { display: inline-block; padding: 12px 18px 16px; background: #16181c; }
  pre { margin: 0; font: 14px/1.4 "DejaVu Sans Mono", ui-monospace, monospace; }
</style>"""


class Screen(pyte.Screen):  # type: ignore[misc]  # pyte has no types
    """A terminal that also knows dim text. pyte drops it, so it is kept in the place of italics, which nothing uses."""

    def select_graphic_rendition(self, *attrs: int, **options: Any) -> None:
        """Set the style of the text that follows."""
        super().select_graphic_rendition(*(3 if each == 2 else each for each in attrs), **options)


class Place:
    """A folder with the samples, and a local cloud and runs of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = folder / "project"
        for name in ("specs", "provisioners"):
            shutil.copytree(ROOT / name, self.project / name)
        base = default_base_cache(os.environ) or default_root(os.environ) / "base"
        self._environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "PYTHONPATH": str(ROOT),
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "XDG_STATE_HOME": str(folder / "state"),
            "IMAGEPIPE_LOCAL_STORE": str(folder / "store"),
            "IMAGEPIPE_LOCAL_BASE_CACHE": str(base),
        }

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start imagepipe in the folder of the samples."""
        command = [sys.executable, "-m", "imagepipe", *arguments]
        return subprocess.Popen(command, cwd=self.project, env=self._environment, start_new_session=True, **options)

    def run(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> None:
        """Run imagepipe to its end."""
        process = self.start(*arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        if process.wait() not in codes:
            raise SystemExit(f"imagepipe {' '.join(arguments)}: exit code {process.returncode}")

    def screens(self, *arguments: str) -> Iterator[Screen]:
        """Run imagepipe on a terminal, and yield its screen after each change."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        process = self.start(*arguments, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        screen = Screen(COLUMNS, ROWS)
        stream = pyte.ByteStream(screen)
        stream.feed(f"$ {' '.join(['imagepipe', *arguments])}\r\n".encode())
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            while True:
                try:
                    part = terminal.read(1 << 16)
                except OSError:  # the terminal's end
                    break
                stream.feed(part)
                yield screen
        if process.wait() != 0:
            raise SystemExit(f"imagepipe {' '.join(arguments)}: exit code {process.returncode}")


def shown(screen: Screen) -> str:
    """Return a screen as HTML."""
    last = max(number for number, text in enumerate(screen.display) if text.strip())
    lines = []
    for row in range(last + 1):
        cells = [screen.buffer[row][column] for column in range(screen.columns)]
        styled = groupby(cells, key=lambda cell: ("dim" if cell.italics else cell.fg, cell.bold))
        lines.append(
            "".join(_span(colour, bold, "".join(cell.data for cell in part)) for (colour, bold), part in styled)
        )
    return f"{TERMINAL}<main><pre>{chr(10).join(lines)}</pre></main>"


def _span(colour: str, is_bold: bool, text: str) -> str:
    weight = ";font-weight:bold" if is_bold else ""
    return f'<span style="color:{COLOURS[colour]}{weight}">{escape(text)}</span>'


def terminal(place: Place) -> str:
    """Build the sample on a terminal, and return the screen at the wanted moment as HTML."""
    found = None
    for screen in place.screens(*COMMAND.split()[1:]):
        *log, stage, _ = [text for text in ("", "", *screen.display) if text.strip() or not text]
        if stage.startswith(MOMENT) and not any(MOMENT in text and "done in" in text for text in log):
            found = shown(screen)
    if found is None:
        raise SystemExit(f"no screen showed {MOMENT}")
    return found


@contextmanager
def pages(place: Place) -> Iterator[str]:
    """Serve the pages of all runs, and yield their address."""
    process = place.start("ui", stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().decode().strip()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def site(folder: Path) -> Path:
    """Build the docs as a site, and return its front page."""
    subprocess.run([sys.executable, "-m", "sphinx", "-q", "-b", "html", str(ROOT / "docs"), str(folder)], check=True)
    return folder / "index.html"


def take(place: Place, chromium: Browser, images: Path) -> None:
    """Run the builds, and write the screenshots."""
    page = place.folder / "terminal.html"
    page.write_text(terminal(place), encoding="utf-8")
    chromium.open(page, width=1200)
    size = chromium.evaluate(
        '(({width, height}) => [width, height])(document.querySelector("main").getBoundingClientRect())'
    )
    (images / "terminal.png").write_bytes(chromium.picture(width=int(size[0]), height=int(size[1])))
    report = place.folder / "report"
    place.run("report", "latest", "--output", str(report), "--format", "html")
    for scheme in ("light", "dark"):
        chromium.open(report / "report.html", width=1000, scheme=scheme)
        (images / f"report-{scheme}.png").write_bytes(chromium.picture(width=1000, height=1000))
    place.run("build", "specs/web-server.yaml", "--local", "--var", "nginx=ngnix", codes=(7,))
    with pages(place) as address:
        chromium.open(address, width=1000)
        (images / "ui.png").write_bytes(chromium.picture(width=1000, height=500))
    chromium.open(site(place.folder / "site"), width=1200)
    (images / "site.png").write_bytes(chromium.picture(width=1200, height=780, scale=0.75))


def main(images: Path) -> None:
    """Take all screenshots."""
    with tempfile.TemporaryDirectory(prefix="imagepipe-", dir=os.environ.get("TMPDIR")) as name:
        place = Place(Path(name))
        try:
            with browser(place.folder / "chromium") as chromium:
                take(place, chromium, images)
        finally:
            place.run("local", "stop", "--force")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
