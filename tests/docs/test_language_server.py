"""Specs in an editor: completion, checks and descriptions from the real yaml-language-server and our schemas.

One server answers all tests. They open texts that are not saved, beside the files of the repository, so that the path
of the schema in the first line leads to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imagepipe.spec.models import Spec
from tests.docs.language_server import LanguageServer, language_server

pytestmark = pytest.mark.server

ROOT = Path(__file__).resolve().parents[2]
SPECS = ROOT / "specs"
SAMPLE = SPECS / "web-server.yaml"
PROVISIONER = ROOT / "provisioners/docker/provisioner.yaml"
PROJECT = SPECS / "family/imagepipe.yaml"
FILES = [*sorted(SPECS.glob("*.yaml")), *sorted((SPECS / "family").glob("*.yaml")), PROVISIONER]
BEGINNING = """\
# yaml-language-server: $schema=../docs/reference/spec.schema.json
imagepipe: 1
name: web
source: {ami: ami-0123456789abcdef0}
output: {name: web}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[LanguageServer]:
    with language_server() as found:
        yield found


def _line(text: str, beginning: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if line.startswith(beginning))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_sample_has_no_problems_in_an_editor(server: LanguageServer, file: Path) -> None:
    assert server.problems(file.with_name(f"opened-{file.name}"), file.read_text(encoding="utf-8")) == []


def test_a_misspelt_key_is_marked_at_its_line(server: LanguageServer) -> None:
    text = SAMPLE.read_text(encoding="utf-8").replace("provision:", "provison:")
    assert server.problems(SPECS / "misspelt.yaml", text) == [
        (_line(text, "provison:"), "Property provison is not allowed.")
    ]


def test_a_misspelt_key_inside_a_part_is_marked_at_its_line(server: LanguageServer) -> None:
    text = SAMPLE.read_text(encoding="utf-8").replace("  instance_types:", "  instance_type:")
    assert server.problems(SPECS / "misspelt-inside.yaml", text) == [
        (_line(text, "  instance_type:"), "Property instance_type is not allowed.")
    ]


def test_an_empty_spec_is_offered_every_key_with_its_description(server: LanguageServer) -> None:
    path = SPECS / "empty.yaml"
    text = BEGINNING.splitlines(keepends=True)[0]
    server.problems(path, text)
    offered = server.completions(path, 2, 1)
    assert {key: offered.get(key) for key in Spec.model_fields} == {
        key: field.description for key, field in Spec.model_fields.items()
    }


def test_a_step_is_offered_its_keys(server: LanguageServer) -> None:
    path = SPECS / "step.yaml"
    server.problems(path, f"{BEGINNING}provision:\n  - name: x\n    \n")
    assert {"shell", "file", "template", "use", "sudo", "retries"} <= server.completions(path, 8, 5).keys()


@pytest.mark.parametrize("place", ["", "launch:\n", "launch:\n  ssh:\n", "publish:\n", "retention:\n"])
def test_the_value_that_an_editor_writes_with_a_key_is_accepted(server: LanguageServer, place: str) -> None:
    """A default such as `1800.0` instead of `30m` would be underlined as soon as it is written."""
    indent = "  " * place.count("\n")
    path = SPECS / f"in-{'-'.join(place.replace(':', '').split())}.yaml"
    text = f"{BEGINNING}{place}{indent}"
    server.problems(path, text)
    written = server.written(path, text.count("\n") + 1, len(indent) + 1)
    assert len(written) >= 2
    for key, line in written.items():
        assert line.startswith(f"{key}:"), "an editor does not write the colon"
        assert "null" not in line, "nobody wants null instead of a value"
        if value := line.removeprefix(f"{key}:").strip():
            moved = line.replace("\n", f"\n{indent}")  # an editor indents the lines like the first one
            problems = server.problems(path.with_stem(f"{path.stem}-{key}"), f"{text}{moved}")
            assert not [message for _, message in problems if not message.startswith("Missing property")], value


def test_a_key_shows_its_description(server: LanguageServer) -> None:
    path = SPECS / "shown.yaml"
    text = SAMPLE.read_text(encoding="utf-8")
    server.problems(path, text)
    assert "Steps that customize the instance, in order." in server.hover(path, _line(text, "provision:"), 3)


@pytest.mark.parametrize(("file", "key"), [(PROVISIONER, "parameters"), (PROJECT, "defaults")])
def test_provisioners_and_projects_are_checked_and_completed_too(server: LanguageServer, file: Path, key: str) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert (2, "Property nothing is not allowed.") in server.problems(
        file.with_name(f"misspelt-{file.name}"), f"{first}\nnothing: 1\n"
    )
    path = file.with_name(f"empty-{file.name}")
    server.problems(path, f"{first}\n")
    assert server.completions(path, 2, 1)[key]
