"""`dataclass` of Python's library, except that it compiles no method before one is called.

Python compiles six methods for each frozen dataclass, which takes half a millisecond and more: a fifth of the time in
which a build starts, for values that it mostly never makes. Here `__init__` is compiled when the first value is made,
and the other methods are functions that all classes share. Fields, defaults, slots, `replace`, `fields` and
`match` are those of Python's library, and so are the type checkers' rules. Figures: docs/explanation/performance.md.

Frozen classes of Python's decorator and of this one cannot inherit from one another. `InitVar`, and a hash of other
fields than those that are compared, are refused.
"""

from __future__ import annotations

import dataclasses
import sys
from functools import cache
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls=None, /, *, frozen=False, slots=False, kw_only=False):
        """Return the class as a dataclass with `__init__`, `__repr__`, `__eq__` and, if frozen, `__hash__`.

        Raises TypeError for fields that Python's `dataclass` refuses. Its other options are not offered: use Python's.
        """
        if cls is None:
            return lambda found: _made(found, frozen=frozen, slots=slots, kw_only=kw_only)
        return _made(cls, frozen=frozen, slots=slots, kw_only=kw_only)


def _made(cls: type, *, frozen: bool, slots: bool, kw_only: bool) -> Any:
    doc = cls.__doc__
    cls.__doc__ = doc or "none"  # Python would write one, from a signature that does not exist yet
    made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots, kw_only=kw_only)(cls)
    made.__doc__ = doc
    _check_fields(made)
    own = made.__dict__
    if "__init__" not in own:
        made.__init__ = _late_init(made, frozen=frozen)
        made.__signature__ = _SIGNATURE
    methods: dict[str, Any] = {"__repr__": _repr}
    if "__eq__" not in own:
        methods |= {"__eq__": _eq, "__hash__": _hash if frozen else None}
    elif frozen and own.get("__hash__") is None:  # Python sets it to None for a class that has an __eq__ of its own
        made.__hash__ = _hash
    if frozen:
        methods |= {"__setattr__": _setattr, "__delattr__": _delattr}
        if slots:  # copy and pickle would assign otherwise
            methods |= {"__getstate__": _getstate, "__setstate__": _setstate}
    for name, method in methods.items():
        if name not in own:
            setattr(made, name, method)
    return made


def _check_fields(cls: Any) -> None:
    if any("InitVar" in str(item.type) for item in cls.__dataclass_fields__.values()):
        raise TypeError(f"{cls.__qualname__} has an InitVar: use the dataclass of Python's library")
    with_default = ""
    for item in dataclasses.fields(cls):
        if item.hash is not None or item.name == "self":
            raise TypeError(f"field {item.name!r}: use the dataclass of Python's library")
        if not item.init or item.kw_only:
            continue
        if item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING:
            with_default = item.name
        elif with_default:
            raise TypeError(f"non-default argument {item.name!r} follows default argument {with_default!r}")


def _late_init(cls: Any, *, frozen: bool) -> Callable[..., None]:
    """Return an `__init__` that replaces itself by the compiled one when it is called."""

    def compiled() -> Callable[..., None]:
        init = _compiled_init(cls, frozen=frozen)
        if cls.__dict__.get("__init__") is late_init:  # nobody has wrapped it
            cls.__init__ = init
        return init

    def late_init(self: Any, *args: Any, **kwargs: Any) -> None:
        compiled()(self, *args, **kwargs)

    late_init.compiled = compiled  # type: ignore[attr-defined]
    return late_init


def _compiled_init(cls: Any, *, frozen: bool) -> Callable[..., None]:
    known: dict[str, Any] = {"__set": object.__setattr__, "__made": _MADE}
    annotations: dict[str, Any] = {}
    positional, named, body = ["self"], list[str](), list[str]()
    for item in dataclasses.fields(cls):
        value = item.name
        if item.default_factory is not dataclasses.MISSING:
            known[f"__make_{item.name}"] = item.default_factory
            default = "=__made"
            value = f"__make_{item.name}()" + (f" if {item.name} is __made else {item.name}" if item.init else "")
        elif item.default is not dataclasses.MISSING:
            known[f"__default_{item.name}"] = item.default
            default = f"=__default_{item.name}"
            if not item.init:
                value = f"__default_{item.name}"
        elif item.init:
            default = ""
        else:
            continue  # __post_init__ sets it
        if item.init:
            (named if item.kw_only else positional).append(item.name + default)
            annotations[item.name] = item.type
        body.append(f"__set(self, {item.name!r}, {value})" if frozen else f"self.{item.name} = {value}")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    parameters = ", ".join([*positional, *(["*", *named] if named else [])])
    lines = [f" def __init__({parameters}):", *(f"  {line}" for line in body or ["pass"]), " return __init__"]
    made: dict[str, Any] = {}
    names = sys.modules[cls.__module__].__dict__  # annotations are read with the names of the class's module
    exec("\n".join([f"def make({', '.join(known)}):", *lines]), names, made)  # noqa: S102 - of names of fields
    init: Callable[..., None] = made["make"](**known)
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__annotations__ = {**annotations, "return": None}
    return init


_MADE: Any = object()
"""Stands for a value that a default factory makes."""


class _Signature:
    """The `__signature__` of a class, for readers of signatures: an `__init__` that is not compiled has none."""

    def __get__(self, value: object, kind: Any) -> Any:
        if value is not None:
            return None  # of a value, the signature is that of its __call__
        import inspect

        init = kind.__init__
        signature = inspect.signature(init.compiled() if hasattr(init, "compiled") else init)
        return signature.replace(parameters=list(signature.parameters.values())[1:])


_SIGNATURE = _Signature()


@cache
def _compared(cls: Any) -> Callable[[Any], Any]:
    """Return a function that returns the fields which decide whether two values are equal, as a tuple."""
    names = [item.name for item in dataclasses.fields(cls) if item.compare]
    return attrgetter(*names) if len(names) > 1 else lambda value: tuple(getattr(value, name) for name in names)


@recursive_repr("...")
def _repr(self: Any) -> str:
    shown = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self) if f.repr)
    return f"{type(self).__qualname__}({shown})"


def _eq(self: Any, other: object) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    kind: Any = type(self)
    compared = _compared(kind)
    return compared(self) == compared(other)


def _hash(self: Any) -> int:
    kind: Any = type(self)
    return hash(_compared(kind)(self))


def _setattr(self: object, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(self: object, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, item.name) for item in dataclasses.fields(self)]


def _setstate(self: Any, state: list[Any]) -> None:
    for item, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, item.name, value)
