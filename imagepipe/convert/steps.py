"""Convert provisioners to steps: shell, file, ansible, ansible-local; others are listed."""

from __future__ import annotations

import posixpath
import re
import shlex
from pathlib import Path

from imagepipe.convert.draft import SourcePath, Step
from imagepipe.convert.evaluate import WRITE_IT
from imagepipe.convert.execute_command import Execution, read_execute_command
from imagepipe.convert.options import Options
from imagepipe.convert.source import duration_of
from imagepipe.convert.syntax import Place
from imagepipe.convert.values import LeftOut, Symbol, Text, Value, is_deferred, text_of, with_defaults
from imagepipe.regular_files import read_head

_INSTEAD = {
    "breakpoint": "`imagepipe build --keep-on-failure` keeps the machine, and `imagepipe ssh` logs in",
    "chef-client": "upload the cookbooks with a file step, and run chef-client in a shell step",
    "chef-solo": "upload the cookbooks with a file step, and run chef-solo in a shell step",
    "error-cleanup-provisioner": "`imagepipe build --keep-on-failure` keeps the machine for a look",
    "goss": "write the checks in `test`: http, port, package, service, path, command",
    "hcp-sbom": "run the tool that lists the packages in a shell step",
    "inspec": "write the checks in `test`, or run inspec in a shell step of `test`",
    "puppet-masterless": "upload the manifests with a file step, and run puppet apply in a shell step",
    "puppet-server": "run puppet agent in a shell step",
    "salt-masterless": "upload the states with a file step, and run salt-call --local in a shell step",
    "shell-local": "run the command before `imagepipe build`, in the same CI job",
}
_NEEDED_NOT = (
    *("binary", "remote_folder", "remote_file", "remote_path", "skip_clean", "start_retry_timeout", "only", "except"),
    *("use_env_var_file", "env_var_format", "override", "type", "direction", "generated", "keep_input_artifact"),
)
_REBOOT = re.compile(
    r"(?:sudo\s+)?(?:/s?bin/|/usr/s?bin/)?(?:reboot(?:\s+now|\s+-f)?|shutdown\s+-r\s+(?:now|0|\+0)|systemctl\s+reboot|init\s+6)"
)
_ENDS_CONNECTION = re.compile(
    r"\b(?:reboot|shutdown|poweroff|kexec|init\s+6|(?:restart|stop|reload)\b.*\b(?:ssh|sshd|network\w*)|service\s+sshd?)\b"
)
_STRICT = re.compile(r"^\s*set\s+-(?=\w*e)(?=\w*u)\w*o\s+pipefail", re.MULTILINE)
_RISKY = re.compile(r"[$|`]")
"""Characters of lines that may fail with `set -u` or `pipefail`."""
_FOLDERS = frozenset({"/", "/tmp", "/var/tmp", "/root", "/opt", "/etc", "/usr/local/bin", "/usr/bin", "/home", "/srv"})  # noqa: S108
_STAGING = "/tmp/packer-provisioner-ansible-local"  # noqa: S108 - the name that Packer uses


_ANSIBLE_NEEDED_NOT = (
    *("user", "host_alias", "use_proxy", "local_port", "ansible_proxy_host", "ansible_proxy_key_type", "sftp_command"),
    *("ssh_host_key_file", "ssh_authorized_key_file", "use_sftp", "skip_version_check", "keep_inventory_file"),
    *("empty_groups", "ansible_ssh_extra_args"),
)
"""Options of the ansible provisioner about its connection, which imagepipe makes by itself."""

SUPPORTED = frozenset({"shell", "file", "ansible", "ansible-local", "breakpoint"})
"""Provisioners whose options are read."""


class StepMaker:
    """Makes the steps of one spec, in order."""

    def __init__(self, user: Value) -> None:
        self.home = "/root" if user == "root" else f"/home/{user}" if isinstance(user, str) else None
        self.steps: list[Step] = []

    def add(self, kind: str, options: Options) -> None:
        """Add the steps of a provisioner. Raises LeftOut if it has no counterpart."""
        at = options.at
        pause = duration_of(options.constant("pause_before"), options.place("pause_before"), options)
        last = next((step.keys for step in reversed(self.steps) if step.keys), None)
        if pause and last is not None and not last.get("expect_disconnect") and "reboot" not in last:
            self._append(at, {"shell": f"sleep {_seconds(pause)}"})
        match kind:
            case "shell":
                self._shell(options)
            case "file":
                self._file(options)
            case "ansible":
                self._ansible(options)
            case "ansible-local":
                self._ansible_local(options)
            case "breakpoint" if options.flag("disable"):
                return
            case _:
                raise unsupported(kind, at)
        if pause := duration_of(options.constant("pause_after"), options.place("pause_after"), options):
            self._append(at, {"shell": f"sleep {_seconds(pause)}"})
        options.skip(*_NEEDED_NOT)
        options.rest(_why)

    def _append(self, at: Place, keys: dict[str, Value]) -> None:
        self.steps.append(Step(at, keys))

    # shell

    def _shell(self, options: Options) -> None:
        common = self._common(options)
        execution = self._execution(options)
        if execution.sudo:
            common["sudo"] = True
        shebang = options.constant("inline_shebang")
        disconnects = options.flag("expect_disconnect")
        at = options.at
        inline = options.raw("inline")
        scripts = options.strings("scripts")
        if (script := options.text("script")) is not None:
            scripts.append(script)
        if inline is None and not scripts:
            if options.failed & {"inline", "script", "scripts"}:
                return
            raise LeftOut(at, "a shell provisioner without `inline`, `script` or `scripts`", "add one of them")
        if inline is not None:
            self._inline(options, inline, shebang, execution, common, disconnects)
        for name in scripts:
            self._script(options, name, execution, common, disconnects)

    def _inline(
        self,
        options: Options,
        inline: Value,
        shebang: str | None,
        execution: Execution,
        common: dict[str, Value],
        disconnects: bool | None,
    ) -> None:
        at = options.at
        if isinstance(inline, Symbol):
            inline = options.evaluator.settle(inline, at, "inline")
        lines = inline if isinstance(inline, list) else [inline]
        if not lines or not all(isinstance(line, str | Symbol | Text) for line in lines):
            raise LeftOut(at, "`inline` is empty, or has an item that is not a string", "add the commands")
        known = [line for line in lines if isinstance(line, str)]
        if len(known) == len(lines) and _is_reboot(known):
            kept = {"reboot": {"timeout": common["timeout"]} if "timeout" in common else {}}
            self._append(at, kept)
            return
        parts: list[Value] = []
        for index, line in enumerate(lines):
            parts += ["\n"] if index else []
            parts.append(line)
        text = text_of(parts)
        shown = _known_part(text)
        interpreter = execution.interpreter or shebang or "/bin/sh -e"
        keys: dict[str, Value] = {"shell": text}
        is_default = shebang is None and execution.interpreter in (None, "bash", "/bin/bash", "sh", "/bin/sh")
        is_safe = is_default and (len(lines) == 1 or execution.interpreter is None) and not _RISKY.search(shown)
        if not is_safe and not _STRICT.search(shown):
            keys = {"shell": {"inline": text, "interpreter": interpreter}}
        self._append(at, {**keys, **common, **self._disconnect(disconnects, shown, at, options)})

    def _script(
        self, options: Options, name: Value, execution: Execution, common: dict[str, Value], disconnects: bool | None
    ) -> None:
        at = options.at
        if is_deferred(name):
            name = options.evaluator.settle(name, at, "the path of a script")
        path = options.evaluator.folders.find(name)
        head = _head(path)
        keys: dict[str, Value] = {"script": SourcePath(str(path), name)}
        interpreter = execution.interpreter or _shebang(head)
        if interpreter and not (_STRICT.search(head) and execution.interpreter is None and "sh" in interpreter):
            keys["interpreter"] = interpreter
        self._append(at, {"shell": keys, **common, **self._disconnect(disconnects, head or "reboot", at, options)})

    def _disconnect(self, disconnects: bool | None, text: str, at: Place, options: Options) -> dict[str, Value]:
        if not disconnects:
            return {}
        if _ENDS_CONNECTION.search(text):
            return {"expect_disconnect": True}
        instead = "set it only on a step that ends the connection, because imagepipe waits until it ends"
        options.listing.add(at, "`expect_disconnect` of a script that seems not to end the connection", instead)
        return {}

    def _set_variables(self, options: Options, option_name: str, env: dict[str, Value]) -> None:
        """Add the variables of a list of `NAME=VALUE` to an environment."""
        at = options.place(option_name)
        for pair in options.strings(option_name):
            name, value = _pair(pair)
            if name is None or not re.fullmatch(r"[A-Za-z_]\w*", name):
                options.listing.add(at, f"an entry of {option_name} that is not NAME=VALUE", "set it in the step's env")
            else:
                env[name] = value

    def _execution(self, options: Options) -> Execution:
        at = options.place("execute_command")
        command = options.raw("execute_command")
        if command is None:
            return Execution(sudo=False, interpreter=None)
        if isinstance(command, list):
            command = " ".join(each for each in command if isinstance(each, str))
        if is_deferred(command):
            command = options.evaluator.settle(command, at, "execute_command")
        found = read_execute_command(str(command))
        if found is None:
            instead = (
                "set sudo, and shell.interpreter, in the step; run it as another user with `sudo -u` in the script"
            )
            options.listing.add(at, f"execute_command `{str(command)[:80]}`", instead)
            return Execution(sudo="sudo" in str(command), interpreter=None)
        return found

    def _common(self, options: Options) -> dict[str, Value]:
        """Return the options that every step has."""
        found: dict[str, Value] = {}
        env = options.mapping("env")
        self._set_variables(options, "environment_vars", env)
        if env:
            found["env"] = env
        at = options.place("timeout")
        if (timeout := duration_of(options.constant("timeout"), at, options)) is not None:
            found["timeout"] = timeout
        retries = options.number("max_retries")
        if retries not in (None, 0):
            found["retries"] = retries
        codes = [int(code) for code in options.strings("valid_exit_codes") if isinstance(code, str) and code.isdigit()]
        if codes not in ([], [0]):
            found["exit_codes"] = codes
        return found

    # file

    def _file(self, options: Options) -> None:
        at = options.at
        if options.constant("direction") == "download":
            raise LeftOut(
                at, "a file provisioner with direction `download`", "fetch the file from the image's instance"
            )
        common = self._common(options)
        dest = options.text("destination")
        if dest is None:
            if "destination" in options.failed:
                return
            raise LeftOut(at, "a file provisioner without `destination` that is known now", "add it to the template")
        if "content" in options.values:
            content = options.raw("content")
            self._append(at, {"shell": self._written(at, content, self._absolute(dest, at)), **common})
            return
        sources = options.strings("sources")
        if (source := options.text("source")) is not None:
            sources.append(source)
        if not sources:
            if options.failed & {"source", "sources", "content"}:
                return
            raise LeftOut(at, "a file provisioner without `source` that is known now", "add it to the template")
        for name in sources:
            name = options.evaluator.settle(name, at, "the path of a file")
            path = options.evaluator.folders.find(name)
            target = self._absolute(dest, at)
            if (
                isinstance(target, str)
                and not target.endswith("/")
                and self._is_folder(target, name, path, len(sources))
            ):
                target += "/"
            slash = "/" if name.endswith("/") else ""
            self._append(at, {"file": {"src": SourcePath(f"{path}{slash}", name), "dest": target}, **common})

    def _is_folder(self, target: str, name: str, path: Path, count: int) -> bool:
        """Return whether a target without a slash at its end is a folder to upload into."""
        if path.is_dir():
            return not name.endswith("/")
        return count > 1 or target in _FOLDERS or target == self.home

    def _absolute(self, dest: Value, at: Place) -> Value:
        """Return a target as an absolute path; a relative one is in the user's home folder."""
        first = dest.parts[0] if isinstance(dest, Text) else dest
        if isinstance(first, Symbol):
            default = with_defaults(dest)
            if isinstance(default, str) and not default.startswith("/"):
                raise LeftOut(at, "a file's `destination` that is not absolute", "write an absolute path")
            return dest
        assert isinstance(first, str)
        if first.startswith("/"):
            return dest
        if self.home is None or (first.startswith("~") and not first.startswith("~/") and first != "~"):
            raise LeftOut(at, "a file's `destination` that is not absolute", "write an absolute path")
        rest = first.removeprefix("~").removeprefix("./").lstrip("/")
        parts = dest.parts[1:] if isinstance(dest, Text) else ()
        return text_of([f"{self.home}/{rest}", *parts])

    def _written(self, at: Place, content: Value, dest: Value) -> Value:
        """Return a script that writes a text into a file."""
        if content is None:
            content = ""
        if not isinstance(content, str | Symbol | Text):
            raise LeftOut(at, "a file's `content` that is not a string", WRITE_IT)
        quoted = shlex.quote(dest) if isinstance(dest, str) else text_of(["'", dest, "'"])
        shown = _known_part(content)
        if shown.endswith("\n") and "END_OF_FILE" not in shown:
            return text_of(["cat >", quoted, " <<'END_OF_FILE'\n", content, "END_OF_FILE\n"])
        if "'" in shown:
            content = shlex.quote(content) if isinstance(content, str) else None
            if content is None:
                raise LeftOut(
                    at, "a file's `content` with a variable and a quote", "upload a file with a file or template step"
                )
            return text_of(["printf %s ", content, " >", quoted, "\n"])
        return text_of(["printf %s '", content, "' >", quoted, "\n"])

    # ansible

    def _ansible(self, options: Options) -> None:
        """Run the playbook from here, as the provisioner does."""
        name = options.constant("playbook_file")
        if not name:
            raise LeftOut(options.at, "an ansible provisioner without a playbook", "add playbook_file to the template")
        keys: dict[str, Value] = {"playbook": SourcePath(str(options.evaluator.folders.find(name)), name)}
        for key, option_name in (("groups", "groups"), ("args", "extra_arguments")):
            if values := options.strings(option_name):
                keys[key] = values
        env: dict[str, Value] = {}
        self._set_variables(options, "ansible_env_vars", env)
        options.skip(*_ANSIBLE_NEEDED_NOT)
        step: Value = keys if len(keys) > 1 else keys["playbook"]
        self._append(options.at, {"ansible": step, **({"env": env} if env else {})})

    # ansible-local

    def _ansible_local(self, options: Options) -> None:
        """Upload the playbooks, and run ansible-playbook on the instance itself."""
        at = options.at
        staging = options.constant("staging_directory") or _STAGING
        staging = staging.rstrip("/")
        playbooks = options.strings("playbook_files")
        if (one := options.text("playbook_file")) is not None:
            playbooks.append(one)
        if not playbooks:
            raise LeftOut(at, "an ansible-local provisioner without a playbook", "add playbook_file to the template")
        names = [options.evaluator.settle(each, at, "the path of a playbook") for each in playbooks]
        command = options.constant("command") or "ANSIBLE_FORCE_COLOR=1 PYTHONUNBUFFERED=1 ansible-playbook"
        galaxy = options.constant("galaxy_command") or "ansible-galaxy"
        uploads = self._uploads(options, names, staging)
        folders = sorted({posixpath.dirname(target.rstrip("/")) for _, target in uploads} | {staging})
        self._append(at, {"name": "folders for Ansible", "shell": f"mkdir -p {shlex.join(folders)}"})
        for name, target in uploads:
            path = str(options.evaluator.folders.find(name)) + ("/" if target.endswith("/") else "")
            self._append(at, {"file": {"src": SourcePath(path, name), "dest": target}})
        lines: list[Value] = [f"cd {shlex.quote(staging)}\n"]
        requirements = options.constant("galaxy_file")
        if requirements:
            place = f"{staging}/{posixpath.basename(requirements)}"
            lines.append(f"{galaxy} install -r {shlex.quote(place)} -p {shlex.quote(staging)}/roles\n")
        inventory = options.constant("inventory_file")
        hosts = f"{staging}/{posixpath.basename(inventory)}" if inventory else "127.0.0.1,"
        base = options.constant("playbook_dir")
        arguments = options.strings("extra_arguments")
        for name in names:
            inside = _below(name, base)
            playbook = f"{staging}/{inside or posixpath.basename(name)}"
            lines.append(f"{command} {shlex.quote(playbook)}")
            for word in arguments:
                lines += [" ", word]
            lines.append(f" -c local -i {shlex.quote(hosts)}\n")
        if options.flag("clean_staging_directory"):
            lines.append(f"rm -rf {shlex.quote(staging)}\n")
        keys: dict[str, Value] = {"name": "Ansible", "shell": text_of(lines)}
        self._append(at, keys)

    def _uploads(self, options: Options, playbooks: list[str], staging: str) -> list[tuple[str, str]]:
        """Return the files and folders to upload, with their targets."""
        found: list[tuple[str, str]] = []
        base = options.values.get("playbook_dir")
        if base is not None and isinstance(base.value, str) and base.value:
            found.append((base.value, f"{staging}/"))
        folder = base.value if base is not None and isinstance(base.value, str) else None
        found += [(name, f"{staging}/{posixpath.basename(name)}") for name in playbooks if not _below(name, folder)]
        for option_name, below in (("group_vars", "group_vars/"), ("host_vars", "host_vars/")):
            if path := options.constant(option_name):
                found.append((path, f"{staging}/{below}"))
        for option_name, below in (
            ("role_paths", "roles"),
            ("collection_paths", "collections"),
            ("playbook_paths", ""),
        ):
            for each in options.strings(option_name):
                path = options.evaluator.settle(each, options.at, option_name)
                inside = posixpath.join(staging, below, posixpath.basename(path.rstrip("/")))
                found.append((path, f"{inside}/"))
        for option_name in ("inventory_file", "galaxy_file"):
            option = options.values.get(option_name)
            if option is not None and isinstance(option.value, str) and option.value:
                found.append((option.value, f"{staging}/{posixpath.basename(option.value)}"))
        return found


def _below(name: str, folder: str | None) -> str | None:
    """Return the path of a playbook inside the folder that is uploaded; None if it is not in it."""
    if not folder:
        return None
    inside = posixpath.relpath(name, folder)
    return None if inside.startswith("..") else inside


def unsupported(kind: str, at: Place) -> LeftOut:
    """Return the entry for a provisioner without a counterpart."""
    return LeftOut(at, f"provisioner `{kind}`", _instead(kind))


def _instead(kind: str) -> str:
    if kind.startswith(("powershell", "windows")):
        return "nothing: imagepipe supports Linux only; keep Packer for it"
    return _INSTEAD.get(kind, "run it in a shell step")


def _why(name: str) -> tuple[str, str]:
    instead = {
        "galaxy_file": "install its roles first: ansible-galaxy install -r FILE -p roles, beside the playbook",
        "inventory_groups": "upload an inventory file, and name it in the ansible-playbook command",
        "pause_before": WRITE_IT,
        "working_directory": "begin the script with cd",
    }
    return "has no counterpart", instead.get(name, "see docs/how-to/write-steps.md for the options of a step")


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


def _is_reboot(lines: list[str]) -> bool:
    commands = [part.strip() for line in lines for part in re.split(r"[;\n]", line) if part.strip()]
    others = [each for each in commands if not each.startswith(("echo ", "sleep "))]
    return len(others) == 1 and _REBOOT.fullmatch(others[0]) is not None and others[0] == commands[-1]


def _pair(pair: Value) -> tuple[str | None, Value]:
    """Split `NAME=VALUE`."""
    first = pair.parts[0] if isinstance(pair, Text) else pair
    if not isinstance(first, str) or "=" not in first:
        return None, None
    name, _, rest = first.partition("=")
    return name, text_of([rest, *(pair.parts[1:] if isinstance(pair, Text) else ())])


def _known_part(text: Value) -> str:
    """Return a text without its symbols."""
    parts = text.parts if isinstance(text, Text) else (text,)
    return "".join(part for part in parts if isinstance(part, str))


def _head(path: Path) -> str:
    try:
        return read_head(path, 65536).decode(errors="replace")
    except OSError:
        return ""


def _shebang(head: str) -> str | None:
    """Return the interpreter of a script's first line; /bin/sh if it has none, as execve's callers do."""
    first = head.partition("\n")[0].strip()
    if not first.startswith("#!"):
        return "/bin/sh" if head else None
    return " ".join(first[2:].split()) or None
