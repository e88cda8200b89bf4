"""Write the scripts of `imagepipe completion` from the commands: `python -m docs.generate.completion FOLDER`.

The scripts are complete before they are installed: a TAB starts no Python. They hold every command, option and choice,
and find specs and runs with the shell's own means.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import click

from imagepipe.cli.main import COMMANDS, main

HEAD = """\
# Completion of imagepipe for {name}, made from its commands by `make docs`; do not edit.
# To install it: imagepipe completion --help
"""


class Kind(Enum):
    """The kinds of words that a shell can offer."""

    NOTHING = "nothing"
    SPEC = "specs"
    """Files with the suffixes of specs, and folders."""
    RUN = "runs"
    """`latest`, and the runs of this machine, newest first."""
    FILE = "files"
    FOLDER = "folders"


@dataclass(frozen=True, slots=True)
class Words:
    """The words that can stand in one place."""

    kind: Kind = Kind.NOTHING
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a command. `value` is None for a flag."""

    names: tuple[str, ...]
    help: str
    value: Words | None
    repeatable: bool


@dataclass(frozen=True, slots=True)
class Command:
    """A command and its subcommands; `path` is how it is called, without `imagepipe`."""

    path: tuple[str, ...]
    help: str
    options: tuple[Option, ...]
    arguments: Words
    subcommands: tuple[Command, ...] = field(default=())

    def walk(self) -> Iterator[Command]:
        """Yield this command and all below it."""
        yield self
        for command in self.subcommands:
            yield from command.walk()


def commands() -> Command:
    """Return the whole tree of commands."""
    return _command((), main, None)


def _command(path: tuple[str, ...], command: click.Command, parent: click.Context | None) -> Command:
    context = click.Context(command, info_name=path[-1] if path else "imagepipe", parent=parent)
    options = tuple(
        _option(parameter, context)
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option) and not parameter.hidden
    )
    arguments = [_words(parameter) for parameter in command.params if isinstance(parameter, click.Argument)]
    subcommands: tuple[Command, ...] = ()
    if isinstance(command, click.Group):
        found = [(name, command.get_command(context, name)) for name in command.list_commands(context)]
        subcommands = tuple(_command((*path, name), each, context) for name, each in found if each and not each.hidden)
    text = COMMANDS[path[0]][1] if len(path) == 1 else command.get_short_help_str(limit=100)
    return Command(path, text, options, arguments[0] if arguments else Words(), subcommands)


def _option(option: click.Option, context: click.Context) -> Option:
    record = option.get_help_record(context)
    help_text = " ".join((record[1] if record else "").split())
    first = help_text.split("; ")[0].split(".  [")[0].split(". ")[0].rstrip(".")
    takes_value = not (option.is_flag or option.count) and not (option.metavar or "").startswith("[=")
    names = (*option.opts, *option.secondary_opts)
    return Option(names, first, _words(option) if takes_value else None, option.multiple)


def _words(parameter: click.Parameter) -> Words:
    if isinstance(parameter.type, click.Choice):
        return Words(choices=tuple(str(choice) for choice in parameter.type.choices))
    if isinstance(parameter.type, click.Path):
        return Words(Kind.FILE if parameter.type.file_okay else Kind.FOLDER)
    metavar = parameter.metavar or ""
    if isinstance(parameter, click.Argument):
        if "SPEC" in metavar:
            return Words(Kind.SPEC)
        if "RUN" in metavar:
            return Words(Kind.RUN)
    return Words(Kind.FILE) if metavar == "FILE" else Words()


BASH = r"""
_imagepipe_specs() {
    compopt -o filenames 2>/dev/null
    local word
    while IFS= read -r word; do
        if [[ -d $word || $word == *.yaml || $word == *.yml ]]; then COMPREPLY+=("$word"); fi
    done < <(compgen -f -- "$1")
}

_imagepipe_files() {
    compopt -o filenames 2>/dev/null
    local word
    while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen "$2" -- "$1")
}

_imagepipe_words() {
    local word
    while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -W "$2" -- "$1")
}

_imagepipe_runs() {
    compopt -o nosort 2>/dev/null
    local folder=${XDG_STATE_HOME:-$HOME/.local/state}/imagepipe/runs
    _imagepipe_words "$1" "latest $(command ls -t -- "$folder" 2>/dev/null)"
}

_imagepipe_value() {
    case $2 in
        specs) _imagepipe_specs "$1" ;;
        runs) _imagepipe_runs "$1" ;;
        files) _imagepipe_files "$1" -f ;;
        folders) _imagepipe_files "$1" -d ;;
        nothing) ;;
        *) _imagepipe_words "$1" "$2" ;;
    esac
}

_imagepipe() {
    local current=${COMP_WORDS[COMP_CWORD]} command='' word wanted='' index only_arguments=''
    local commands options arguments values
    COMPREPLY=()
    _imagepipe_command ''
    for ((index = 1; index < COMP_CWORD; index++)); do
        word=${COMP_WORDS[index]}
        if [[ $word == '=' ]]; then continue; fi
        if [[ -n $wanted ]]; then wanted=''; continue; fi
        if [[ -n $only_arguments ]]; then continue; fi
        case $word in
            --) only_arguments=1 ;;
            -*) wanted=$(_imagepipe_option "$word") ;;
            *)
                if [[ " $commands " == *" $word "* ]]; then
                    command=${command:+$command }$word
                    _imagepipe_command "$command"
                fi
                ;;
        esac
    done
    if [[ $current == '=' ]]; then current=''; fi
    if [[ -n $wanted ]]; then
        _imagepipe_value "$current" "$wanted"
    elif [[ $current == -* && -z $only_arguments ]]; then
        _imagepipe_words "$current" "$options"
    elif [[ -n $commands ]]; then
        _imagepipe_words "$current" "$commands"
    else
        _imagepipe_value "$current" "$arguments"
    fi
}

# Prints the kind of value that an option of the command takes, or nothing for a flag.
_imagepipe_option() {
    local pair
    while IFS= read -r pair; do
        if [[ ${pair%%:*} == "$1" ]]; then printf '%s' "${pair#*:}"; return; fi
    done <<<"$values"
}

complete -F _imagepipe imagepipe
"""


def bash() -> str:
    """Return the script for bash 3.2 and later."""
    lines = [HEAD.format(name="bash"), "_imagepipe_command() {", "    values=''", "    case $1 in"]
    for command in commands().walk():
        options = " ".join(name for option in command.options for name in option.names)
        lines += [
            f"        {shlex.quote(' '.join(command.path))})",
            f"            commands={shlex.quote(' '.join(each.path[-1] for each in command.subcommands))}",
            f"            options={shlex.quote(options)}",
            f"            arguments={shlex.quote(_bash_kind(command.arguments))}",
        ]
        valued = [(name, option.value) for option in command.options if option.value for name in option.names]
        lines += [f"            values+={shlex.quote(f'{name}:{_bash_kind(words)}')}$'\\n'" for name, words in valued]
        lines.append("            ;;")
    return "\n".join([*lines, "    esac", "}"]) + "\n" + BASH


def _bash_kind(words: Words) -> str:
    return " ".join(words.choices) or words.kind.value


ZSH = r"""
_imagepipe_find_specs() {
    _files -g '*.(yaml|yml)'
}

_imagepipe_find_runs() {
    local -a runs
    runs=(latest ${XDG_STATE_HOME:-$HOME/.local/state}/imagepipe/runs/*(N/om:t))
    compadd -V runs -a runs
}

if [ "$funcstack[1]" = _imagepipe ]; then
    _imagepipe "$@"
else
    compdef _imagepipe imagepipe
fi
"""
ZSH_ACTIONS = {
    Kind.NOTHING: " ",
    Kind.SPEC: "_imagepipe_find_specs",
    Kind.RUN: "_imagepipe_find_runs",
    Kind.FILE: "_files",
    Kind.FOLDER: "_files -/",
}


def zsh() -> str:
    """Return the script for zsh."""
    lines = ["#compdef imagepipe", HEAD.format(name="zsh")]
    for command in commands().walk():
        lines += [f"{_function(command)}() {{", "    local state line curcontext=$curcontext", "    local -a commands"]
        specs = [_zsh_option(option) for option in command.options]
        if command.subcommands:
            lines.append("    commands=(")
            lines += [f"        {_zsh_quote(f'{each.path[-1]}:{each.help}')}" for each in command.subcommands]
            lines.append("    )")
            specs += ["'1: :->command'", "'*:: :->rest'"]
            lines += [f"    _arguments -C {' '.join(chr(92) + chr(10) + '        ' + spec for spec in specs)}"]
            lines += [
                "    case $state in",
                "        command) _describe -t commands command commands ;;",
                "        rest)",
            ]
            lines += ["            case $line[1] in"]
            lines += [f"                {each.path[-1]}) {_function(each)} ;;" for each in command.subcommands]
            lines += ["            esac", "            ;;", "    esac"]
        else:
            specs.append(_zsh_quote(f"*:argument:{_zsh_action(command.arguments)}"))
            lines += [f"    _arguments -s {' '.join(chr(92) + chr(10) + '        ' + spec for spec in specs)}"]
        lines += ["}", ""]
    return "\n".join(lines) + ZSH


def _function(command: Command) -> str:
    return "_".join(("_imagepipe", *(name.replace("-", "_") for name in command.path)))


def _zsh_option(option: Option) -> str:
    text = option.help.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
    value = f":value:{_zsh_action(option.value)}" if option.value else ""
    excluded = "" if option.repeatable else f"({' '.join(option.names)})"
    if option.repeatable:
        return " ".join(_zsh_quote(f"*{name}[{text}]{value}") for name in option.names)
    if len(option.names) == 1:
        return _zsh_quote(f"{option.names[0]}[{text}]{value}")
    return f"{_zsh_quote(excluded)}{{{','.join(option.names)}}}{_zsh_quote(f'[{text}]{value}')}"


def _zsh_action(words: Words) -> str:
    return f"({' '.join(words.choices)})" if words.choices else ZSH_ACTIONS[words.kind]


def _zsh_quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


FISH = r"""
function __imagepipe_words
    # The words before the cursor that are neither options nor their values.
    set -l words
    set -l wanted
    for word in (commandline -opc)[2..]
        if set -q wanted[1]
            set -e wanted
        else if contains -- $word $__imagepipe_valued
            set wanted 1
        else if not string match -q -- '-*' $word
            set -a words $word
        end
    end
    printf '%s\n' $words
end

function __imagepipe_in
    # True in this command.
    set -l words (__imagepipe_words)
    set -l depth (count $argv)
    test (count $words) -ge $depth; and test "$words[1..$depth]" = "$argv"
end

function __imagepipe_at
    # True where a subcommand of this group comes next.
    set -l words (__imagepipe_words)
    test "$words" = "$argv"
end

function __imagepipe_specs
    __fish_complete_suffix .yaml
    __fish_complete_suffix .yml
end

function __imagepipe_runs
    set -l state $XDG_STATE_HOME
    test -n "$state"; or set state $HOME/.local/state
    echo latest
    command ls -t -- $state/imagepipe/runs 2>/dev/null
end

complete -c imagepipe -f
"""
FISH_ACTIONS = {
    Kind.NOTHING: "",
    Kind.SPEC: " -k -a '(__imagepipe_specs)'",
    Kind.RUN: " -k -a '(__imagepipe_runs)'",
    Kind.FILE: " -F",
    Kind.FOLDER: " -a '(__fish_complete_directories)'",
}


def fish() -> str:
    """Return the script for fish 3 and later."""
    tree = commands()
    valued = sorted({name for each in tree.walk() for option in each.options if option.value for name in option.names})
    lines = [HEAD.format(name="fish"), f"set -g __imagepipe_valued {' '.join(valued)}", FISH]
    for command in tree.walk():
        path = " ".join(command.path)
        place = f"__imagepipe_at {path}" if command.subcommands else f"__imagepipe_in {path}"
        start = f"complete -c imagepipe -n {_fish_quote(place.strip())}"
        lines += [f"{start} -a {each.path[-1]} -d {_fish_quote(each.help)}" for each in command.subcommands]
        if not command.subcommands and (action := _fish_action(command.arguments)):
            lines.append(f"{start}{action}")
        for option in command.options:
            names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            lines.append(f"{start} {names}{_fish_value(option.value)} -d {_fish_quote(option.help)}")
    return "\n".join(lines) + "\n"


def _fish_value(words: Words | None) -> str:
    if words is None:
        return ""
    return f" -r{_fish_action(words)}" if words.kind is Kind.FILE else f" -x{_fish_action(words)}"


def _fish_action(words: Words) -> str:
    return f" -a {_fish_quote(' '.join(words.choices))}" if words.choices else FISH_ACTIONS[words.kind]


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


if __name__ == "__main__":
    for shell, make in (("bash", bash), ("zsh", zsh), ("fish", fish)):
        (Path(sys.argv[1]) / f"imagepipe.{shell}").write_text(make(), encoding="utf-8")
