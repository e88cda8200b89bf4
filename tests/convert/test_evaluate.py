"""Values of expressions in the written spec: constants are computed, variables and the build's time stay."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from imagepipe.render import render

from .conftest import Convert, template

VARIABLES = """\
variable "name" { default = "Web" }
variable "on" {
  type    = bool
  default = true
}
variable "size" { default = 8 }
variable "my-dash" { default = "d" }
variable "unset" {}
variable "users" { default = ["u1", "u2"] }
locals {
  list   = ["a", "b"]
  map    = { k = "v", n = 1 }
  nested = "${local.list[1]}-${var.name}"
}
"""


def _tag(converted: Convert, expression: str, before: str = VARIABLES) -> str:
    result = converted(template(f"  tags = {{ x = {expression} }}", before=before))
    text = result.spec["output"]["tags"]["x"]
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("var.name", "{{ var.name }}"),
        ("var.my-dash", "{{ var.my_dash }}"),
        ('"a-${var.name}-${var.size}"', "a-{{ var.name }}-{{ var.size }}"),
        ("lower(var.name)", "{{ var.name | lower }}"),
        ('upper("a${var.name}")', "A{{ var.name | upper }}"),
        ('replace(var.name, "e", "3")', "{{ (var.name | replace('e', '3')) }}"),
        ('join("-", [var.name, "x"])', "{{ var.name }}-x"),
        ('format("%s:%03d", var.name, 7)', "{{ var.name }}:007"),
        ('var.on ? "a" : "b"', "{{ ('a' if var.on else 'b') }}"),
        ('var.name == "x" ? "a" : var.name', "{{ ('a' if (var.name == 'x') else var.name) }}"),
        ("local.nested", "b-{{ var.name }}"),
        ("local.map.k", "v"),
        ('merge(local.map, { k = "w" })["k"]', "w"),
        ('join(",", [for x in local.list : upper(x)])', "A,B"),
        ("jsonencode(local.map)", '{"k":"v","n":1}'),
        ('base64encode("a")', "YQ=="),
        ('split(",", "a,b")[1]', "b"),
        ('substr("hello", 1, 3)', "ell"),
        ('regex_replace("a1b2", "[0-9]", "-")', "a-b-"),
        ('trimsuffix("a.hcl", ".hcl")', "a"),
        ('element(["a", "b"], 3)', "b"),
        ('lookup(local.map, "none", "other")', "other"),
        ("timestamp()", None),
        ('"{{ `{{` }}.State}}"', "{{ '{{' }}.State}}"),
        ('"{${var.name}}"', "{{ '{' }}{{ var.name }}}"),
        (
            '"{{ .SourceAMI }} {{ .SourceAMIName }} {{ .BuildRegion }}"',
            "{{ source.id }} {{ source.name }} {{ region }}",
        ),
        ('"${build.SourceAMI} ${source.name} {{ build_type }}"', "{{ source.id }} web amazon-ebs"),
        ("uuidv4()", "{{ build.id }}"),
    ],
)
def test_an_expression_becomes_a_text_of_the_spec(converted: Convert, expression: str, text: str | None) -> None:
    found = _tag(converted, expression)
    assert text is None or found == text


@pytest.mark.parametrize(
    ("expression", "pattern"),
    [
        ('"{{timestamp}}"', r"20060102T150405Z"),
        ('"{{isotime}}"', r"2006-01-02T15:04:05Z"),
        ('"{{isotime `2006-01-02_1504`}}"', r"2006-01-02_1504"),
        ('"{{ isotime | clean_resource_name }}"', r"2006-01-02T15-04-05Z"),
        ("timestamp()", r"2006-01-02T15:04:05Z"),
        ('formatdate("YYYYMMDDhhmm", timestamp())', r"200601021504"),
        ("formatdate(\"YYYY-MM-DD'T'hh:mm:ssZ\", timestamp())", r"2006-01-02T15:04:05Z"),
        ('regex_replace(timestamp(), "[- TZ:]", "")', r"20060102150405"),
        ("substr(timestamp(), 0, 10)", r"2006-01-02"),
        ('strftime("%Y%m%d")', r"20060102"),
        ('var.on ? timestamp() : "x"', r"2006-01-02T15:04:05Z"),
    ],
)
def test_a_date_keeps_its_format(converted: Convert, expression: str, pattern: str) -> None:
    text = _tag(converted, expression)
    values = {"build": {"timestamp": "20060102T150405Z"}, "var": {"on": True}}
    assert re.fullmatch(pattern, render(text, values))


@pytest.mark.parametrize(
    ("expression", "what"),
    [
        ("nonsense(1)", "function `nonsense` is not known"),
        ("var.none", "variable `none` is not declared"),
        ("local.none", "`local.none` is not defined"),
        ("local.loop", "`local.loop` is defined by itself"),
        ('vault("a", "b")', "`vault` asks another service"),
        ("data.amazon-secretsmanager.s.value", "data source `amazon-secretsmanager.s` is not declared"),
        ('formatdate("MMM", timestamp())', "formatdate's 'MMM' is not supported"),
        ('file("none.txt")', "file none.txt: cannot be read"),
        ('regex("(", "a")', "is not supported"),
        ("[1, 2][7]", "the value has no '7'"),
        ('"{{ nonsense }}"', "the template function `nonsense` is not known"),
        ('"{{ .Nonsense }}"', "has no counterpart"),
        ("1 / 0", "division by zero"),
        ("split(var.unset, 1)", "which has no default"),
        ('"x${local.list}"', "a list in a string"),
        ("upper(1)", "has arguments that do not fit"),
        ("range(100000)", "too many numbers"),
    ],
)
def test_an_expression_without_a_value_is_listed_with_its_line_and_left_out(
    converted: Convert, expression: str, what: str
) -> None:
    before = VARIABLES.replace("locals {", "locals {\n  loop = local.loop")
    result = converted(template(f"  tags = {{\n    x = {expression}\n    y = 1\n  }}", before=before))
    assert result.spec["output"]["tags"] == {"y": "1"}
    assert any(what in each for each in result.listed)
    line = (before + template()).split("\n").index('  imds_support  = "v2.0"') + 3
    own = before.split("\n").index("  loop = local.loop") + 1
    assert [each for each in result.listed if each.startswith((f"{line}: ", f"{own}: "))]


def test_a_value_that_a_spec_cannot_defer_is_the_default_and_listed(converted: Convert) -> None:
    result = converted(template("  encrypt_boot = var.on\n  tags = { x = length(var.name) }", before=VARIABLES))
    assert result.spec["output"]["encrypt"] is True
    assert result.spec["output"]["tags"] == {"x": "3"}
    assert sum("depends on var." in each for each in result.listed) == 2


def test_a_list_variable_is_written_with_its_default_and_listed_once(converted: Convert) -> None:
    result = converted(template('  tags = { x = var.users[0], y = join("+", var.users) }', before=VARIABLES))
    assert result.spec["output"]["tags"] == {"x": "u1", "y": "u1+u2"}
    assert [each for each in result.listed if "variable `users` is a list" in each] == result.listed


def test_files_are_read_and_template_files_are_rendered(converted: Convert, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello\n")
    (tmp_path / "t.tpl").write_text("%{ for u in users }${u};%{ endfor }")
    text = '  tags = { x = chomp(file("a.txt")), y = templatefile("${path.root}/t.tpl", { users = var.users }) }'
    assert converted(template(text, before=VARIABLES)).spec["output"]["tags"] == {"x": "hello", "y": "u1;u2;"}


def test_a_value_that_grows_without_end_is_left_out(converted: Convert) -> None:
    doubled = "\n".join(f'  d{n + 1} = "${{local.d{n}}}${{local.d{n}}}"' for n in range(40))
    result = converted(template("  tags = { x = local.d40 }", before=f'locals {{\n  d0 = "aaaaaaaa"\n{doubled}\n}}\n'))
    assert "tags" not in result.spec["output"]
    assert "too long" in result.listed[0] or "too much" in result.listed[0]
