"""Evaluate expressions: constants are computed, and variables and the build's values stay as deferred texts."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path

from imagepipe.convert.functions import CONSTANT, MAX_ITEMS, MOVING, OUTSIDE, RANDOM, FunctionError, go_date
from imagepipe.convert.hcl import parse_template
from imagepipe.convert.listing import Listing
from imagepipe.convert.places import Folders, read_template
from imagepipe.convert.syntax import (
    Attribute,
    Binary,
    Body,
    Call,
    Conditional,
    Expression,
    For,
    GetAttribute,
    Index,
    ListOf,
    Literal,
    Name,
    ObjectOf,
    Place,
    Splat,
    TemplateFor,
    TemplateIf,
    TemplateString,
    Unary,
)
from imagepipe.convert.values import (
    RFC_3339,
    UNSET,
    Ami,
    LeftOut,
    Symbol,
    Text,
    Value,
    expression_of,
    is_deferred,
    safe_name,
    text_of,
    to_string,
    variables_of,
    with_defaults,
)
from imagepipe.dataclass import dataclass
from imagepipe.errors import SpecError

MAX_STEPS = 500_000
"""Expressions that one conversion evaluates; loops in loops could need any number."""
MAX_TEXT = 1_000_000
WRITE_IT = "write the value into the spec"
BUILD_NAMES = {"SourceAMI": "source.id", "SourceAMIName": "source.name", "SourceAMIOwner": "source.owner"}
"""Values of Packer's build, with their names in a spec."""
SOURCE_ID = Symbol("source.id")
_OPERATORS: dict[str, Callable[[Value, Value], Value]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": operator.mod,
}


@dataclass(frozen=True, slots=True)
class SourceNames:
    """Names that differ between the sources of a build."""

    type: str = ""
    name: str = ""
    data: tuple[str, str] | None = None
    """The data source that has found the source image."""


@dataclass(slots=True)
class Names:
    """Everything that a reference can name."""

    variables: dict[str, Value] = field(default_factory=dict)
    locals: dict[str, Attribute] = field(default_factory=dict)
    data: dict[tuple[str, str], Body] = field(default_factory=dict)
    lists: dict[str, Place] = field(default_factory=dict)
    """Variables whose values are lists or objects, which a spec cannot declare."""
    missing_lists: dict[str, Place] = field(default_factory=dict)
    """Such variables without a default."""
    undeclared: set[str] = field(default_factory=set)
    """Variables that a legacy template uses and does not declare, so that every build must set them."""
    declares_all: bool = False
    """True if an unknown variable counts as declared, as in legacy templates."""
    waiting: set[str] = field(default_factory=set)
    """Variables that are declared, and whose values are not known yet."""
    is_folder: bool = False
    """True if every file of the folder is read."""


class Evaluator:
    """Evaluates the expressions of one template, for one source at a time."""

    def __init__(self, names: Names, folders: Folders, listing: Listing) -> None:
        self.names = names
        self.folders = folders
        self.listing = listing
        self.source = SourceNames()
        self.loops: dict[str, Value] = {}
        self.open_locals: set[str] = set()
        self.steps = 0
        self.required: set[str] = set()
        """Variables whose empty default means that a value must be set."""

    def evaluate(self, expression: Expression) -> Value:
        """Return the value of an expression. Raises LeftOut if it has none here."""
        try:
            return self._value(expression)
        except RecursionError:
            raise LeftOut(expression.at, "the expression is nested too deeply", WRITE_IT) from None

    def settle(self, value: Value, at: Place, what: str) -> Value:
        """Return a constant: a deferred value becomes that of its variables' defaults, and is listed."""
        if not is_deferred(value):
            return value
        names = sorted(variables_of(value))
        found = with_defaults(value)
        depends = " and ".join(f"var.{name}" for name in names) or "the build"
        if found is UNSET:
            raise LeftOut(at, f"{what} depends on {depends}, which has no default", WRITE_IT)
        self.listing.add(
            at, f"{what} depends on {depends}", "the default is used; for other values, edit the spec after converting"
        )
        return found

    def variable(self, name: str, at: Place) -> Value:
        """Return the value of a variable: a symbol, or a constant for a list. Raises LeftOut if it is not declared."""
        if name in self.names.missing_lists:
            raise LeftOut(at, f"variable `{name}` is a list or an object without a default", WRITE_IT)
        if name not in {*self.names.variables, *self.names.waiting} and self.names.declares_all:
            self.names.undeclared.add(name)
            self.names.variables[name] = Symbol(f"var.{safe_name(name)}", UNSET, frozenset({name}))
        if name not in self.names.variables:
            more = ", or pass --var-file" + (
                "" if self.names.is_folder else "; convert the folder if it has more files"
            )
            raise LeftOut(at, f"variable `{name}` is not declared", f"declare it{more}")
        if name in self.names.lists:
            self.listing.add(
                self.names.lists[name],
                f"variable `{name}` is a list or an object",
                "its default is written where it is used; edit it there, or declare a variable for each value",
            )
        return self.names.variables[name]

    def read(self, name: Value, at: Place) -> str:
        """Return the text of a file. Raises LeftOut if it cannot be read."""
        try:
            return read_template(self.folders.find(str(name)), str(name))
        except (SpecError, ValueError) as error:
            reason = error.problems[0].message if isinstance(error, SpecError) else str(error)
            raise LeftOut(at, f"file {name}: {reason}", "create the file and convert again") from None

    @contextmanager
    def bound(self, values: Mapping[str, Value]) -> Iterator[None]:
        """Bind the names of a loop."""
        before = self.loops
        self.loops = {**before, **values}
        try:
            yield
        finally:
            self.loops = before

    def _value(self, expression: Expression) -> Value:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise LeftOut(expression.at, "the template has too much to evaluate", WRITE_IT)
        match expression:
            case Literal(value=value):
                return value
            case TemplateString():
                return self._string(expression)
            case Name() | GetAttribute():
                return self._reference(expression)
            case Index(of=of, key=key):
                settled = self.settle(self._value(key), expression.at, "an index")
                return self._item(self._value(of), settled, expression.at)
            case Splat(of=of, names=names):
                return self._splat(self._value(of), names, expression.at)
            case Call():
                return self._checked(self._call(expression), expression.at)
            case Unary():
                return self._unary(expression)
            case Binary():
                return self._binary(expression)
            case Conditional(condition=condition):
                return self._choice(
                    self._value(condition),
                    lambda: self._value(expression.then),
                    lambda: self._value(expression.otherwise),
                    expression.at,
                )
            case ListOf(items=items):
                return [self._value(item) for item in items]
            case ObjectOf(items=pairs):
                return {self._key(key): self._value(value) for key, value in pairs}
            case For():
                return self._comprehension(expression)

    def _key(self, key: Expression) -> str:
        return to_string(self.settle(self._value(key), key.at, "a key"))

    def _checked(self, value: Value, at: Place) -> Value:
        is_long = isinstance(value, str) and len(value) > MAX_TEXT
        if is_long or (isinstance(value, list | dict) and len(value) > MAX_ITEMS):
            raise LeftOut(at, "the value is too long", WRITE_IT)
        return value

    # Strings

    def _string(self, template: TemplateString) -> Value:
        if len(template.parts) == 1 and not isinstance(template.parts[0], str | TemplateIf | TemplateFor):
            return self._value(template.parts[0])
        parts: list[Value] = []
        size = 0
        for part in template.parts:
            value = self._part(part, template.at)
            size += len(value) if isinstance(value, str) else 1
            if size > MAX_TEXT:
                raise LeftOut(template.at, "the string is too long", WRITE_IT)
            parts.append(value)
        return text_of(parts)

    def _part(self, part: str | Expression | TemplateIf | TemplateFor, at: Place) -> Value:
        if isinstance(part, str):
            return part
        if isinstance(part, TemplateIf):
            return self._choice(
                self._value(part.condition), lambda: self._string(part.then), lambda: self._string(part.otherwise), at
            )
        if isinstance(part, TemplateFor):
            return text_of(self._loop(part.names, part.collection, lambda: [self._string(part.body)]))
        return self._in_string(self._value(part), part.at)

    def _in_string(self, value: Value, at: Place) -> Value:
        if isinstance(value, list | dict) or value is None:
            kind = "null" if value is None else "a list" if isinstance(value, list) else "an object"
            raise LeftOut(at, f"{kind} in a string", "write the text into the spec")
        if isinstance(value, bool | int | float):
            return to_string(value)
        if isinstance(value, Ami) and (value.kind, value.name) == self.source.data:
            return SOURCE_ID
        if not isinstance(value, str | Symbol | Text):
            raise LeftOut(at, "the result of a data source or of timeadd in a string", WRITE_IT)
        return value

    # References

    def _reference(self, expression: Name | GetAttribute) -> Value:
        chain: list[str] = []
        node: Expression = expression
        while isinstance(node, GetAttribute):
            chain.insert(0, node.name)
            node = node.of
        if not isinstance(node, Name):
            assert isinstance(expression, GetAttribute)
            return self._item(self._value(expression.of), expression.name, expression.at)
        root, at = node.name, expression.at
        if root in self.loops:
            value, rest = self.loops[root], chain
        elif root == "data" and len(chain) >= 3:
            value, rest = self._data(chain[0], chain[1], chain[2], at), chain[3:]
        elif root == "var" and chain:
            value, rest = self.variable(chain[0], at), chain[1:]
        elif root == "local" and chain:
            value, rest = self._local(chain[0], at), chain[1:]
        elif root in ("source", "build", "path", "packer") and len(chain) == 1:
            value, rest = self._named(root, chain[0], at), []
        else:
            name = ".".join([root, *chain])
            raise LeftOut(at, f"`{name}` is not known", "check the name, or write the value into the spec")
        for name in rest:
            value = self._item(value, name, at)
        return value

    def _named(self, root: str, name: str, at: Place) -> Value:
        if root == "path":
            found = {"root": self.folders.root, "cwd": self.folders.working}.get(name)
            if found is not None:
                return str(found)
        if root == "source" and name in ("name", "type"):
            return self.source.name if name == "name" else self.source.type
        if root == "build" and name in BUILD_NAMES:
            return Symbol(BUILD_NAMES[name])
        if root == "build" and name == "name":
            return self.source.name
        raise LeftOut(at, f"`{root}.{name}` has no counterpart", WRITE_IT)

    def _local(self, name: str, at: Place) -> Value:
        attribute = self.names.locals.get(name)
        if attribute is None:
            raise LeftOut(at, f"`local.{name}` is not defined", "define it, or convert the folder that has it")
        if name in self.open_locals:
            raise LeftOut(at, f"`local.{name}` is defined by itself", WRITE_IT)
        self.open_locals.add(name)
        try:
            return self._value(attribute.value)
        finally:
            self.open_locals.discard(name)

    def _data(self, kind: str, name: str, attribute: str, at: Place) -> Value:
        body = self.names.data.get((kind, name))
        if body is None:
            raise LeftOut(at, f"data source `{kind}.{name}` is not declared", "declare it, or convert the folder")
        if (kind, attribute) in (("amazon-ami", "id"), ("amazon-parameterstore", "value")):
            return Ami(kind, name)
        if kind == "amazon-ami" and attribute in ("name", "owner"):
            if self.source.data == (kind, name):
                return Symbol(f"source.{attribute}")
            raise LeftOut(at, f"`data.{kind}.{name}.{attribute}` is not of the source image", WRITE_IT)
        if kind == "null" and attribute == "output" and (given := body.attribute("input")):
            return self._value(given.value)
        raise LeftOut(
            at,
            f"data source `{kind}.{name}` (`{attribute}`) has no counterpart",
            "declare a variable, and set it with --var or in the environment",
        )

    def _item(self, value: Value, key: Value, at: Place) -> Value:
        if isinstance(value, Symbol | Text):
            value = self.settle(value, at, f"`{key}` of a variable")
        try:
            if isinstance(value, list):
                return value[int(key)]
            if isinstance(value, dict):
                return value[to_string(key)]
        except (LookupError, ValueError, TypeError):
            pass
        raise LeftOut(at, f"the value has no '{to_string(key)}'", WRITE_IT)

    def _splat(self, value: Value, names: Sequence[str], at: Place) -> Value:
        found = []
        for item in value if isinstance(value, list) else [] if value is None else [value]:
            for name in names:
                item = self._item(item, name, at)
            found.append(item)
        return found

    # Operators

    def _unary(self, expression: Unary) -> Value:
        value = self._value(expression.operand)
        if expression.operator == "!":
            if isinstance(value, Symbol | Text):
                return self._symbol(f"(not {self._condition(value, expression.at)})", value, operator.not_)
            return not self._is_true(value, expression.at)
        if isinstance(value, Symbol | Text):
            return self._symbol(f"(-{expression_of(value)})", value, operator.neg)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise LeftOut(expression.at, "a minus before a value that is not a number", WRITE_IT)
        return -value

    def _symbol(self, text: str, value: Value, compute: Callable[[Value], Value]) -> Symbol:
        default = with_defaults(value)
        try:
            found = UNSET if default is UNSET else compute(default)
        except (TypeError, ValueError, ArithmeticError, AttributeError):
            found = UNSET
        return Symbol(text, found, variables_of(value))

    def _condition(self, value: Symbol | Text, at: Place) -> str:
        """Return a condition in Jinja, where any text but the empty one is true."""
        if isinstance(value, Symbol) and isinstance(value.default, bool):
            return value.expression
        return f"({expression_of(value)} | string | lower == 'true')"

    def _is_true(self, value: Value, at: Place) -> bool:
        if value in (True, "true"):
            return True
        if value in (False, "false"):
            return False
        raise LeftOut(at, "a condition that is neither true nor false", WRITE_IT)

    def _binary(self, expression: Binary) -> Value:
        sign, at = expression.operator, expression.at
        left = self._value(expression.left)
        if sign in ("&&", "||"):
            if not is_deferred(left):
                is_left = self._is_true(left, at)
                if is_left is (sign == "||"):
                    return is_left
                right = self._value(expression.right)
                return right if is_deferred(right) else self._is_true(right, at)
            right = self._value(expression.right)
            if not isinstance(left, Symbol | Text):
                raise LeftOut(at, f"'{sign}' between these values", WRITE_IT)
            if not is_deferred(right):
                is_right = self._is_true(right, at)
                return left if is_right is (sign == "&&") else is_right
            word, compute = ("and", all) if sign == "&&" else ("or", any)
            return self._symbol(
                f"({self._condition(left, at)} {word} {self._condition(right, at)})",
                [left, right],
                lambda pair: compute(self._is_true(each, at) for each in pair),
            )
        right = self._value(expression.right)
        if is_deferred(left) or is_deferred(right):
            parts = [left, right]
            if sign != "/" and all(isinstance(each, Symbol | Text | str | int | float) for each in parts):
                return self._symbol(
                    f"({expression_of(left)} {sign} {expression_of(right)})",
                    parts,
                    lambda pair: self._compute(sign, pair[0], pair[1], at),
                )
            left, right = self.settle(parts, at, f"the result of `{sign}`")
        return self._compute(sign, left, right, at)

    def _compute(self, sign: str, left: Value, right: Value, at: Place) -> Value:
        if sign in ("==", "!="):
            return _OPERATORS[sign](left, right)
        for each in (left, right):
            if isinstance(each, bool) or not isinstance(each, int | float):
                raise LeftOut(at, f"`{sign}` between values that are not numbers", WRITE_IT)
        try:
            found = _OPERATORS[sign](left, right)
            return int(found) if isinstance(found, float) and found.is_integer() else found
        except ArithmeticError as error:
            raise LeftOut(at, f"`{sign}`: {error}", WRITE_IT) from None

    def _choice(self, condition: Value, then: Callable[[], Value], otherwise: Callable[[], Value], at: Place) -> Value:
        if not isinstance(condition, Symbol | Text):
            return then() if self._is_true(condition, at) else otherwise()
        branches = [then(), otherwise()]
        if all(isinstance(each, str | bool | int | float | Symbol | Text) for each in branches):
            yes, no = map(expression_of, branches)
            return self._symbol(
                f"({yes} if {self._condition(condition, at)} else {no})",
                [condition, *branches],
                lambda values: values[1] if self._is_true(values[0], at) else values[2],
            )
        return branches[0] if self._is_true(self.settle(condition, at, "a condition"), at) else branches[1]

    # Loops

    def _loop(self, names: tuple[str, ...], collection: Expression, body: Callable[[], list[Value]]) -> list[Value]:
        values = self._value(collection)
        if isinstance(values, Symbol | Text):
            values = self.settle(values, collection.at, "a loop")
        if not isinstance(values, list | dict):
            raise LeftOut(collection.at, "a loop over a value that is neither a list nor an object", WRITE_IT)
        pairs = list(values.items()) if isinstance(values, dict) else list(enumerate(values))
        found: list[Value] = []
        for key, value in pairs:
            bound = {names[0]: value} if len(names) == 1 else {names[0]: key, names[1]: value}
            with self.bound(bound):
                found += body()
        return found

    def _comprehension(self, loop: For) -> Value:
        def item() -> list[Value]:
            if loop.condition is not None:
                holds = self.settle(self._value(loop.condition), loop.at, "the condition of a loop")
                if not self._is_true(holds, loop.at):
                    return []
            value = self._value(loop.value)
            return [value] if loop.key is None else [(self._key(loop.key), value)]

        found = self._loop(loop.names, loop.collection, item)
        if loop.key is None:
            return found
        if not loop.groups:
            return dict(found)
        groups: dict[str, Value] = {}
        for key, value in found:
            groups.setdefault(key, []).append(value)
        return groups

    # Functions

    def _call(self, call: Call) -> Value:
        name, at = call.function, call.at
        if name in ("try", "can"):
            return self._try(call)
        arguments = [self._value(argument) for argument in call.arguments]
        if call.expands_last:
            last = self.settle(arguments.pop(), at, f"the arguments of {name}")
            arguments += last if isinstance(last, list) else [last]
        if name in OUTSIDE:
            raise LeftOut(at, f"`{name}` asks another service", OUTSIDE[name])
        if name == "env":
            raise LeftOut(at, "`env` outside the default of a variable", "declare a variable with env: NAME")
        if name == "uuidv4":
            return Symbol("build.id")
        if name in RANDOM:
            raise LeftOut(at, f"`{name}` differs in each build", "use {{ build.id }}, which does too")
        if name == "timestamp":
            return RFC_3339
        if (found := self._deferred(name, arguments)) is not None:
            return found
        return self._constant(name, arguments, at)

    def _try(self, call: Call) -> Value:
        for argument in call.arguments:
            try:
                value = self._value(argument)
            except LeftOut:
                continue
            return True if call.function == "can" else value
        if call.function == "can":
            return False
        raise LeftOut(call.at, "no argument of `try` has a value", WRITE_IT)

    def _deferred(self, name: str, arguments: list[Value]) -> Value:
        """Return the result of a function that accepts deferred texts; None if this call is not one."""
        if not is_deferred(arguments):
            return None
        first = arguments[0]
        if name in ("lower", "upper") and isinstance(first, Symbol | Text):
            parts = first.parts if isinstance(first, Text) else (first,)
            return text_of(_cased(name, part) for part in parts)
        if name in ("trimspace", "title") and isinstance(first, Symbol | Text):
            filter_name = "trim" if name == "trimspace" else "title"
            return self._symbol(f"({expression_of(first)} | {filter_name})", first, CONSTANT[name])
        if name == "tostring":
            return first
        if name == "replace" and len(arguments) == 3 and isinstance(first, Symbol | Text):
            search, replacement = arguments[1:]
            if isinstance(search, str) and isinstance(replacement, str) and not search.startswith("/"):
                text = f"({expression_of(first)} | replace({expression_of(search)}, {expression_of(replacement)}))"
                return self._symbol(text, first, lambda value: to_string(value).replace(search, replacement))
        if name == "join" and isinstance(first, str):
            return _joined(first, arguments[1:])
        if name == "contains" and len(arguments) == 2 and isinstance(first, list) and not is_deferred(first):
            value = arguments[1]
            if isinstance(value, Symbol | Text) and all(isinstance(item, str | int | float) for item in first):
                return self._symbol(f"({expression_of(value)} in {expression_of(first)})", value, first.__contains__)
        return None

    def _constant(self, name: str, arguments: list[Value], at: Place) -> Value:
        if name in _OF_FILES:
            return self._of_file(name, self.settle(arguments, at, f"`{name}(…)`"), at)
        function = MOVING.get(name)
        if function is None:
            if name not in CONSTANT and name not in ("isotime", "legacy_isotime", "legacy_strftime"):
                raise LeftOut(at, f"function `{name}` is not known", WRITE_IT)
            function = {"isotime": _isotime, "legacy_isotime": _isotime}.get(name) or CONSTANT[
                "strftime" if name == "legacy_strftime" else name
            ]
            arguments = self.settle(arguments, at, f"`{name}(…)`")
        if sum(len(each) for each in arguments if isinstance(each, str)) > MAX_TEXT or (
            name in ("replace", "regex_replace") and len(str(arguments[:1])) * len(str(arguments[-1:])) > 50 * MAX_TEXT
        ):
            raise LeftOut(at, f"`{name}(…)` makes too long a text", WRITE_IT)
        try:
            return function(*arguments)
        except FunctionError as error:
            raise LeftOut(at, f"`{name}(…)`: {error}", WRITE_IT) from None
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            raise LeftOut(at, f"`{name}(…)` has arguments that do not fit: {error}", WRITE_IT) from None

    def _of_file(self, name: str, arguments: list[Value], at: Place) -> Value:
        if not arguments or not isinstance(arguments[0], str):
            raise LeftOut(at, f"`{name}` needs the name of a file", WRITE_IT)
        given = arguments[0]
        match name:
            case "file":
                return self.read(given, at)
            case "filebase64":
                return CONSTANT["base64encode"](self.read(given, at))
            case "fileexists":
                return self.folders.find(given).is_file()
            case "abspath" | "pathexpand":
                return str(self.folders.find(given)) if name == "abspath" else given
            case "fileset":
                return self._files_of(given, arguments, at)
            case _:
                return self._template_file(given, arguments, at)

    def _files_of(self, folder: str, arguments: list[Value], at: Place) -> Value:
        pattern = arguments[1] if len(arguments) == 2 else None
        if not isinstance(pattern, str) or not pattern or Path(pattern).is_absolute() or ".." in pattern:
            raise LeftOut(at, "`fileset` with this pattern", "name the files in the spec")
        root = self.folders.find(folder)
        try:
            files = sorted(str(path.relative_to(root)) for path in root.glob(pattern) if path.is_file())
        except (OSError, ValueError, NotImplementedError) as error:
            raise LeftOut(at, f"`fileset`: {error}", "name the files in the spec") from None
        return files

    def _template_file(self, given: str, arguments: list[Value], at: Place) -> Value:
        values = arguments[1] if len(arguments) == 2 else {}
        if not isinstance(values, dict):
            raise LeftOut(at, "`templatefile` needs an object of values", WRITE_IT)
        try:
            template = parse_template(self.read(given, at), Place(given, 1))
        except SpecError as error:
            raise LeftOut(at, f"`templatefile`: {error.problems[0].text().splitlines()[0]}", WRITE_IT) from None
        with self.bound(values):
            return self._value(template)


_OF_FILES = frozenset({"file", "filebase64", "fileexists", "fileset", "abspath", "pathexpand", "templatefile"})


def _isotime(layout: str = "2006-01-02T15:04:05Z") -> str:
    return go_date(layout)


def _cased(name: str, part: str | Symbol) -> str | Symbol:
    if isinstance(part, str):
        return part.lower() if name == "lower" else part.upper()
    default = part.default if part.default is UNSET else CONSTANT[name](to_string(part.default))
    return Symbol(f"({part.expression} | {name})", default, part.variables)


def _joined(separator: str, lists: Sequence[Value]) -> Value:
    items = [item for each in lists if isinstance(each, list) for item in each]
    if len(lists) != sum(isinstance(each, list) for each in lists) or len(items) > MAX_ITEMS:
        return None
    if not all(isinstance(item, str | int | float | Symbol | Text) for item in items):
        return None
    parts: list[Value] = []
    for index, item in enumerate(items):
        parts += [separator] if index else []
        parts.append(item if isinstance(item, str | Symbol | Text) else to_string(item))
    return text_of(parts)
