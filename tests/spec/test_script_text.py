"""Texts of a spec that look like Jinja's comments: nothing of them vanishes."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagepipe.spec.step_models import FileStep, ShellStep, TemplateStep
from tests.spec.conftest import Loader

SCRIPT = 'NAME="{{ spec.name }}"\nLEN=${#NAME}\nif true; then echo kept; fi\nFRAG=${URL%#}\n'
SPEC = """
provision:
  - name: "a {# b #} c"
    shell: |
      NAME="{{ spec.name }}"
      LEN=${#NAME}
      if true; then echo kept; fi
      FRAG=${URL%#}
    env: {A: "{# x #} {{ spec.name }}", B: "${#NAME} #}", C: "one\\r\\ntwo\\rthree {{ spec.name }}"}
  - shell: {inline: ["echo ${#A}", "echo ${B%#}"], args: ["{#", "#}", "{# {{ spec.name }} #}"]}
  - file: {src: "{#x#}", dest: "/srv/{# x #}"}
  - template: {src: page.j2, dest: "/srv/{#", vars: {a: "{# a #}"}}
  - use: own
    with: {text: "{# x #}"}
"""
OWN = 'description: x\nparameters: {text: {description: x}}\nsteps: [{shell: "echo {#1#} {{ param.text }}"}]\n'


def test_no_text_of_a_spec_is_a_comment(loaded: Loader) -> None:
    files = {"{#x#}": "x", "page.j2": "{# left out #}{{ a }}", "provisioners/own/provisioner.yaml": OWN}
    spec = loaded(SPEC, files=files)
    assert [problem for problem in spec.problems if problem.severity == "error"] == []
    first, second, third, fourth, fifth = (at.step for at in spec.steps)
    assert isinstance(first, ShellStep)
    assert first.name == "a {# b #} c"
    assert first.shell.inline == (SCRIPT.replace("{{ spec.name }}", "web"),)
    assert first.env == {"A": "{# x #} web", "B": "${#NAME} #}", "C": "one\r\ntwo\rthree web"}
    assert isinstance(second, ShellStep)
    assert second.shell.inline == ("echo ${#A}", "echo ${B%#}")
    assert second.shell.args == ("{#", "#}", "{# web #}")
    assert isinstance(third, FileStep)
    assert third.file.dest == "/srv/{# x #}"
    assert isinstance(fourth, TemplateStep)
    assert (fourth.template.dest, fourth.template.vars) == ("/srv/{#", {"a": "{# a #}"})
    assert isinstance(fifth, ShellStep)
    assert fifth.shell.inline == ("echo {#1#} {# x #}",)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"#!/bin/sh\r\necho a\r\n", "#!/bin/sh\necho a\n"),
        (b"printf 'a\r\nb' >x\necho b\n", "printf 'a\r\nb' >x\necho b\n"),
        (b"echo a\rb\n", "echo a\rb\n"),
        (b"\xef\xbb\xbfecho a\n", "\ufeffecho a\n"),
    ],
    ids=["of windows", "one line", "a lone one", "a mark"],
)
def test_line_ends_of_a_script_stay_but_for_a_file_of_windows(tmp_path: Path, content: bytes, text: str) -> None:
    from imagepipe.regular_files import read_text

    (tmp_path / "script").write_bytes(content)
    assert read_text(tmp_path / "script") == text
