"""Step kinds of other packages: the interface that they implement, and the search for those that are installed.

A package adds a kind through an entry point in the group `imagepipe.steps`, whose name is the key of the step in a spec
and whose object is a subclass of StepKind, or an instance of one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from imagepipe.dataclass import dataclass
from imagepipe.errors import ImagepipeError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "imagepipe.steps"


class Machine(Protocol):
    """The machine that a step works on, over its verified SSH connection. The step's `sudo` and `timeout` apply."""

    @property
    def instance_id(self) -> str:
        """The id of the EC2 instance."""

    @property
    def region(self) -> str:
        """The region of the instance."""

    @property
    def user(self) -> str:
        """The user of the login."""

    @property
    def sudo(self) -> bool:
        """True if the step works as root."""

    def run(
        self,
        script: str | bytes,
        *args: str,
        env: Mapping[str, str] | None = None,
        sudo: bool | None = None,
        interpreter: str | None = None,
    ) -> int:
        """Run a script as a shell step does: its output goes to the log. Return its exit code.

        `env` is added to the step's own environment. Raises CommandFailed if the exit code is not one of the step's
        `exit_codes`, or if the script is not done within the step's timeout.
        """

    def read(self, script: str | bytes, *args: str, sudo: bool | None = None) -> str:
        """Run a script and return its standard output, which does not go to the log.

        Raises CommandFailed if its exit code is not 0, or as `run`.
        """

    def upload(self, source: Path, dest: str, *, mode: str | None = None, owner: str | None = None) -> None:
        """Upload a file or a folder, as a file step does. `dest` is an absolute path; `mode` is octal."""

    def write(self, content: str | bytes, dest: str, *, mode: str | None = None, owner: str | None = None) -> None:
        """Write a file with this content; its mode is 0644 if none is given."""

    def say(self, text: str) -> None:
        """Print a line of progress in the log."""


class StepKind(ABC):
    """A kind of step that another package adds."""

    options: ClassVar[type[Any]]
    """Pydantic model of the step's value, which decides what `imagepipe validate` accepts and what editors offer."""

    def title(self, options: Any) -> str:
        """Return the name of a step in logs, if the spec gives it none; empty for the name of the kind."""
        return ""

    def files(self, options: Any) -> Sequence[str]:
        """Return the files and folders that the step reads, relative to the file that names them.

        `imagepipe validate` reports those that do not exist, and the image is stale when one of them changes.
        """
        return ()

    def check(self, options: Any, folder: Path) -> Iterable[str]:
        """Return a text for each problem that the model does not find. `folder` is the folder of `files`."""
        return ()

    @abstractmethod
    def run(self, options: Any, machine: Machine, folder: Path) -> None:
        """Do the work. Raises an exception if it fails; ImagepipeError for one whose text users understand."""


class StepKindError(ImagepipeError):
    """A step kind cannot be used, because of the package that adds it."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Installed:
    """A step kind that a package adds, not yet loaded."""

    name: str
    package: str
    version: str
    entry: EntryPoint
    rival: str = ""
    """Another package that adds a kind with this name."""

    def load(self) -> StepKind:
        """Return the kind. Raises StepKindError if the package is broken, or another one adds the same kind."""
        return _load(self)

    def read(self, given: Any) -> tuple[StepKind, Any]:
        """Return the kind, and its options from the value of a step.

        Raises StepKindError, and pydantic's ValidationError for a value that the kind's model refuses.
        """
        kind = self.load()
        return kind, kind.options.model_validate(given)


@cache
def installed_kinds() -> Mapping[str, Installed]:
    """Return the step kinds that installed packages add, by name."""
    from importlib.metadata import entry_points  # takes some milliseconds, and few specs need it

    found: dict[str, Installed] = {}
    for entry in entry_points(group=GROUP):
        package, version = (entry.dist.name, entry.dist.version) if entry.dist else ("an unknown package", "")
        other = found.get(entry.name)
        rival = other.package if other is not None and other.package != package else ""
        found[entry.name] = Installed(entry.name, package, version, entry, rival)
    return found


@cache
def _load(installed: Installed) -> StepKind:
    if installed.rival:
        raise StepKindError(
            f"two packages add the step kind '{installed.name}': {installed.rival} and {installed.package}",
            hint=f"remove one of them: pip uninstall {installed.package}",
        )
    where = f"step kind '{installed.name}' of the package {installed.package} {installed.version}"
    try:
        loaded = installed.entry.load()
        kind = loaded() if isinstance(loaded, type) else loaded
    except Exception as error:
        raise StepKindError(
            f"{where} cannot be loaded: {type(error).__name__}: {error}", hint="reinstall or update the package"
        ) from error
    if not isinstance(kind, StepKind) or not hasattr(kind.options, "model_validate"):
        raise StepKindError(
            f"{where}: {installed.entry.value} is not a StepKind with a pydantic model as its options",
            hint="this is a fault of the package: docs/how-to/add-a-step-kind.md",
        )
    return kind
