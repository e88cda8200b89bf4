"""Any file gets an answer soon, raises only SpecError, and has every problem at a position in it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from imagepipe.errors import Problem, SpecError
from imagepipe.render import RenderError, names_in_expression, names_used, render
from imagepipe.spec.document import _BREAK, parse
from imagepipe.spec.load import load, load_var_file
from imagepipe.spec.variables import Given
from tests.fuzzing import BOUNDED, within_bounds
from tests.reliability.slips import slipped

from .conftest import BUILD

CASES = Path(__file__).resolve().parent.parent / "cases" / "spec"
SEEDS = sorted(path.read_text(encoding="utf-8") for path in CASES.glob("*.yaml"))
KNOWN = sorted(
    [
        "imagepipe",
        "name",
        "description",
        "variables",
        "source",
        "launch",
        "provision",
        "test",
        "output",
        "publish",
        "hygiene",
        "ami",
        "image",
        "owners",
        "region",
        "instance_types",
        "subnets",
        "block_devices",
        "ssh",
        "user",
        "shell",
        "file",
        "template",
        "reboot",
        "use",
        "with",
        "when",
        "env",
        "sudo",
        "timeout",
        "retries",
        "inline",
        "script",
        "args",
        "src",
        "dest",
        "mode",
        "owner",
        "vars",
        "type",
        "tags",
        "regions",
        "share",
        "default",
        "allowed",
        "sensitive",
        "most_recent",
        "expect_disconnect",
        "device",
        "size_gib",
        "iops",
        "throughput",
        "encrypt",
        "kms_key",
        "per_region",
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ["{{ var.x }}", "{{ source.id }}", "{{ region }}", "{{", "{% if %}", "us-east-1", "5m", "0644", "ami-01234567"]
    ),
)
WORDS = [
    *[
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "#}",
        "var",
        ".x",
        "['x']",
        "|",
        "join",
        "(",
        ")",
        "endfor",
        "if",
        "endif",
        "'s'",
        "1",
        "~",
        "+",
        "*",
        "**",
        "%",
        "is",
        "defined",
        "endmacro",
        "loop",
        ",",
        "-",
    ],
    *["raw", "endraw", "[", "]", "{", "}", ":", "not", "block", "endblock", "import", "import'x'as'y'", "\n"],
    *("for a in ", "set a = ", "macro m() ", " ", "\n"),
]
KEYS = st.one_of(st.sampled_from(KNOWN), st.text(max_size=5))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=20,
)


def check(problem: Problem, text: str, file: str) -> None:
    assert problem.message
    assert problem.text()
    if problem.file != file:
        return
    lines = _BREAK.split(text)
    assert 0 <= problem.line <= len(lines)
    if problem.line:
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
        assert problem.length >= 1


def check_all(folder: Path, text: str) -> None:
    file = folder / "fuzz.yaml"
    file.write_text(text, encoding="utf-8", newline="")
    text = text.removeprefix("\ufeff")
    for build in (None, BUILD):
        with within_bounds():
            loaded = load([file], Given(), build=build)
        for spec in loaded:
            for problem in spec.problems:
                check(problem, text, str(file))


@BOUNDED
@given(text=st.text(max_size=200))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for document in parse(text, "x"):
        for problem in document.problems:
            check(problem, text, "x")


@BOUNDED
@given(text=st.text(alphabet="ab01:-?[]{},&*!|>'\"%@`#~<\n \t.", max_size=60))
def test_any_punctuation_is_parsed_or_refused(text: str) -> None:
    for document in parse(text, "x"):
        for problem in document.problems:
            check(problem, text, "x")


@BOUNDED
@given(raw=st.binary(max_size=100))
def test_any_bytes_are_read_or_refused(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "fuzz.yaml"
    file.write_bytes(raw)
    load([file], Given())
    try:
        load_var_file(file)
    except SpecError:
        return


@BOUNDED
@given(
    part=st.dictionaries(KEYS, VALUES, max_size=6),
    source=st.one_of(st.just({"ami": "ami-01234567"}), VALUES),
    output=st.one_of(st.just({"name": "web-1"}), VALUES),
)
def test_any_values_make_a_spec_or_problems(tmp_path: Path, part: Any, source: Any, output: Any) -> None:
    spec = {"imagepipe": 1, "name": "x", "source": source, "output": output, **part}
    # JSON is YAML but for a few numbers (NaN), which are texts then.
    check_all(tmp_path, json.dumps(spec, ensure_ascii=True, indent=random.Random(0).choice([None, 1])))


@BOUNDED
@given(seed=st.sampled_from(SEEDS), draw=st.randoms(use_true_random=False))
def test_a_spec_with_a_slip_of_the_hand_is_explained(tmp_path: Path, seed: str, draw: random.Random) -> None:
    check_all(tmp_path, slipped(seed, draw))


@BOUNDED
@given(
    text=st.lists(
        st.sampled_from(WORDS),
        max_size=14,
    ).map("".join)
)
def test_any_template_is_rendered_or_refused(text: str) -> None:
    for read in (names_used, names_in_expression, lambda text: render(text, {"var": {"x": "a"}})):
        try:
            read(text)
        except RenderError:
            continue
