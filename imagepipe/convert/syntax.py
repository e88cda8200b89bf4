"""The syntax tree of a template, the same for HCL2 and JSON. Every node knows its file and line."""

from __future__ import annotations

from collections.abc import Iterator

from imagepipe.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant: null, a boolean, a number or a string without interpolation."""

    at: Place
    value: bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class TemplateString:
    """A string with interpolations or directives."""

    at: Place
    parts: tuple[str | Expression | TemplateIf | TemplateFor, ...]


@dataclass(frozen=True, slots=True)
class TemplateIf:
    """`%{ if … }` in a string."""

    condition: Expression
    then: TemplateString
    otherwise: TemplateString


@dataclass(frozen=True, slots=True)
class TemplateFor:
    """`%{ for … }` in a string."""

    names: tuple[str, ...]
    collection: Expression
    body: TemplateString


@dataclass(frozen=True, slots=True)
class Name:
    """The first name of a reference: `var`, `local`, `data`, or a name of a `for`."""

    at: Place
    name: str


@dataclass(frozen=True, slots=True)
class GetAttribute:
    """`object.name`."""

    at: Place
    of: Expression
    name: str


@dataclass(frozen=True, slots=True)
class Index:
    """`collection[key]`."""

    at: Place
    of: Expression
    key: Expression


@dataclass(frozen=True, slots=True)
class Splat:
    """`list[*].a.b`."""

    at: Place
    of: Expression
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function."""

    at: Place
    function: str
    arguments: tuple[Expression, ...]
    expands_last: bool
    """True if the last argument is a list of arguments: `f(list...)`."""


@dataclass(frozen=True, slots=True)
class Unary:
    """`-x` or `!x`."""

    at: Place
    operator: str
    operand: Expression


@dataclass(frozen=True, slots=True)
class Binary:
    """`a + b` and the other operators."""

    at: Place
    operator: str
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Conditional:
    """`condition ? a : b`."""

    at: Place
    condition: Expression
    then: Expression
    otherwise: Expression


@dataclass(frozen=True, slots=True)
class ListOf:
    """`[a, b]`."""

    at: Place
    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class ObjectOf:
    """`{a = b}`."""

    at: Place
    items: tuple[tuple[Expression, Expression], ...]


@dataclass(frozen=True, slots=True)
class For:
    """`[for x in list : y]` or `{for k, v in map : k => v}`."""

    at: Place
    names: tuple[str, ...]
    collection: Expression
    key: Expression | None
    """Key of each item; None for a list."""
    value: Expression
    condition: Expression | None
    groups: bool
    """True if the values of equal keys form a list."""


Expression = (
    Literal
    | TemplateString
    | Name
    | GetAttribute
    | Index
    | Splat
    | Call
    | Unary
    | Binary
    | Conditional
    | ListOf
    | ObjectOf
    | For
)


@dataclass(frozen=True, slots=True)
class Attribute:
    """`name = expression`."""

    at: Place
    name: str
    value: Expression


@dataclass(frozen=True, slots=True)
class Block:
    """`type "label" { … }`."""

    at: Place
    type: str
    labels: tuple[str, ...]
    body: Body


@dataclass(frozen=True, slots=True)
class Body:
    """The attributes and blocks of a file or a block, in order."""

    at: Place
    items: tuple[Attribute | Block, ...]

    def attributes(self) -> Iterator[Attribute]:
        """Yield the attributes, in order."""
        return (item for item in self.items if isinstance(item, Attribute))

    def blocks(self, *types: str) -> Iterator[Block]:
        """Yield the blocks of these types, in order; all blocks if no type is given."""
        return (item for item in self.items if isinstance(item, Block) and (not types or item.type in types))

    def attribute(self, name: str) -> Attribute | None:
        """Return the attribute of this name."""
        return next((each for each in self.attributes() if each.name == name), None)
