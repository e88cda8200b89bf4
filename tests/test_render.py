"""Templates: what they may name, what they may reach, and how much they may do."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagepipe.late import Late
from imagepipe.render import (
    RenderError,
    is_template,
    is_true,
    names_in_expression,
    names_used,
    render,
    render_file,
    render_late,
)

NAMES: dict[str, Any] = {
    "var": {"x": "a b", "n": 3, "yes": True, "list": list("abcdefghij"), "update": "u", "items": "i", "keys": "k"},
    "spec": {"name": "web"},
}


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("plain", "plain"),
        ("{{ var.x }}", "a b"),
        ("{{ var['x'] }}", "a b"),
        ("{{ var.x | quote }}", "'a b'"),
        ("{{ var.n | quote }}", "3"),
        ("{{ var.x | upper }}!", "A B!"),
        ("{{ var.nothing | default('none') }}", "none"),
        ("{{ 7 | default(8589934592) }}", "7"),
        ("{% if var.yes %}y{% else %}n{% endif %}\n", "y\n"),
        ("{% for a in var.list %}{{ loop.index }}{{ a }}{{ ',' if not loop.last }}{% endfor %}", None),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}", "a=1"),
        ("{{ var.update }}{{ var.items }}{{ var.keys }}", "uik"),
        ("{% raw %}{{ kept }}{% endraw %}", "{{ kept }}"),
        ("<{{ '<&>' }}>", "<<&>>"),
        ("{{ 'a' ~ 1 ~ var.x }}", "a1a b"),
        (
            "{{ '%s-%05d' | format('a', 3) }} {{ 7 % 3 }} {{ 2 ** 10 }} {{ 'ab' * 2 }} {{ 1 + 2 }}",
            "a-00003 1 1024 abab 3",
        ),
        ("{% macro m(x) %}[{{ x }}]{% endmacro %}{{ m(1) }}{{ m('b') }}", "[1][b]"),
        ("{% set x %}{{ var.n }}{% endset %}{{ x }}", "3"),
        ("{% filter upper %}{{ var.x }}{% endfilter %}", "A B"),
        ("{{ var.list | map('upper') | join('') }}", "ABCDEFGHIJ"),
        ("{# no comment #}{{ var.n }}", "{# no comment #}3"),
        ("${#list[@]} {{ var.n }}", "${#list[@]} 3"),
    ],
    ids=lambda text: (text or "")[:30],
)
def test_a_template_becomes_its_text(text: str, rendered: str | None) -> None:
    assert render(text, NAMES) == (rendered or "1a,2b,3c,4d,5e,6f,7g,8h,9i,10j")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ nothing }}", "template: 'nothing' is undefined"),
        ("{{ var.nothing }}", "has no attribute 'nothing'"),
        ("{{ var.n.nothing }}", "has no attribute 'nothing'"),
        ("{{ var.x + 1 }}", "template failed: "),
        ("{{ 1 / 0 }}", "template failed: division by zero"),
        ("{{ 1e308 ** 2 }}", "template failed: "),
        ("{{ var.x", "bad template: unexpected end of template"),
        ("{{ var.x | nothing }}", "bad template: No filter named 'nothing'"),
        ("{{ var.x is nothing }}", "bad template: No test named 'nothing'"),
    ],
)
def test_a_template_that_fails_says_why(text: str, message: str) -> None:
    with pytest.raises(RenderError) as caught:
        render(text, NAMES)
    assert message in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__ }}",
        "{{ var.__class__.__mro__ }}",
        "{{ '' | attr('__class__') }}",
        "{{ var['__class__'] }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ '{x.__class__}'.format_map({'x': 1}) }}",
        "{{ var.list.append(1) }}",
        "{{ var.list.sort() }}",
        "{{ {}.update({}) }}",
        "{{ self._TemplateReference__context }}",
        "{{ (x for x in []).gi_frame }}",
        "{{ range(3) }}",
        "{{ lipsum() }}",
        "{{ cycler(1) }}",
        "{{ namespace() }}",
        "{{ dict() }}",
        "{{ [1] | random }}",
        "{% include '/etc/passwd' %}",
        "{% import '/etc/passwd' as x %}",
        "{% from 'x' import y %}",
        "{% extends 'x' %}",
        "{% for x in [1] %}{{ loop._iterator.gi_frame }}{% endfor %}",
        "{% macro m() %}{% endmacro %}{{ m._environment }}",
        "{% macro m() %}{% endmacro %}{{ m.__init__.__globals__ }}",
        "{{ ''.join.__self__ }}",
    ],
)
def test_a_template_does_not_leave_the_sandbox(text: str) -> None:
    with pytest.raises(RenderError):
        render(text, NAMES)
    assert NAMES["var"]["list"] == list("abcdefghij")


def _doubling(step: str) -> str:
    return "{% set a = 'aaaaaaaaaa' %}" + step * 60 + "{{ a }}"


_NESTED = "{% set a = [1,2,3,4,5,6,7,8,9,0] %}" + "{% set a = [a,a,a,a,a,a,a,a,a,a] %}" * 12

ENDLESS = {
    "times": "{{ 'a' * 10**9 }}",
    "times, turned": "{{ 1000000000 * 'a' }}",
    "times a list": "{{ [1] * 1000000000 }}",
    "power": "{{ 10 ** 10000000 }}",
    "power of a power": "{{ 9 ** (9 ** (9 ** 9)) }}",
    "center": "{{ 'a' | center(1000000000) }}",
    "ljust": "{{ 'a'.ljust(1000000000) }}",
    "zfill": "{{ 'a'.zfill(1000000000) }}",
    "expandtabs": "{{ '\t'.expandtabs(1000000000) }}",
    "wide %": "{{ '%1000000000d' % 1 }}",
    "wide format": "{{ '%1000000000d' | format(1) }}",
    "star format": "{{ '%*d' | format(1000000000, 1) }}",
    "indent": "{{ 'a' | indent(1000000000) }}",
    "tojson": "{{ [1] | tojson(indent=1000000000) }}",
    "batch": "{{ 'a' | batch(1000000000, 'x') | list }}",
    "slice": "{{ 'a' | slice(1000000000) | list }}",
    "round": "{{ 1.5 | round(1000000000) }}",
    "replace": "{{ ('a' * 100000) | replace('a', 'b' * 100000) }}",
    "replace, method": "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
    "join": "{{ ('a' * 100000) | join('b' * 100000) }}",
    "join, method": "{{ ('b' * 100000).join('a' * 100000) }}",
    "loops": "{% for a in var.list %}" * 12 + "{% endfor %}" * 12,
    "a loop that says much": "{% for a in var.list %}" * 5 + "{{ 'x' * 1000 }}" + "{% endfor %}" * 5,
    "adding": _doubling("{% set a = a + a %}"),
    "together": _doubling("{% set a = a ~ a %}"),
    "block": _doubling("{% set a %}{{ a }}{{ a }}{% endset %}"),
    "a nested list": _NESTED + "{{ a }}",
    "a nested list as text": _NESTED + "{{ a | string }}",
    "a nested list together": _NESTED + "{{ a ~ '' }}",
    "macro": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "macro that counts": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "recursive loop": "{% for a in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "blocks": "{% if 1 %}" * 500 + "{% endif %}" * 500,
}


@pytest.fixture
def _no_collector() -> Iterator[None]:
    """Stop the garbage collector: where the stack is full, finalizers of other tests' garbage would fail."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_that_would_not_end_or_fill_the_memory_is_refused(name: str) -> None:
    started = time.monotonic()
    with pytest.raises(RenderError):
        render(ENDLESS[name], NAMES)
    # The work that is allowed takes about a second here; an hour or the memory is what it would take otherwise.
    assert time.monotonic() - started < 30


def test_a_page_of_configuration_is_within_the_bounds() -> None:
    page = (
        "{% for a in var.list %}" * 3 + "upstream {{ a }} { server 10.0.0.{{ loop.index }}:80; }\n" + "{% endfor %}" * 3
    )
    assert render(page, NAMES).count("\n") == 1000
    assert len(render("{{ 'x' * 500000 }}", {})) == 500_000


def test_a_long_text_without_templates_is_itself() -> None:
    assert render("a" * 10_000_000, {}) == "a" * 10_000_000


def test_a_huge_template_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(RenderError, match="at most 256 KiB"):
        names_used("{{ a }}" * 100_000)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{{ var.x }}", {"var.x"}),
        ("{{ var['x'] }} {{ region }}", {"var.x", "region"}),
        ("{{ var.x | default('a') }}{{ y if y is defined }}", {"var.x", "y"}),
        ("{% for a in var.list %}{{ a.b }}{{ loop.index }}{% endfor %}", {"var.list"}),
        ("{% macro m(a) %}{{ a }}{{ caller() }}{% endmacro %}{{ m(var.x) }}", {"var.x"}),
        ("{% set a = var.x %}{{ a }}", {"var.x"}),
        ("{{ var }}", {"var"}),
        ("{{ loop.index }}", {"loop.index"}),
        ("nothing", set()),
    ],
)
def test_the_names_that_a_template_reads(text: str, names: set[str]) -> None:
    assert names_used(text) == names


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("var.x == 'a'", {"var.x"}),
        ("var.x in ['a', 'b'] and not var.y", {"var.x", "var.y"}),
        ("region == 'us-east-1'", {"region"}),
        ("true", set()),
    ],
)
def test_the_names_that_an_expression_reads(expression: str, names: set[str]) -> None:
    assert names_in_expression(expression) == names


@pytest.mark.parametrize(
    "expression",
    ["", " ", "var.x =", "var.x = 'a'", "{{ var.x }}", "a b", "1 }} {{ 2", ") or (true", "%}", "x | nothing"],
)
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(RenderError, match="bad expression"):
        names_in_expression(expression)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n{{ var.x | qoute }}", "no filter is named 'qoute'; did you mean 'quote'?"),
        ("a\n{{ var.x is defind }}", "no test is named 'defind'; did you mean 'defined'?"),
    ],
)
def test_a_filter_or_test_that_there_is_not_is_found_before_anything_is_rendered(text: str, message: str) -> None:
    with pytest.raises(RenderError) as caught:
        names_used(text)
    assert caught.value.message == f"bad template: {message}"
    assert caught.value.line == 2


def test_a_filter_cannot_fetch_what_an_expression_cannot() -> None:
    assert render("{{ ['a'] | map(attribute='__class__') | list }}", {}) == "[Undefined]"


def test_a_condition_holds_or_not() -> None:
    assert is_true("var.n == 3 and var.yes", NAMES)
    assert not is_true("var.x == 'other'", NAMES)
    assert not is_true("''", NAMES)


def test_a_late_template_is_finished_with_what_became_known() -> None:
    late = Late("{{ var.x }} in {{ region }}", (("var", {"x": "a"}),))
    assert render_late(late, {"region": "us-east-1"}) == "a in us-east-1"
    assert render_late("plain {{ text }}", {}) == "plain {{ text }}"


@pytest.mark.parametrize("text", ["{{ x }}", "{% if x %}"])
def test_what_rendering_could_change_is_a_template(text: str) -> None:
    assert is_template(text)
    assert not is_template(text.replace("{", "["))


NO_TEMPLATE = st.text(st.sampled_from("{}#%$ -+a'\"\r\n\t\ufdd1é"), max_size=40).filter(
    lambda text: not any(begin in text + " " for begin in ("{{", "{%"))
)


@given(NO_TEMPLATE, NO_TEMPLATE)
def test_no_text_beside_a_template_vanishes(before: str, after: str) -> None:
    assert render(before, NAMES) == before
    assert render(f"{before} {{{{ var.n }}}} {after}", NAMES) == f"{before} 3 {after}"
    assert render_late(Late(f"{before} {{{{ region }}}} {after}", ()), {"region": "r"}) == f"{before} r {after}"


def test_only_a_template_file_has_comments() -> None:
    text = "LEN=${#NAME}\nFRAG=${URL%#}\r\n{{ var.n }}"
    assert render(text, NAMES) == "LEN=${#NAME}\nFRAG=${URL%#}\r\n3"
    assert render_file("{# a comment #}x{{ var.n }}\r\n", NAMES) == "x3\r\n"
    assert names_used("${#var.x} #}") == frozenset()
    with pytest.raises(RenderError, match="Missing end of comment tag") as caught:
        render_file("${#list[@]}", NAMES)
    assert "template file" in str(caught.value.hint)


@pytest.mark.parametrize(
    "text",
    [
        "{{ var.yes }} {{ not var.yes }}",
        "{{ var.yes ~ ' ' ~ false }}",
        "{{ '%s %s' % (var.yes, false) }}",
        "{{ '%s %s' | format(var.yes, false) }}",
        "{{ [var.yes, false] | join(' ') }}",
        "{{ var.yes | string }} {{ false | quote }}",
    ],
)
def test_booleans_render_as_yaml_writes_them(text: str) -> None:
    assert render(text, NAMES) == "true false"
