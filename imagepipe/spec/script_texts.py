"""Texts of a script on the instance: its lines, its arguments, and its environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from imagepipe import late
from imagepipe.spec.scalars import EnvName, Text

SET_BY_SHELLS = frozenset(
    [
        *("BASH", "BASHOPTS", "BASHPID", "BASH_ALIASES", "BASH_ARGC", "BASH_ARGV", "BASH_ARGV0", "BASH_CMDS"),
        *("BASH_COMMAND", "BASH_EXECUTION_STRING", "BASH_LINENO", "BASH_LOADABLES_PATH", "BASH_MONOSECONDS"),
        *("BASH_REMATCH", "BASH_SOURCE", "BASH_SUBSHELL", "BASH_TRAPSIG", "BASH_VERSINFO", "BASH_VERSION"),
        *("COMP_CWORD", "COMP_KEY", "COMP_LINE", "COMP_POINT", "COMP_TYPE", "COMP_WORDBREAKS", "COMP_WORDS"),
        *("COPROC", "DIRSTACK", "EPOCHREALTIME", "EPOCHSECONDS", "EUID", "FUNCNAME", "GROUPS", "HISTCMD", "IFS"),
        *("LINENO", "MAPFILE", "OLDPWD", "OPTERR", "OPTIND", "PIPESTATUS", "PPID", "PS1", "PS2", "PS4", "PWD"),
        *("RANDOM", "READLINE_LINE", "READLINE_MARK", "READLINE_POINT", "SECONDS", "SHELLOPTS", "SHLVL", "SRANDOM"),
        *("UID", "_"),
    ]
)
"""Names that a shell sets itself (bash(1), "Shell Variables"; POSIX, "Shell Execution Environment"): a script
never sees values given to them, and some cannot be assigned at all."""


def _not_set_by_shells(name: str) -> str:
    if name in SET_BY_SHELLS:
        message = "the shell sets {name} itself, so a script never sees this value; use another name"
        raise PydanticCustomError("set_by_shell", message, {"name": name})
    return name


def _without_nul(text: late.Text) -> late.Text:
    if isinstance(text, str) and "\0" in text:
        raise PydanticCustomError("nul", "has a NUL character, which a script cannot hold; upload it with file:")
    return text


StepEnvName = Annotated[EnvName, AfterValidator(_not_set_by_shells)]
ScriptText = Annotated[Text, AfterValidator(_without_nul)]
"""Text that becomes a script, an argument or a value of the environment."""
