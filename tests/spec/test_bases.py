"""The base of a spec is found among the specs given, beside the spec, or in the nearest specs/."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagepipe.errors import SpecError
from imagepipe.spec.load import load
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.variables import Given

from .conftest import SSH_USER

BASE = "imagepipe: 1\nname: NAME\nsource: {ami: ami-0123456789abcdef0}\noutput: {name: NAME-1}\n"
LAYER = "imagepipe: 1\nname: NAME\nsource: {image: ON}\noutput: {name: NAME-1}\n"


def _write(folder: Path, name: str, on: str = "", file: str = "") -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "imagepipe.yaml").write_text(SSH_USER, encoding="utf-8")
    path = folder / (file or f"{name}.yaml")
    path.write_text((LAYER if on else BASE).replace("NAME", name).replace("ON", on), encoding="utf-8")
    return path


def _keys(loaded: list[LoadedSpec]) -> dict[str, bool]:
    assert [problem.text() for each in loaded for problem in each.problems] == []
    return {str(each.key): each.is_named for each in loaded}


def test_a_base_is_found_beside_its_layer_and_so_is_the_base_of_that(tmp_path: Path) -> None:
    _write(tmp_path, "base")
    _write(tmp_path, "runtime", on="base")
    _write(tmp_path, "unrelated")
    assert _keys(load([_write(tmp_path, "app", on="runtime")], Given())) == {
        "app": True,
        "runtime": False,
        "base": False,
    }


def test_a_base_is_found_in_the_nearest_specs_folder_by_the_name_in_its_text(tmp_path: Path) -> None:
    _write(tmp_path / "specs", "base", file="debian.yaml")
    assert _keys(load([_write(tmp_path / "services", "app", on="base")], Given())) == {"app": True, "base": False}


def test_a_base_that_is_given_counts_as_named(tmp_path: Path) -> None:
    files = [_write(tmp_path, "base"), _write(tmp_path, "app", on="base")]
    assert _keys(load(files, Given())) == {"base": True, "app": True}


def test_two_files_with_the_spec_are_refused_unless_one_has_its_name(tmp_path: Path) -> None:
    layer = _write(tmp_path, "app", on="base")
    _write(tmp_path, "base", file="one.yaml")
    _write(tmp_path, "base", file="two.yaml")
    with pytest.raises(SpecError) as refused:
        load([layer], Given())
    assert "several specs have the name 'base'" in refused.value.problems[0].message
    _write(tmp_path, "base")
    assert _keys(load([layer], Given())) == {"app": True, "base": False}


def test_a_cycle_is_reported_with_every_position(tmp_path: Path) -> None:
    files = [_write(tmp_path, name, on=on) for name, on in (("a", "b"), ("b", "c"), ("c", "a"))]
    loaded = load(files, Given())
    messages = {problem.message for each in loaded for problem in each.problems}
    assert len(messages) == 1
    assert all(f"{name} at {tmp_path}/{name}.yaml:3:17" in messages.copy().pop() for name in "abc")


def test_a_base_that_is_found_but_broken_reports_its_problems(tmp_path: Path) -> None:
    base = _write(tmp_path, "base")
    base.write_text(base.read_text() + "pubish: {}\n")
    loaded = load([_write(tmp_path, "app", on="base")], Given())
    assert any(problem.file == str(base) for each in loaded for problem in each.problems)


def test_the_dependents_of_a_spec_are_found_among_other_files(tmp_path: Path) -> None:
    base = _write(tmp_path, "base")
    more = [_write(tmp_path, "app", on="base"), _write(tmp_path, "top", on="app"), _write(tmp_path, "unrelated")]
    loaded = load([base], Given(), dependents_in=more)
    assert _keys(loaded) == {"base": True, "app": False, "top": False}
