"""Upload a file or folder, or a rendered template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from imagepipe import render
from imagepipe.communicator.ssh import Result
from imagepipe.communicator.upload import Placement, upload_bytes, upload_path
from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import Context
from imagepipe.errors import ImagepipeError
from imagepipe.provision.step import Attempt, Step
from imagepipe.regular_files import read_text


@dataclass(frozen=True)
class UploadFile(Step):
    """Upload a local file or folder as one tar stream."""

    folder: Path
    """Folder that `src` is relative to."""
    src: str
    dest: str
    mode: str | None = None
    owner: str | None = None

    def files(self) -> tuple[Path, ...]:
        return (self.folder / self.src,)

    def attempt(self, ctx: Context, at: Attempt) -> Result:
        placement = Placement(self.dest, sudo=self.options.sudo, mode=self.mode, owner=self.owner)
        try:
            return upload_path(at.connection, self.src, self.folder, placement, at.watch)
        except OSError as error:
            raise ImagepipeError(f"reading {error.filename or self.src}: {error.strerror or error}") from error


@dataclass(frozen=True)
class RenderTemplate(Step):
    """Render a local Jinja template and upload the result."""

    src: Path
    dest: str
    vars: Mapping[str, Any]
    """Further names for the template; a `Late` among the values is rendered first."""
    known: Mapping[str, Any] = field(repr=False)
    """The values of `var` or `param`, `spec` and `build` that the template's file reads."""
    mode: str | None = None
    owner: str | None = None

    def files(self) -> tuple[Path, ...]:
        return (self.src,)

    def attempt(self, ctx: Context, at: Attempt) -> Result:
        try:
            template = read_text(self.src)
        except (OSError, UnicodeDecodeError) as error:
            raise ImagepipeError(f"reading the template {self.src}: {error}") from error
        try:
            known = render.render_all_late({**self.known, **self.vars}, at.names)
            text = render.render_file(template, {**at.names, **known})
        except render.RenderError as error:
            line = f":{error.line}" if error.line else ""
            raise ImagepipeError(f"rendering {self.src}{line}: {error}", hint=error.hint) from error
        placement = Placement(self.dest, sudo=self.options.sudo, mode=self.mode, owner=self.owner)
        return upload_bytes(at.connection, text.encode(), placement, at.watch)
