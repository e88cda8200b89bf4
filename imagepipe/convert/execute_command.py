"""Read an `execute_command`: the user and the interpreter that it runs a script with."""

from __future__ import annotations

import re

from imagepipe.dataclass import dataclass

_PATH = re.compile(r"\{\{\s*\.(?:Path|Script)\s*\}\}")
_VARS = re.compile(r"\{\{\s*\.(?:Vars|EnvVars)\s*\}\}")
_CHMOD = re.compile(r"(?:sudo\s+)?chmod\s+\S+\s+'?@PATH@'?\s*(?:;|&&)\s*")
_PASSWORD = re.compile(r"(?:echo|printf)\s+(?:'[^']*'|\"[^\"]*\"|\S+)\s*\|\s*")
_SHELL_TEXT = re.compile(r"^((?:\S+\s+)*?)((?:/\S+/)?(?:ba|da)?sh)((?:\s+-\w+)*?)\s+-(\w*)c\s+(['\"])(.*)\5$")
_SUDO = re.compile(r"(?:/usr/bin/)?sudo((?:\s+-{1,2}[A-Za-z][\w=-]*)*)\s+(.*)")
_SUDO_OPTIONS = {
    "-E",
    "-S",
    "-n",
    "-H",
    "-SE",
    "-ES",
    "-EH",
    "-HE",
    "-nE",
    "-k",
    "--preserve-env",
    "-EHS",
    "-HES",
    "--",
}
_ENV = re.compile(r"(?:/usr/bin/)?env\s+(?:-S\s+)?|@VARS@\s*|export\s+@VARS@\s*;?\s*")
_INTERPRETER = re.compile(r"(/?[\w./-]+)((?:\s+-[\w-]+|\s+pipefail)*)\s+'?\"?@PATH@\"?'?")


@dataclass(frozen=True, slots=True)
class Execution:
    """The way to run a script."""

    sudo: bool
    interpreter: str | None
    """The program that runs the script; None if the script's own first line decides."""


def read_execute_command(command: str) -> Execution | None:
    """Return the meaning of an `execute_command`; None if it does more than a spec can say."""
    text = " ".join(_VARS.sub("@VARS@", _PATH.sub("@PATH@", command)).split())
    if "@PATH@" not in text or "{{" in text:
        return None
    text = _CHMOD.sub("", text)
    text = _PASSWORD.sub("", text, count=1)
    sudo, shell = False, None
    for _ in range(6):
        text = text.strip()
        if text.strip("'\"") == "@PATH@":
            return Execution(sudo, shell)
        if found := _ENV.match(text):
            text = text[found.end() :]
        elif found := _SUDO.fullmatch(text):
            if any(option not in _SUDO_OPTIONS for option in found[1].split()):
                return None
            sudo, text = True, found[2]
        elif (inner := _SHELL_TEXT.fullmatch(text)) and not inner[1].strip():
            text = _CHMOD.sub("", inner[6])
        elif found := _INTERPRETER.fullmatch(text):
            if found[1].rpartition("/")[2] in ("su", "chroot", "nohup", "runuser"):
                return None
            return Execution(sudo, f"{found[1]}{found[2]}")
        else:
            return None
    return None
