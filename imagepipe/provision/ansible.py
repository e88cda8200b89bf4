"""Run a playbook of Ansible: from here over SSH, with the host key that we have verified, or on the machine itself."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Literal

from imagepipe import render
from imagepipe.communicator.openssh import host_key_lines, ssh_options
from imagepipe.communicator.ssh import Disconnected, Result, Watch
from imagepipe.dataclass import dataclass
from imagepipe.deletion import delete_tree
from imagepipe.engine.stage import Context
from imagepipe.errors import CommandFailed, ImagepipeError
from imagepipe.late import Text
from imagepipe.provision.custom import StepMachine
from imagepipe.provision.local_command import run_here
from imagepipe.provision.step import Attempt, Step
from imagepipe.values import Endpoint

PROGRAM = "ansible-playbook"
INSTALL = "install ansible-core (pipx install ansible-core), or set run: machine"
PLAIN = {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_NOCOWS": "1", "PYTHONUNBUFFERED": "1"}
LONGEST_FOLDER = 60
"""Longest path of a folder in which OpenSSH can make a socket; the socket's path has at most 104 bytes (macOS)."""
NO_HOSTS = "skipping: no hosts matched"
RECAP = re.compile(r"machine\s*: ok=")
"""The machine's line at the end of the output, if a play was for it."""
UNREACHABLE = 4
"""Exit code of Ansible when a machine could not be reached."""
UNREACHABLE_LINE = "UNREACHABLE!"
CLEANING_SECONDS = 30
"""Time to delete the files on the machine, also after a playbook that was not done in time."""


@dataclass(frozen=True)
class RunPlaybook(Step):
    """Run ansible-playbook."""

    folder: Path
    """Folder that the playbook is relative to."""
    playbook: str
    names: tuple[str, ...]
    """The playbook, and the files and folders that it reads, relative to `folder`."""
    is_here: bool
    extra_vars: Mapping[str, Any] = field(repr=False)
    """Variables of the playbook; a `Late` among the values is rendered first."""
    groups: tuple[str, ...] = ()
    args: tuple[Text, ...] = ()

    def files(self) -> tuple[Path, ...]:
        return tuple(self.folder / name for name in self.names)

    def attempt(self, ctx: Context, at: Attempt) -> Result:
        return self._here(at) if self.is_here else self._on_machine(ctx, at)

    def _here(self, at: Attempt) -> Result:
        """Run it on this computer. SSH connects with the key of the run, and accepts the host key of `at` alone."""
        program = ansible_playbook()
        # Not resolve(): Ansible looks for roles beside the name of a playbook, even if that is a link.
        playbook = Path(os.path.abspath(self.folder / self.playbook))  # noqa: PTH100
        endpoint = at.connection.endpoint
        told: list[str] = []
        with _private_folder() as folder:
            known_hosts = folder / "known_hosts"
            lines = host_key_lines(at.connection.verified_endpoint())
            known_hosts.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            inventory = self._inventory(_host(endpoint, known_hosts))
            command = [program, *self._words(folder, inventory, at), str(playbook)]
            control = ["-o", f"ControlPath={folder}/c"]
            env = {
                **os.environ,
                **PLAIN,
                **_locale(),
                "ANSIBLE_HOST_KEY_CHECKING": "True",
                "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
                "ANSIBLE_SSH_ARGS": shlex.join(["-o", "ControlMaster=auto", "-o", "ControlPersist=60s", *control]),
                "ANSIBLE_PIPELINING": "True",
                **self.env(at.names),
            }
            try:
                result = run_here(command, self._listening(at, told), env=env, cwd=playbook.parent)
            except OSError as error:
                raise ImagepipeError(f"starting {program}: {error.strerror or error}", hint=INSTALL) from error
            finally:
                _close_master(control, endpoint)
        if result.code == UNREACHABLE and any(UNREACHABLE_LINE in line for line in told):
            raise Disconnected("Ansible could not reach the machine any more")
        return self._checked(result, told)

    def _listening(self, at: Attempt, told: list[str]) -> Watch:
        """Return the watch of an attempt that also notes the lines that say whether the playbook did anything."""

        def on_line(stream: Literal["out", "err"], text: str) -> None:
            if NO_HOSTS in text or UNREACHABLE_LINE in text or RECAP.match(text):
                told.append(text)
            at.watch.on_line(stream, text)

        return replace(at.watch, on_line=on_line)

    def _checked(self, result: Result, told: list[str]) -> Result:
        """Return the result. Raises CommandFailed if no play was for the machine, which is a success for Ansible."""
        is_idle = any(NO_HOSTS in line for line in told) and not any(RECAP.match(line) for line in told)
        if result.code in self.options.exit_codes and is_idle:
            raise CommandFailed(
                f"the playbook {self.playbook} did nothing: no play has hosts that match the machine",
                code=result.code,
                hint="write `hosts: all`, or name the group of a play in `groups`",
            )
        return result

    def _on_machine(self, ctx: Context, at: Attempt) -> Result:
        """Upload the files into a new folder of the machine, run ansible-playbook there, and delete the folder."""
        machine, told = StepMachine(self, ctx, at), list[str]()
        target = machine.read("mktemp -d /tmp/imagepipe-ansible-XXXXXXXX").strip()
        try:
            with _private_folder() as folder:
                words = self._words(folder, self._inventory({"ansible_connection": "local"}), at, at_machine=target)
                for name in self.names:
                    machine.upload(self.folder / name, f"{target}/{_below(name, Path(self.playbook).parent)}")
                for made in folder.iterdir():
                    machine.upload(made, f"{target}/{made.name}", mode="0600")
            script = f"cd {shlex.quote(target)}\n{PROGRAM} {shlex.join([*words, Path(self.playbook).name])}\n"
            env = {**PLAIN, "ANSIBLE_HOME": f"{target}/.ansible", "LC_ALL": "C.UTF-8", **self.env(at.names)}
            listening = StepMachine(self, ctx, replace(at, watch=self._listening(at, told)))
            return self._checked(Result(listening.run(script, env=env)), told)
        finally:
            later = replace(at, watch=replace(at.watch, deadline=ctx.deadline(CLEANING_SECONDS)))
            # -xdev: a playbook may have mounted something there
            StepMachine(self, ctx, later).read(f"cd /; find {shlex.quote(target)} -xdev -depth -delete")

    def _inventory(self, host: Mapping[str, Any]) -> dict[str, Any]:
        hosts = {"hosts": {"machine": dict(host)}}
        return {"all": {**hosts, "children": {group: {"hosts": {"machine": {}}} for group in self.groups}}}

    def _words(
        self, folder: Path, inventory: Mapping[str, Any], at: Attempt, *, at_machine: str | None = None
    ) -> list[str]:
        """Write inventory and variables into a folder; return the arguments with which ansible-playbook reads them."""
        variables = render.render_all_late(dict(self.extra_vars), at.names)
        (folder / "inventory.json").write_text(json.dumps(inventory), encoding="utf-8")
        (folder / "extra-vars.json").write_text(json.dumps(variables), encoding="utf-8")
        place = at_machine or str(folder)
        words = ["--inventory", f"{place}/inventory.json", "--extra-vars", f"@{place}/extra-vars.json"]
        words += ["--become"] if self.options.sudo and at_machine is None else []
        return [*words, *(render.render_late(arg, at.names) for arg in self.args)]


def _below(name: str, folder: Path) -> str:
    """Return the path of a file relative to the playbook's folder, which all of its files are below."""
    return Path(os.path.relpath(name, folder)).as_posix()


def ansible_playbook() -> str:
    """Return the path of ansible-playbook on this computer. Raises ImagepipeError if it is not installed."""
    beside = Path(sys.executable).with_name(PROGRAM)  # an environment that is not activated
    found = shutil.which(PROGRAM) or (str(beside) if os.access(beside, os.X_OK) else None)
    if found is None:
        raise ImagepipeError(f"the program {PROGRAM} was not found on this computer", hint=INSTALL)
    return found


@contextmanager
def _private_folder() -> Iterator[Path]:
    """Make a folder that only we can read, and delete it at the end."""
    is_long = len(tempfile.gettempdir()) > LONGEST_FOLDER
    folder = Path(tempfile.mkdtemp(prefix="imagepipe-", dir="/tmp" if is_long else None))  # noqa: S108
    try:
        yield folder
    finally:
        delete_tree(folder)


def _host(endpoint: Endpoint, known_hosts: Path) -> dict[str, Any]:
    """Return the variables of the inventory that make Ansible log in to a machine as we do."""
    strict = ("-o", "StrictHostKeyChecking=yes", "-o", "GlobalKnownHostsFile=none")
    options = (*ssh_options(endpoint, known_hosts), *strict)
    return {
        "ansible_host": endpoint.host,
        "ansible_port": endpoint.port,
        "ansible_user": endpoint.user,
        "ansible_ssh_private_key_file": endpoint.private_key,
        "ansible_ssh_common_args": shlex.join(options),
        "ansible_python_interpreter": "auto_silent",
    }


def _locale() -> dict[str, str]:
    """Return the locale for Ansible, which ends with an error in one that is not UTF-8."""
    name = next((os.environ[key] for key in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(key)), "")
    return {} if name.lower().replace("-", "").endswith("utf8") else {"LC_ALL": "C.UTF-8"}


def _close_master(control: list[str], endpoint: Endpoint) -> None:
    """End the connection that OpenSSH keeps open between the tasks of a playbook."""
    command = ["ssh", *control, "-O", "exit", endpoint.host]
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(command, capture_output=True, timeout=10, check=False)
