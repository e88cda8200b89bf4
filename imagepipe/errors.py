"""All errors that imagepipe shows to a user, with their exit codes.

A message names the operation, its object and the result; the hint says what to try. The class of the cause decides
the exit code (docs/reference/exit-codes.md).
"""

from __future__ import annotations

from collections.abc import Sequence

from imagepipe.dataclass import dataclass


class ImagepipeError(Exception):
    """An error that a user can understand and act on."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class UsageError(ImagepipeError):
    """The command line is invalid or cannot be satisfied."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem in a spec, with its position and a hint."""

    file: str
    line: int
    """Line, 1-based; 0 for the whole file."""
    column: int
    """Column in characters, 1-based; 0 for the whole file."""
    message: str
    path: str = ""
    """Path in the document: `provision.2.shell`."""
    excerpt: str = ""
    """Text of the line, without its end."""
    length: int = 1
    """Number of characters that the caret underlines."""
    hint: str | None = None
    severity: str = "error"
    """`error` or `warning`."""

    def location(self) -> str:
        """Return `file:line:column`, or only the file."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def text(self) -> str:
        """Format the problem for a terminal: location, message, excerpt with a caret, hint."""
        where = f"{self.path}: " if self.path else ""
        warning = "warning: " if self.severity == "warning" else ""
        lines = [f"{self.location()}: {warning}{where}{self.message}"]
        if self.excerpt.strip():
            gutter = f"{self.line:>5} | "
            # Keep tabs, so that the caret is below the same column in every terminal.
            pad = "".join("\t" if c == "\t" else " " for c in self.excerpt[: self.column - 1])
            lines += [gutter + self.excerpt, " " * 5 + " | " + pad + "^" * max(1, self.length)]
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


class SpecError(ImagepipeError):
    """One or more specs have errors. Carries all problems at once."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problem.text() for problem in self.problems))


class CloudError(ImagepipeError):
    """A call to the cloud failed permanently."""

    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        request_id: str = "",
        iam_action: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        """EC2's error code, such as `InvalidAMIName.Duplicate`; empty if there was no answer."""
        self.request_id = request_id
        self.iam_action = iam_action
        """Missing permission, such as `ec2:RunInstances`, if that was the reason."""


class StageError(ImagepipeError):
    """A stage failed for a reason that has no other class."""

    exit_code = 4


class UndoFailed(ExceptionGroup[Exception]):
    """Some resources of a run could not be deleted."""

    exit_code = 5


class ConnectError(ImagepipeError):
    """A machine could not be reached over SSH, or it was not the instance that we launched."""

    exit_code = 6


class CommandFailed(ImagepipeError):
    """A command on a machine ended with an exit code that its step does not accept."""

    exit_code = 7

    def __init__(self, message: str, *, code: int | None, tail: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        """The exit code; None if the connection broke or the deadline came first."""
        self.tail = tail


class CheckFailed(ImagepipeError):
    """A test of an instance did not hold in its time."""

    exit_code = 7


class BundleError(ImagepipeError):
    """A bundle is damaged or cannot be made."""

    exit_code = 8


class LocalCloudError(ImagepipeError):
    """The local cloud cannot do this on this machine."""

    exit_code = 9


class HygieneError(ImagepipeError):
    """An image contains something that must not be in an image."""

    exit_code = 10


class Cancelled(ImagepipeError):
    """The run was asked to stop."""

    exit_code = 130

    def __init__(self, message: str = "cancelled") -> None:
        super().__init__(message)
