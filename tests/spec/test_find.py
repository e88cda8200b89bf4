"""Which files a command means, and which provisioner a step."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagepipe.errors import SpecError
from imagepipe.spec.find import project_file, provisioner_folder, spec_files


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ["specs/web.yaml", "specs/db.yml", "specs/deep/cache.yaml", "other/one.yaml", "specs/notes.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "imagepipe.yaml").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["specs/web.yaml"], ["specs/web.yaml"]),
        (["web.yaml"], ["specs/web.yaml"]),
        (["web"], ["specs/web.yaml"]),
        (["db"], ["specs/db.yml"]),
        (["specs/db"], ["specs/db.yml"]),
        (["deep/cache"], ["specs/deep/cache.yaml"]),
        (["other"], ["other/one.yaml"]),
        (["other/"], ["other/one.yaml"]),
        (["specs"], ["specs/db.yml", "specs/deep/cache.yaml", "specs/web.yaml"]),
        ([], ["specs/db.yml", "specs/deep/cache.yaml", "specs/web.yaml"]),
        (["web", "specs/web.yaml", "specs/../specs/web.yaml"], ["specs/web.yaml"]),
        (["specs/notes.txt"], ["specs/notes.txt"]),
        (["."], ["other/one.yaml", "specs/db.yml", "specs/deep/cache.yaml", "specs/web.yaml"]),
    ],
    ids=lambda words: " ".join(words) or "nothing",
)
def test_a_word_is_a_path_a_folder_or_a_name(project: Path, words: list[str], found: list[str]) -> None:
    assert [str(file) for file in spec_files(words, folder=project)] == found


def test_an_absolute_path_is_that_path(project: Path) -> None:
    assert spec_files([str(project / "other/one.yaml")], folder=Path("/")) == [
        project.relative_to("/") / "other/one.yaml"
    ]


def test_a_file_here_comes_before_one_in_specs(project: Path) -> None:
    (project / "web.yaml").touch()
    assert spec_files(["web.yaml"], folder=project) == [Path("web.yaml")]


def test_every_word_that_is_not_found_is_reported_with_a_likely_correction(project: Path) -> None:
    with pytest.raises(SpecError) as caught:
        spec_files(["wbe.yaml", "web", "zzz"], folder=project)
    first, second = caught.value.problems
    assert (first.file, first.message) == ("wbe.yaml", "this spec was not found, neither here nor in specs/")
    assert first.hint == "did you mean web.yaml?"
    assert second.hint == "specs/ has db.yml, web.yaml"


def test_a_folder_without_specs_is_reported(project: Path) -> None:
    (project / "empty").mkdir()
    with pytest.raises(SpecError) as caught:
        spec_files(["empty"], folder=project)
    assert caught.value.problems[0].message == "this folder has no YAML files"


def test_a_missing_specs_folder_is_reported_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        spec_files([], folder=tmp_path)
    (problem,) = caught.value.problems
    assert problem.message == "no specs/ folder with YAML files was found here"
    assert problem.hint is not None


def test_the_nearest_project_file_counts(project: Path) -> None:
    assert project_file(project / "specs/deep/cache.yaml") == project / "imagepipe.yaml"
    (project / "specs/imagepipe.yaml").touch()
    assert project_file(project / "specs/deep/cache.yaml") == project / "specs/imagepipe.yaml"


def test_a_provisioner_near_the_spec_comes_before_a_shipped_one(tmp_path: Path) -> None:
    shipped = provisioner_folder("apt-install", tmp_path)
    assert shipped is not None
    assert not shipped.is_relative_to(tmp_path)
    own = tmp_path / "provisioners/apt-install"
    own.mkdir(parents=True)
    (own / "provisioner.yaml").touch()
    assert provisioner_folder("apt-install", tmp_path / "specs/deep") == own
