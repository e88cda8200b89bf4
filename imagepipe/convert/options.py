"""The options of a source, a provisioner or a post-processor: evaluated, with their lines, and counted as used."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from imagepipe.convert.evaluate import SOURCE_ID, Evaluator
from imagepipe.convert.go_templates import expand
from imagepipe.convert.listing import Listing
from imagepipe.convert.syntax import Attribute, Block, Body, Expression, ListOf, Literal, Name, ObjectOf, Place
from imagepipe.convert.values import (
    Ami,
    LeftOut,
    Symbol,
    Text,
    Value,
    is_deferred,
    to_string,
    variables_of,
    with_defaults,
)
from imagepipe.dataclass import dataclass
from imagepipe.spec.packer import WORDS

UNEXPANDED = frozenset({"execute_command", "start_command"})
"""Options whose `{{ … }}` are read by their own conversion."""
ITEM_BY_ITEM = frozenset({"environment_vars"})
"""Lists that keep their other items if one has no value."""


@dataclass(frozen=True, slots=True)
class Option:
    """The value of an option."""

    at: Place
    value: Value


class Options:
    """Options by name. A conversion takes those that it understands; the rest is listed."""

    def __init__(self, at: Place, owner: str, values: dict[str, Option], evaluator: Evaluator) -> None:
        self.at = at
        self.owner = owner
        self.values = values
        self.evaluator = evaluator
        self.failed: frozenset[str] = frozenset()
        """Options that are listed, because they cannot be evaluated."""

    @property
    def listing(self) -> Listing:
        """The list of everything that is left out."""
        return self.evaluator.listing

    def place(self, name: str) -> Place:
        """Return the line of an option; that of its owner if it is absent."""
        return self.values[name].at if name in self.values else self.at

    def leave_out(self, name: str, why: str, instead: str) -> None:
        """List an option as left out, and take it."""
        self.listing.add(self.place(name), f"{self.owner}'s `{name}` {why}", instead)
        self.values.pop(name, None)

    def skip(self, *names: str) -> None:
        """Take options that need no counterpart."""
        for name in names:
            self.values.pop(name, None)

    def raw(self, name: str) -> Value:
        """Return the value of an option; None if it is absent. The option is taken."""
        option = self.values.pop(name, None)
        return None if option is None else option.value

    def is_set(self, name: str) -> bool:
        """Return whether an option has a value, with the defaults of its variables."""
        option = self.values.get(name)
        return option is not None and with_defaults(option.value) not in (None, "", False, [], {})

    def required(self, name: str) -> Value:
        """Return a text as `text` does; a variable that is empty by default must be set in the spec."""
        option = self.values.get(name)
        if option is not None and isinstance(option.value, Symbol | Text) and with_defaults(option.value) in (None, ""):
            self.evaluator.required |= variables_of(option.value)
            return self.raw(name)
        return self.text(name)

    def text(self, name: str) -> Value:
        """Return a string, symbol or text; None if the option is absent or empty."""
        option = self.values.get(name)
        if option is None:
            return None
        value = self._without_ami(option.value)
        if isinstance(value, Symbol | Text):
            if with_defaults(value) in (None, ""):
                self._empty_by_default(name, value)
                value = None
        elif isinstance(value, bool | int | float):
            value = to_string(value)
        elif value is not None and not isinstance(value, str):
            self.leave_out(name, "is not a string", _counterpart(name))
            value = None
        self.values.pop(name, None)
        return None if value == "" else value

    def _without_ami(self, value: Value) -> Value:
        """Return the id of the source image for its data source."""
        if isinstance(value, Ami) and (value.kind, value.name) == self.evaluator.source.data:
            return SOURCE_ID
        return value

    def _empty_by_default(self, name: str, value: Value) -> None:
        names = " and ".join(f"var.{each}" for each in sorted(variables_of(value))) or "the build"
        self.leave_out(name, f"is empty by default ({names}) and left out", _counterpart(name))

    def constant(self, name: str) -> str | None:
        """Return a string that must be known now; None if the option is absent or empty."""
        option = self.values.get(name)
        if option is None:
            return None
        try:
            value = self.evaluator.settle(option.value, option.at, f"{self.owner}'s `{name}`")
        except LeftOut as error:
            self.listing.add_error(error)
            self.values.pop(name)
            return None
        self.values[name] = Option(option.at, value)
        text: str | None = self.text(name)
        return text

    def flag(self, name: str) -> bool | None:
        """Return a boolean; None if the option is absent."""
        at, text = self.place(name), self.constant(name)
        if text is None:
            return None
        if text.lower() not in ("true", "false"):
            self.listing.add(at, f"{self.owner}'s `{name}` is neither true nor false", _counterpart(name))
            return None
        return text.lower() == "true"

    def number(self, name: str) -> Value:
        """Return an integer or a symbol; None if the option is absent."""
        at, value = self.place(name), self.text(name)
        if not isinstance(value, str):
            return value
        if not re.fullmatch(r"-?\d{1,9}", value):
            self.listing.add(at, f"{self.owner}'s `{name}` is not a whole number", _counterpart(name))
            return None
        return int(value)

    def strings(self, name: str) -> list[Value]:
        """Return the strings, symbols or texts of a list; a lone string is a list, with commas between its items."""
        option = self.values.pop(name, None)
        if option is None or option.value is None:
            return []
        value = option.value
        try:
            if isinstance(value, Symbol | Text):
                default = with_defaults(value)
                if not isinstance(default, str) or not default or "," in default:
                    value = self.evaluator.settle(value, option.at, f"{self.owner}'s `{name}`")
            if isinstance(value, str):
                value = [part.strip() for part in value.split(",")]
            if isinstance(value, Symbol | Text):
                value = [value]
            if not isinstance(value, list):
                raise LeftOut(option.at, f"{self.owner}'s `{name}` is not a list", _counterpart(name))
            return list(self._items(name, value, option.at))
        except LeftOut as error:
            self.listing.add_error(error)
            return []

    def _items(self, name: str, items: Iterable[Value], at: Place) -> Iterator[Value]:
        for item in items:
            if isinstance(item, Symbol | Text) and with_defaults(item) in (None, ""):
                names = " and ".join(f"var.{each}" for each in sorted(variables_of(item)))
                what = f"{self.owner}'s `{name}` has an item that is empty by default ({names})"
                self.listing.add(at, what, _counterpart(name))
            elif isinstance(item, str | Symbol | Text):
                if item != "":
                    yield item
            elif isinstance(item, bool | int | float):
                yield to_string(item)
            elif item is not None:
                raise LeftOut(at, f"{self.owner}'s `{name}` has an item that is not a string", _counterpart(name))

    def mapping(self, name: str) -> dict[str, Value]:
        """Return a mapping of strings, symbols or texts."""
        option = self.values.pop(name, None)
        if option is None or option.value is None:
            return {}
        found: dict[str, Value] = {}
        value = option.value
        if isinstance(value, list) and len(value) == 1:
            value = value[0]  # a block, which HCL allows too
        if isinstance(value, Options):
            value = {key: inner.value for key, inner in value.values.items()}
        if not isinstance(value, dict):
            self.listing.add(option.at, f"{self.owner}'s `{name}` is not a mapping", _counterpart(name))
            return {}
        for key, given in value.items():
            item = self._without_ami(given)
            if isinstance(item, str | Symbol | Text):
                found[key] = item
            elif isinstance(item, bool | int | float):
                found[key] = to_string(item)
            elif item is not None:
                self.listing.add(option.at, f"{self.owner}'s `{name}.{key}` is not a string", _counterpart(name))
        return found

    def blocks(self, name: str) -> list[Options]:
        """Return the options of each block of this name, or of each object in a list."""
        option = self.values.pop(name, None)
        if option is None or option.value is None:
            return []
        found = []
        for item in option.value if isinstance(option.value, list) else [option.value]:
            if isinstance(item, Options):
                found.append(item)
            elif isinstance(item, dict):
                inner = {key: Option(option.at, value) for key, value in item.items()}
                found.append(Options(option.at, f"{self.owner}'s {name}", inner, self.evaluator))
            else:
                self.listing.add(option.at, f"{self.owner}'s `{name}` is not a block", _counterpart(name))
        return found

    def rest(self, instead: Callable[[str], tuple[str, str]]) -> None:
        """List the options that nothing has taken, with the reason and the way out of each."""
        for name, option in list(self.values.items()):
            if name.startswith("_") or option.value is None:
                continue
            if with_defaults(option.value) in ("", [], {}) and not is_deferred(option.value):
                continue
            self.leave_out(name, *instead(name))


_ALSO = {
    "iam_instance_profile": "launch.iam_instance_profile",
    "region": "launch.region",
    "tags": "output.tags",
    "user_data": "launch.user_data",
    "vpc_id": "launch.subnets, with subnets of that VPC",
    "boot_mode": "output.boot_mode",
}
"""Keys for options that are not in the table of Packer's terms, because `validate` needs no hint for them."""


def _counterpart(name: str) -> str:
    word = _ALSO.get(name) or WORDS.get(name)
    if word is None:
        return "write the value into the spec"
    return word if word.startswith("nothing") else f"set {word}"


def options_of(
    at: Place, owner: str, bodies: Iterable[Body | ObjectOf], evaluator: Evaluator, *, skipped: frozenset[str]
) -> Options:
    """Evaluate the options of blocks or objects; later ones override earlier ones. Those without a value are listed."""
    values: dict[str, Option] = {}
    failed: set[str] = set()
    for body in bodies:
        blocks: dict[str, list[Value]] = {}
        for item in _items_of(body):
            if isinstance(item, Block):
                if item.type not in skipped:
                    _add_block(blocks, values, item, owner, evaluator)
            elif item.name not in skipped:
                option = _evaluated(item, owner, evaluator)
                if option is not None:
                    values[item.name] = option
                else:
                    failed.add(item.name)
    found = Options(at, owner, values, evaluator)
    found.failed = frozenset(failed)
    return found


def _items_of(body: Body | ObjectOf) -> Iterator[Attribute | Block]:
    if isinstance(body, Body):
        yield from body.items
        return
    for key, value in body.items:
        if isinstance(key, Literal):
            yield Attribute(key.at, to_string(key.value), value)


def _add_block(
    blocks: dict[str, list[Value]], values: dict[str, Option], block: Block, owner: str, evaluator: Evaluator
) -> None:
    name = block.type
    if name == "dynamic" and block.labels:
        name = block.labels[0]
        found = _dynamic(block, f"{owner}'s {name}", evaluator)
    else:
        found = [options_of(block.at, f"{owner}'s {name}", [block.body], evaluator, skipped=frozenset())]
    if name not in blocks:
        blocks[name] = []
        values[name] = Option(block.at, blocks[name])
    blocks[name] += found


def _dynamic(block: Block, owner: str, evaluator: Evaluator) -> list[Value]:
    """Return the blocks of `dynamic "name" { for_each = …, content { … } }`."""
    each, content = block.body.attribute("for_each"), next(block.body.blocks("content"), None)
    if each is None or content is None:
        evaluator.listing.add(block.at, "a dynamic block without for_each or content", "write the blocks into the spec")
        return []
    iterator = block.body.attribute("iterator")
    is_named = iterator is not None and isinstance(iterator.value, Name)
    name = iterator.value.name if is_named and isinstance(iterator.value, Name) else block.labels[0]  # type: ignore[union-attr]
    try:
        items = evaluator.settle(evaluator.evaluate(each.value), each.at, "for_each")
    except LeftOut as error:
        evaluator.listing.add_error(error)
        return []
    pairs = items.items() if isinstance(items, dict) else enumerate(items) if isinstance(items, list) else ()
    found: list[Value] = []
    for key, value in pairs:
        with evaluator.bound({name: {"key": key, "value": value}}):
            found.append(options_of(block.at, owner, [content.body], evaluator, skipped=frozenset()))
    return found


def _evaluated(attribute: Attribute, owner: str, evaluator: Evaluator) -> Option | None:
    """Return the value of an attribute; of an object, without the items that have no value."""
    try:
        if isinstance(attribute.value, ObjectOf):
            return Option(attribute.at, _object(attribute.value, owner, evaluator))
        if isinstance(attribute.value, ListOf) and all(isinstance(item, ObjectOf) for item in attribute.value.items):
            name = f"{owner}'s {attribute.name}"
            items = [each for each in attribute.value.items if isinstance(each, ObjectOf)]
            inner = [options_of(each.at, name, [each], evaluator, skipped=frozenset()) for each in items]
            return Option(attribute.at, inner)
        if isinstance(attribute.value, ListOf) and attribute.name in ITEM_BY_ITEM:
            return Option(attribute.at, _items(attribute.value, owner, evaluator))
        return Option(attribute.at, _value(attribute.value, attribute.name, evaluator))
    except LeftOut as error:
        evaluator.listing.add(error.at, f"{owner}'s `{attribute.name}`: {error.what}", error.instead)
        return None


def _items(expression: ListOf, owner: str, evaluator: Evaluator) -> list[Value]:
    found: list[Value] = []
    for item in expression.items:
        try:
            found.append(_value(item, "", evaluator))
        except LeftOut as error:
            evaluator.listing.add(error.at, f"{owner}: {error.what}", error.instead)
    return found


def _object(expression: ObjectOf, owner: str, evaluator: Evaluator) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for key, value in expression.items:
        try:
            name = to_string(evaluator.settle(evaluator.evaluate(key), key.at, "a key"))
            found[name] = _value(value, name, evaluator)
        except LeftOut as error:
            evaluator.listing.add(error.at, f"{owner}: {error.what}", error.instead)
    return found


def _value(expression: Expression, name: str, evaluator: Evaluator) -> Value:
    value = evaluator.evaluate(expression)
    return value if name in UNEXPANDED else expand(value, expression.at, evaluator)
