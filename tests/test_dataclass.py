"""Classes of `imagepipe.dataclass` behave as those of Python's library."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, InitVar, field, replace
from typing import Any, ClassVar, get_type_hints

import pytest

from imagepipe.dataclass import dataclass

KINDS = [{}, {"frozen": True}, {"slots": True}, {"frozen": True, "slots": True}]
Decorate = Callable[[type], Any]


def classes(decorate: Decorate) -> tuple[Any, Any]:
    class Disk:
        """A disk."""

        kind: ClassVar[str] = "disk"
        name: str
        size: int = 8
        tags: dict[str, str] = field(default_factory=dict, compare=False)
        key: str = field(default="", repr=False)
        half: float = field(default=0.0, init=False)
        note: str = field(default="none", kw_only=True)

        def __post_init__(self) -> None:
            object.__setattr__(self, "half", self.size / 2)

    base = decorate(Disk)

    class Root(base):  # type: ignore[misc, valid-type]
        device: str = "xvda"

    return base, decorate(Root)


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_values_are_made_compared_and_shown_as_by_python(options: dict[str, bool]) -> None:
    for ours, theirs in zip(classes(dataclass(**options)), classes(dataclasses.dataclass(**options)), strict=True):
        for args, kwargs in (
            (("a",), {}),
            (("a", 9), {"note": "n", "key": "secret"}),
            ((), {"name": "b", "tags": {"x": "y"}}),
        ):
            our, their = ours(*args, **kwargs), theirs(*args, **kwargs)
            assert repr(our) == repr(their)
            assert dataclasses.asdict(our) == dataclasses.asdict(their)
            assert our == ours(*args, **kwargs)
            assert our == replace(our, tags={"other": ""})
            assert our != replace(our, name="c")
            assert our != their
            assert copy.deepcopy(our) == copy.copy(our) == our
            assert hasattr(our, "__dict__") == hasattr(their, "__dict__")
        assert ours("a").tags is not ours("a").tags
        assert ours.__match_args__ == theirs.__match_args__
        assert [each.name for each in dataclasses.fields(ours)] == [each.name for each in dataclasses.fields(theirs)]


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_signatures_are_those_of_python_before_and_after_the_first_value(options: dict[str, bool]) -> None:
    for ours, theirs in zip(classes(dataclass(**options)), classes(dataclasses.dataclass(**options)), strict=True):
        expected = inspect.signature(theirs).parameters
        for _ in range(2):
            found = inspect.signature(ours).parameters
            assert [(each.name, each.kind) for each in found.values()] == [
                (each.name, each.kind) for each in expected.values()
            ]
            ours("a")
        assert get_type_hints(ours.__init__) == get_type_hints(theirs.__init__)


def test_a_subclass_with_an_init_of_its_own_has_its_signature() -> None:
    base, _ = classes(dataclass(frozen=True))

    class Sized(base):  # type: ignore[misc, valid-type]
        def __init__(self, size: int) -> None:
            super().__init__("sized", size)

    assert list(inspect.signature(Sized).parameters) == ["size"]
    assert Sized(4).half == 2


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_only_frozen_values_have_a_hash_and_refuse_a_change(options: dict[str, bool]) -> None:
    _, made = classes(dataclass(**options))
    value = made("a", 4)
    if not options.get("frozen"):
        value.size = 5
        assert value.size == 5
        with pytest.raises(TypeError, match="unhashable"):
            hash(value)
        return
    assert hash(value) == hash(made("a", 4, tags={"not": "compared"}))
    with pytest.raises(FrozenInstanceError, match="field 'size'"):
        value.size = 5
    with pytest.raises(FrozenInstanceError, match="field 'size'"):
        del value.size


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, r"Disk.__init__\(\) missing 1 required positional argument: 'name'"),
        (("a", 1, {}, "k", "n"), {}, "takes from 2 to 5 positional arguments"),
        (("a",), {"half": 1}, "unexpected keyword argument 'half'"),
    ],
)
def test_wrong_arguments_are_refused_in_the_words_of_python(args: Any, kwargs: Any, message: str) -> None:
    decorators: tuple[Decorate, ...] = (dataclass(frozen=True), dataclasses.dataclass(frozen=True))
    for decorate in decorators:
        base, _ = classes(decorate)
        with pytest.raises(TypeError, match=message):
            base(*args, **kwargs)


def test_methods_of_the_class_itself_are_kept() -> None:
    @dataclass(frozen=True)
    class Own:
        name: str

        def __repr__(self) -> str:
            return "own"

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Own) and self.name.lower() == other.name.lower()

    @dataclass(frozen=True)
    class Hashed:
        name: str

        def __hash__(self) -> int:
            return 7

    assert repr(Own("a")) == "own"
    assert Own("a") == Own("A")
    assert hash(Own("a")) == hash(Own("a"))
    assert hash(Hashed("a")) == 7
    assert Hashed("a") == Hashed("a")


def test_a_value_of_one_field_and_one_of_none_are_compared_too() -> None:
    @dataclass(frozen=True)
    class One:
        name: str

    @dataclass(frozen=True)
    class Nothing:
        pass

    assert One("a") == One("a") != One("b")
    assert Nothing() == Nothing()
    assert len({Nothing(), Nothing(), One("a"), One("a")}) == 2


def test_a_value_that_contains_itself_can_be_shown() -> None:
    @dataclass
    class Node:
        next: list[Any] = field(default_factory=list)

    node = Node()
    node.next.append(node)
    assert repr(node).endswith("Node(next=[...])")


def test_fields_without_a_default_after_one_with_a_default_are_refused() -> None:
    class Wrong:
        name: str = ""
        size: int

    decorators: tuple[Decorate, ...] = (dataclass, dataclasses.dataclass)
    for decorate in decorators:
        with pytest.raises(TypeError, match="non-default argument 'size' follows default argument"):
            decorate(Wrong)


@dataclass(frozen=True, slots=True)
class Pickled:
    name: str
    sizes: tuple[int, ...] = ()


def test_a_frozen_value_with_slots_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(Pickled("a", (1, 2)))) == Pickled("a", (1, 2))


def test_no_method_is_compiled_before_it_is_called() -> None:
    made, _ = classes(dataclass(frozen=True))
    late = made.__init__
    made("a")
    compiled = made.__init__
    made("b")
    assert late is not compiled
    assert made.__init__ is compiled


def test_fields_that_need_the_decorator_of_python_are_refused() -> None:
    class WithInitVar:
        size: InitVar[int]

    class WithHash:
        size: int = field(hash=False)

    for wrong in (WithInitVar, WithHash):
        with pytest.raises(TypeError, match="use the dataclass of Python's library"):
            dataclass(frozen=True)(wrong)


def test_a_value_that_can_be_called_has_the_signature_of_its_call() -> None:
    @dataclass(frozen=True)
    class Adder:
        first: int

        def __call__(self, second: int) -> int:
            return self.first + second

    assert list(inspect.signature(Adder(1)).parameters) == ["second"]
    assert list(inspect.signature(Adder).parameters) == ["first"]
