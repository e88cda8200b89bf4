"""Steps of kinds that other packages add, as a spec has them: checked by the package's own model."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from imagepipe.inputs.collect import collect_inputs, files_of_step
from imagepipe.spec.json_schema import json_schema
from imagepipe.spec.step_models import CustomStep
from imagepipe.spec.titles import step_title
from imagepipe.step_kinds import installed_kinds
from tests.docs.blocks import ROOT, blocks_of
from tests.packages import KIND, add_package, installed
from tests.spec.conftest import BUILD, Loader


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "packages"
    folder.mkdir()
    with installed(folder, monkeypatch):
        yield folder
    for name in ("users_kind", "broken_kind", "page_kind"):
        sys.modules.pop(name, None)


@pytest.fixture
def users(packages: Path) -> Path:
    """A package with the step kind `users`."""
    add_package(packages, "our-users", {"users": "users_kind:Users"}, {"users_kind": KIND})
    return packages


def _step(value: str, more: str = "") -> str:
    return f"provision:\n  - users: {value}\n{more}"


def test_a_step_of_another_package_is_valid_and_has_its_title_and_files(users: Path, loaded: Loader) -> None:
    spec = loaded(_step("{names: [ann, bob], file: keys}", "    timeout: 5s\n"), files={"keys": "k"})
    assert [problem.text() for problem in spec.problems] == []
    (at,) = spec.steps
    assert step_title(at.step) == "users ann bob"
    assert files_of_step(at) == (at.folder / "keys",)
    assert isinstance(at.step, CustomStep)
    assert at.step.timeout == 5


@pytest.mark.parametrize(
    ("value", "more", "path", "message"),
    [
        ("{names: [ann], nams: 1}", "", "provision.0.users.nams", "unknown key 'nams'; did you mean 'names'?"),
        ("{}", "", "provision.0.users", "key 'names' is required"),
        ("{names: 5}", "", "provision.0.users.names", "expected a list, found 5; write [5]"),
        ("{names: [a!]}", "", "provision.0.users", "a! is not a name"),
        ("{names: [a], file: nothing}", "", "provision.0.users", "file nothing does not exist"),
        ("{names: [bug]}", "", "provision.0.users", "step kind 'users' cannot check its options: KeyError: 'bug'"),
        ("{names: [a]}", "    timout: 5s\n", "provision.0.timout", "unknown key 'timout'; did you mean 'timeout'?"),
        ('{names: ["{{ source.id }}"]}', "", "provision.0.users", "source"),
        ("{names: [a]}", "    expect_disconnect: true\n", "provision.0.expect_disconnect", "only a shell step"),
    ],
)
def test_each_mistake_in_such_a_step_has_its_place(
    users: Path, loaded: Loader, value: str, more: str, path: str, message: str
) -> None:
    (problem,) = loaded(_step(value, more)).problems
    assert problem.path == path
    assert message in problem.message
    assert problem.line > 0


def test_an_unknown_variable_in_such_a_step_is_reported_once(users: Path, loaded: Loader) -> None:
    (problem,) = loaded(_step('{names: ["{{ var.nobody }}"]}')).problems
    assert "nobody" in problem.message


def test_a_misspelt_kind_is_told_the_kinds_that_are_installed(users: Path, loaded: Loader) -> None:
    (problem,) = loaded("provision:\n  - usrs: {names: [a]}\n").problems
    assert "shell" in problem.message
    assert "users" in problem.message


@pytest.mark.parametrize(
    ("text", "entry", "said"),
    [
        ("import nothing_there\n", "broken_kind:Kind", "cannot be loaded: ModuleNotFoundError"),
        ("Kind = 5\n", "broken_kind:Kind", "is not a StepKind"),
        ("", "broken_kind:Kind", "cannot be loaded: AttributeError"),
    ],
)
def test_a_broken_package_is_named(packages: Path, loaded: Loader, text: str, entry: str, said: str) -> None:
    add_package(packages, "broken", {"users": entry}, {"broken_kind": text})
    (problem,) = loaded(_step("{names: [a]}")).problems
    assert "the package broken 1.0" in problem.message
    assert said in problem.message


def test_two_packages_with_the_same_kind_are_both_named(users: Path, loaded: Loader) -> None:
    add_package(users, "other-users", {"users": "users_kind:Users"}, {})
    (problem,) = loaded(_step("{names: [a]}")).problems
    assert "two packages add the step kind 'users'" in problem.message
    assert "our-users" in problem.message
    assert "other-users" in problem.message


def test_no_package_can_replace_a_kind_of_imagepipe(packages: Path, loaded: Loader) -> None:
    add_package(packages, "bad", {"shell": "users_kind:Users"}, {"users_kind": KIND})
    spec = loaded("provision: [{shell: 'true'}]\n")
    assert not spec.problems
    assert step_title(spec.steps[0].step) == "true"


def test_the_image_is_stale_when_the_options_the_files_or_the_package_change(
    packages: Path, loaded: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digests(value: str, content: str, version: str) -> frozenset[str]:
        folder = packages / f"packages-{next(count)}"
        folder.mkdir()
        add_package(folder, "our-users", {"users": "users_kind:Users"}, {"users_kind": KIND}, version)
        with installed(folder, monkeypatch):
            spec = loaded(_step(f"{{names: {value}, file: keys}}"), files={"keys": content}, build=BUILD)
            manifest = collect_inputs(spec)
        sys.path.remove(str(folder))
        assert manifest is not None
        return frozenset(item.digest for item in manifest.inputs)

    count = itertools.count()
    first = digests("[a]", "k", "1.0")
    assert digests("[a]", "k", "1.0") == first
    changed = [("[b]", "k", "1.0"), ("[a]", "x", "1.0"), ("[a]", "k", "2.0")]
    assert len({first, *(digests(*each) for each in changed)}) == 4


def test_the_schema_for_editors_has_the_kinds_that_are_installed(users: Path) -> None:
    add_package(users, "broken", {"odd": "nothing_there:Kind"}, {})
    schema = json_schema("spec", installed_kinds().values())
    Draft7Validator.check_schema(schema)
    spec: dict[str, Any] = {
        "imagepipe": 1,
        "name": "web",
        "source": {"ami": "ami-0123456789abcdef0"},
        "output": {"name": "web-1"},
    }
    for step, is_valid in (
        ({"users": {"names": ["ann"]}, "timeout": "5s"}, True),
        ({"users": {"names": 5}}, False),
        ({"users": {"nams": ["ann"]}}, False),
        ({"users": {"names": ["ann"]}, "timout": "5s"}, False),
        ({"odd": {}}, False),
    ):
        for part in ("provision", "test"):
            assert Draft7Validator(schema).is_valid({**spec, part: [step]}) is is_valid, (step, part)
    assert json_schema("project", installed_kinds().values()) == json_schema("project")


def test_the_class_on_the_how_to_page_is_a_step_kind(packages: Path, loaded: Loader) -> None:
    page = ROOT / "docs/how-to/add-a-step-kind.md"
    (module,) = (block.text for block in blocks_of(page) if block.language == "python")
    add_package(packages, "of-the-page", {"sysctl": "page_kind:Sysctl"}, {"page_kind": module})
    assert not loaded("provision: [{sysctl: {set: {vm.swappiness: 10}}}]\n").problems
    (problem,) = loaded("provision: [{sysctl: {sett: {}, set: {a.b: 1}}}]\n").problems
    assert "did you mean 'set'" in problem.message


def test_a_secret_reaches_a_step_of_another_package_through_its_env_alone(users: Path, loaded: Loader) -> None:
    secret = "variables: {token: {sensitive: true, default: s}}\n"
    (problem,) = loaded(secret + _step('{names: ["{{ var.token }}"]}')).problems
    assert "sensitive" in problem.message
    assert not loaded(secret + _step("{names: [ann]}", '    env: {TOKEN: "{{ var.token }}"}\n')).problems
