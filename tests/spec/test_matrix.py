"""A matrix gives one spec for each variant, and its mistakes are found with their positions."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagepipe.spec.load import load
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.variables import Given

from .conftest import SSH_USER

WEB = """\
imagepipe: 1
name: web
matrix: MATRIX
source: {ami: ami-0123456789abcdef0}
provision: [{shell: "echo {{ matrix.release }}", when: matrix.release == 'trixie'}]
output: {name: "web-{{ matrix.release }}"}
"""


def _load(folder: Path, matrix: str, text: str = WEB) -> list[LoadedSpec]:
    (folder / "imagepipe.yaml").write_text(SSH_USER, encoding="utf-8")
    (folder / "web.yaml").write_text(text.replace("MATRIX", matrix), encoding="utf-8")
    return load([folder / "web.yaml"], Given())


def _messages(loaded: list[LoadedSpec]) -> list[str]:
    return list(dict.fromkeys(f"{p.path}: {p.message}" for each in loaded for p in each.problems))


def test_each_combination_of_the_axes_is_a_spec_with_a_key_of_its_own(tmp_path: Path) -> None:
    loaded = _load(tmp_path, "{release: [bookworm, trixie], size: [s, m]}")
    assert [str(each.key) for each in loaded] == [
        "web[release=bookworm,size=s]",
        "web[release=bookworm,size=m]",
        "web[release=trixie,size=s]",
        "web[release=trixie,size=m]",
    ]


def test_an_axis_can_be_used_in_texts_and_conditions(tmp_path: Path) -> None:
    bookworm, trixie = _load(tmp_path, "{release: [bookworm, trixie]}")
    assert [each.checked().output.name for each in (bookworm, trixie)] == ["web-bookworm", "web-trixie"]
    assert [each.steps[0].conditions[0].decide() for each in (bookworm, trixie)] == [False, True]


def test_exclude_takes_out_what_it_matches_and_include_adds_a_variant(tmp_path: Path) -> None:
    loaded = _load(
        tmp_path,
        "{release: [bookworm, trixie], size: [1, 2], exclude: [{size: 2}], include: [{release: sid, size: 9}]}",
    )
    assert [each.key.variant for each in loaded] == [
        "release=bookworm,size=1",
        "release=trixie,size=1",
        "release=sid,size=9",
    ]


def test_two_hundred_images_that_differ_in_one_value_need_one_spec(tmp_path: Path) -> None:
    values = ", ".join(f"v{number}" for number in range(200))
    assert len({str(each.key) for each in _load(tmp_path, f"{{release: [{values}]}}")}) == 200


MANY = ", ".join(str(number) for number in range(100))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ("{release: []}", "matrix.release: the axis has no values, so the matrix has no variants"),
        ("{release: [a], exclude: [{release: a}]}", "matrix: the matrix has no variants"),
        (f"{{release: [{MANY}], size: [{MANY}]}}", "matrix: the matrix has 10000 variants; at most 256"),
        (f"{{release: [{MANY}], b: [{MANY}], c: [{MANY}], d: [{MANY}]}}", "the matrix has 100000000 variants"),
        ("{release: [a, a]}", "matrix.release.1: the axis has the value a twice"),
        ("{release: [a, [b]]}", "matrix.release.1: a value of an axis is a string, a number or a boolean"),
        ("{release: [a b]}", "is part of the spec's key"),
        ("{release: a}", "matrix.release: an axis is a list of values: [bookworm, trixie]"),
        ("{release: [a], exclude: [{relaese: a}]}", "the matrix has no axis 'relaese'; did you mean 'release'?"),
        ("{release: [a], exclude: [{release: b}]}", "no combination of the axes has these values"),
        ("{release: [a], size: [1], include: [{release: b}]}", "needs a value for every axis; it lacks size"),
        ("{release: [a], include: [{release: a}]}", "matrix.include.0: the matrix has this variant already"),
        ("{max_parallel: 2}", "matrix: the matrix has no axes: write for example `release: [bookworm, trixie]`"),
        ("{release: [1.10]}", "matrix.release.0: YAML 1.1 reads 1.10 as the number 1.1"),
    ],
)  # fmt: skip
def test_a_wrong_matrix_is_reported_with_its_position(tmp_path: Path, matrix: str, message: str) -> None:
    loaded = _load(tmp_path, matrix)
    assert any(message in text for text in _messages(loaded)), _messages(loaded)
    assert all(each.spec is None for each in loaded)
    assert all(problem.line >= 3 for each in loaded for problem in each.problems)


def test_an_axis_that_does_not_exist_and_a_spec_without_a_matrix_are_reported(tmp_path: Path) -> None:
    wrong = _load(tmp_path, "{size: [s]}")
    assert "output.name: undefined name 'matrix.release'; known: matrix.size" in _messages(wrong)
    plain = _load(tmp_path, "", WEB.replace("matrix: MATRIX\n", ""))
    assert "output.name: 'matrix.release': the spec has no `matrix`" in _messages(plain)


LAYER = """\
---
imagepipe: 1
name: app
source: {image: "BASE"}
output: {name: app-1}
"""


@pytest.mark.parametrize(
    ("base", "found"),
    [
        ("web[release=trixie]", "web[release=trixie,size=s]"),
        ("web[size=s,release=bookworm]", "web[release=bookworm,size=s]"),
    ],
)
def test_a_variant_can_be_the_base_of_another_spec(tmp_path: Path, base: str, found: str) -> None:
    *_, app = _load(tmp_path, "{release: [bookworm, trixie], size: [s]}", WEB + LAYER.replace("BASE", base))
    assert app.problems == []
    assert app.base_spec is not None
    assert str(app.base_spec.key) == found


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("web", "'web' has 2 variants"),
        ("web[release=sid]", "spec 'web' has no variant 'web[release=sid]'; did you mean 'web[release=trixie]'?"),
        ("wbe", "no spec has the name 'wbe'; did you mean 'web'?"),
        ("web[release]", "a spec is named by its name, or by the key of a variant: base[release=bookworm]"),
    ],
)
def test_a_base_that_is_not_one_variant_is_reported(tmp_path: Path, base: str, message: str) -> None:
    loaded = _load(tmp_path, "{release: [bookworm, trixie]}", WEB + LAYER.replace("BASE", base))
    assert any(message in text for text in _messages(loaded)), _messages(loaded)


def test_a_layer_with_a_matrix_can_be_built_on_the_same_variant_of_its_base(tmp_path: Path) -> None:
    layer = (
        LAYER.replace("source", "matrix: {release: [bookworm, trixie]}\nsource")
        .replace("BASE", "web[release={{ matrix.release }}]")
        .replace("app-1", '"app-{{ matrix.release }}"')
    )
    loaded = _load(tmp_path, "{release: [bookworm, trixie]}", WEB + layer)
    assert _messages(loaded) == []
    assert [str(each.base_spec.key) for each in loaded if each.base_spec] == [
        "web[release=bookworm]",
        "web[release=trixie]",
    ]
