"""Expand `{{ … }}` in the strings of a template: the functions of Packer's template engine."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from imagepipe.convert.evaluate import BUILD_NAMES, WRITE_IT, Evaluator
from imagepipe.convert.functions import CONSTANT, OUTSIDE, FunctionError, go_date
from imagepipe.convert.syntax import Place
from imagepipe.convert.values import (
    BUILD_TIME,
    RFC_3339,
    LeftOut,
    Symbol,
    Text,
    Value,
    is_deferred,
    text_of,
    to_string,
    variables_of,
)

_TEMPLATE = re.compile(r"""\{\{-?((?:"(?:[^"\\\n]|\\.)*"|`[^`]*`|[^"`{}]|\}(?!\}))*?)-?\}\}""")
_TOKEN = re.compile(r"""\s*(?:"((?:[^"\\]|\\.)*)"|`([^`]*)`|([.\w-]+)|(\|))""")
_FIELDS = {**BUILD_NAMES, "BuildRegion": "region"}
_RAW = "write the text into the spec; {{ '{{' }} is {{ as text"


def expand(value: Value, at: Place, evaluator: Evaluator) -> Value:
    """Return a value with the templates of all its strings expanded. Raises LeftOut for an unknown one."""
    if isinstance(value, str):
        return _expand_text(value, at, evaluator) if "{{" in value else value
    if isinstance(value, Text):
        return text_of(expand(part, at, evaluator) if isinstance(part, str) else part for part in value.parts)
    if isinstance(value, list):
        return [expand(item, at, evaluator) for item in value]
    if isinstance(value, dict):
        return {key: expand(item, at, evaluator) for key, item in value.items()}
    return value


def environment_name(text: str) -> str | None:
    """Return NAME if a text is exactly `{{env `NAME`}}`."""
    found = _TEMPLATE.fullmatch(text.strip())
    tokens = _tokens(found[1]) if found else None
    if tokens and len(tokens) == 2 and tokens[0] == ("word", "env") and tokens[1][0] == "text":
        return tokens[1][1]
    return None


def _expand_text(text: str, at: Place, evaluator: Evaluator) -> Value:
    parts: list[Value] = []
    position = 0
    for found in _TEMPLATE.finditer(text):
        parts.append(text[position : found.start()])
        value = _pipeline(found, at, evaluator)
        parts.append(value if isinstance(value, str | Symbol | Text) else to_string(value))
        position = found.end()
    return text_of([*parts, text[position:]])


def _tokens(content: str) -> list[tuple[str, str]] | None:
    found: list[tuple[str, str]] = []
    position = 0
    content = content.rstrip()
    while position < len(content):
        token = _TOKEN.match(content, position)
        if token is None:
            return None
        quoted, raw, word, _ = token.groups()
        if quoted is not None:
            found.append(("text", re.sub(r"\\(.)", r"\1", quoted)))
        elif raw is not None:
            found.append(("text", raw))
        else:
            found.append(("word", word) if word is not None else ("pipe", "|"))
        position = token.end()
    return found


def _pipeline(found: re.Match[str], at: Place, evaluator: Evaluator) -> Value:
    tokens = _tokens(found[1])
    if not tokens:
        raise LeftOut(at, f"the template `{found.group()}` is not known", _RAW)
    commands: list[list[tuple[str, str]]] = [[]]
    for token in tokens:
        if token[0] == "pipe":
            commands.append([])
        else:
            commands[-1].append(token)
    value: Value = None
    for index, command in enumerate(commands):
        if not command:
            raise LeftOut(at, f"the template `{found.group()}` is not known", _RAW)
        value = _command(command, [value] if index else [], at, evaluator)
    return value


def _command(command: Sequence[tuple[str, str]], piped: list[Value], at: Place, evaluator: Evaluator) -> Value:
    (kind, word), *rest = command
    if kind == "text":
        return word
    arguments: list[Value] = [text for _, text in rest] + piped
    if word.startswith("."):
        if word[1:] in _FIELDS:
            return Symbol(_FIELDS[word[1:]])
        raise LeftOut(at, f"the template `{{{{ {word} }}}}` has no counterpart", _RAW)
    if word == "user" and len(arguments) == 1:
        return evaluator.variable(arguments[0], at)
    if word == "build" and len(arguments) == 1 and arguments[0] in BUILD_NAMES:
        return Symbol(BUILD_NAMES[arguments[0]])
    if word == "uuid":
        return Symbol("build.id")
    if word in OUTSIDE:
        raise LeftOut(at, f"`{word}` asks another service", OUTSIDE[word])
    names: dict[str, str] = {
        "timestamp": BUILD_TIME,
        "build_name": evaluator.source.name,
        "build_type": evaluator.source.type,
        "pwd": str(evaluator.folders.working),
        "template_dir": str(evaluator.folders.root),
    }
    if word in names and not arguments:
        return names[word]
    if word not in _FUNCTIONS:
        raise LeftOut(at, f"the template function `{' '.join(text for _, text in command)}` is not known", _RAW)
    if word in ("clean_resource_name", "clean_ami_name") and len(arguments) == 1 and is_deferred(arguments):
        what = f"`{word}` of " + " and ".join(f"var.{name}" for name in sorted(variables_of(arguments)))
        evaluator.listing.add(at, what, "the value is used as it is; `validate` refuses a name with other characters")
        return _cleaned(arguments[0])
    try:
        settled = evaluator.settle(arguments, at, f"`{word}`")
        return _FUNCTIONS[word](*settled)
    except FunctionError as error:
        raise LeftOut(at, str(error), WRITE_IT) from None
    except (TypeError, ValueError, LookupError, AttributeError):
        raise LeftOut(at, f"the template function `{word}` has arguments that do not fit", WRITE_IT) from None


def _cleaned(value: Value) -> Value:
    """Clean the constant parts of a text."""
    parts = value.parts if isinstance(value, Text) else (value,)
    clean = CONSTANT["clean_resource_name"]
    return text_of(clean(part) if isinstance(part, str) else part for part in parts)


_FUNCTIONS: dict[str, Callable[..., Value]] = {
    "clean_ami_name": CONSTANT["clean_resource_name"],
    "clean_resource_name": CONSTANT["clean_resource_name"],
    "isotime": lambda layout=None: RFC_3339 if layout is None else go_date(layout),
    "lower": str.lower,
    "replace": lambda old, new, count, text: text.replace(old, new, int(count)),
    "replace_all": lambda old, new, text: text.replace(old, new),
    "split": lambda text, separator, index: text.split(separator)[int(index)],
    "strftime": CONSTANT["strftime"],
    "upper": str.upper,
}
