"""Sources and allowed values of variables, and the names of a build."""

from __future__ import annotations

import pytest

from imagepipe.spec.load import Build
from imagepipe.spec.models import Scalar, Variable
from imagepipe.spec.variables import Given, Unquoted, resolve
from tests.spec.conftest import BUILD, Loader


def given(value: str) -> Given:
    return Given(command_line={"x": value})


@pytest.mark.parametrize(
    ("default", "text", "value"),
    [
        ("a", "5", "5"),
        (None, "5", "5"),
        (1, "5", 5),
        (1, "-5", -5),
        (1.5, "5", 5),
        (1.5, "2.5", 2.5),
        (1, "+5", 5),
        (True, "false", False),
        (False, "TRUE", True),
    ],
)
def test_a_text_from_outside_gets_the_type_of_the_default(default: Scalar | None, text: str, value: Scalar) -> None:
    found = resolve({"x": Variable(default=default)}, given(text)).values["x"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(("default", "text"), [(1, "many"), (1.5, "x"), (True, "yes"), (False, "1")])
def test_a_text_of_another_kind_than_the_default_is_refused(default: Scalar, text: str) -> None:
    resolved = resolve({"x": Variable(default=default)}, given(text))
    assert resolved.values == {}
    assert resolved.refused["x"] == f"'{text}' does not have the type of the default ({type(default).__name__})"


@pytest.mark.parametrize(
    ("default", "text", "becomes"),
    [(1.5, "3.10", "3.1"), (1, "007", "7"), (1.5, "1e3", "1000.0"), (1, "1_0", "10"), (1.5, "nan", "nan")],
)
def test_a_number_that_would_not_keep_its_text_is_refused_with_the_reason(
    default: Scalar, text: str, becomes: str
) -> None:
    refused = resolve({"x": Variable(default=default)}, given(text)).refused["x"]
    assert refused.startswith(f"'{text}' would become {becomes}, because the default is a number")
    secret = resolve({"x": Variable(default=default, sensitive=True)}, given(text)).refused["x"]
    assert secret == "the value would change"


@pytest.mark.parametrize(
    ("default", "value", "text", "found"),
    [
        ("1.0", 3.1, "3.10", "3.10"),
        ("no", True, "true", "true"),
        (None, 3.1, "3.10", "3.10"),
        (None, 3, "3", 3),
        (None, False, "false", False),
        (1, 3, "3", 3),
        (True, False, "false", False),
    ],
)
def test_an_unquoted_value_of_a_variable_file_arrives_as_it_is_written(
    default: Scalar | None, value: float, text: str, found: Scalar
) -> None:
    resolved = resolve({"x": Variable(default=default)}, Given(files={"x": Unquoted(value, text)})).values["x"]
    assert (resolved, type(resolved)) == (found, type(found))


def test_a_number_for_a_boolean_and_a_boolean_for_a_number_are_refused() -> None:
    for default, value in ((True, 1), (1, True)):
        refused = resolve({"x": Variable(default=default)}, Given(files={"x": Unquoted(value, str(value))})).refused
        assert "does not have the type of the default" in refused["x"]


def test_only_allowed_values_are_taken() -> None:
    declared = {"x": Variable(default="prod", allowed=("prod", "test"))}
    assert resolve(declared, given("test")).values == {"x": "test"}
    assert resolve(declared, given("staging")).refused == {"x": "'staging' is not allowed; allowed values: prod, test"}


def test_an_allowed_boolean_is_compared_as_yaml_writes_it() -> None:
    assert resolve({"x": Variable(allowed=(True,))}, given("true")).values == {"x": "true"}
    refused = resolve({"x": Variable(allowed=(True,))}, given("false")).refused["x"]
    assert refused == "'false' is not allowed; allowed values: true"


def test_an_allowed_number_may_come_as_a_text() -> None:
    assert resolve({"x": Variable(allowed=(1, 2))}, given("2")).values == {"x": "2"}


def test_a_refused_secret_is_not_shown() -> None:
    declared = {
        "x": Variable(sensitive=True, allowed=("a",)),
        "y": Variable(sensitive=True, default=1),
    }
    refused = resolve(declared, Given({"x": "hunter2", "y": "hunter2"})).refused
    assert set(refused) == {"x", "y"}
    assert "hunter2" not in str(refused)


def test_a_variable_whose_default_is_the_empty_string_is_optional() -> None:
    resolved = resolve({"x": Variable(default="")}, Given())
    assert (resolved.values, resolved.missing) == ({"x": ""}, {})


def test_a_variable_without_a_value_is_reported_with_the_ways_to_set_it() -> None:
    resolved = resolve({"x": Variable(env="OWN")}, Given())
    assert resolved.values == {}
    assert "--var x=…" in resolved.missing["x"]
    assert "OWN" in resolved.missing["x"]


def test_an_empty_value_from_outside_is_a_value() -> None:
    assert resolve({"x": Variable(default="a")}, given("")).values == {"x": ""}


def test_the_environment_is_read_by_its_exact_name() -> None:
    resolved = resolve({"x": Variable()}, Given(environment={"IMAGEPIPE_VAR_X": "no", "x": "no"}))
    assert "x" in resolved.missing


NO_COMMIT = Build("b1", "20261101T000000Z", "", "the folder is not in a git repository")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        pytest.param("launch: {tags: {commit: '{{ build.git_sha }}'}}", "launch.tags.commit", id="tag"),
        pytest.param("provision: [{shell: 'echo {{ build.git_sha }}'}]", "provision.0.shell", id="script"),
        pytest.param(
            "provision: [{shell: 'echo {{ build.git_sha }} {{ source.id }}'}]", "provision.0.shell", id="late"
        ),
        pytest.param("provision: [{shell: ls, when: build.git_sha != 'x'}]", "provision.0.when", id="when"),
        pytest.param("provision: [{template: {src: page.j2, dest: /x}}]", "", id="template"),
        pytest.param("provision: [{use: mine}]", "steps.0.shell", id="provisioner"),
    ],
)
def test_a_commit_that_does_not_exist_is_a_problem_with_its_reason(loaded: Loader, text: str, path: str) -> None:
    provisioner = "description: d\nsteps: [{shell: 'echo {{ build.git_sha }}'}]\n"
    files = {"page.j2": "{{ build.git_sha }}", "provisioners/mine/provisioner.yaml": provisioner}
    [problem] = [each for each in loaded(text, build=NO_COMMIT, files=files).problems if each.severity == "error"]
    assert problem.message == "build.git_sha has no value: the folder is not in a git repository"
    assert problem.path == path
    assert "default('none')" in (problem.hint or "")


def test_a_commit_that_does_not_exist_may_have_a_default(loaded: Loader) -> None:
    text = "launch: {tags: {commit: \"{{ build.git_sha | default('none') }}\"}}"
    spec = loaded(text, build=NO_COMMIT).spec
    assert spec is not None
    assert spec.launch.tags == {"commit": "none"}


@pytest.mark.parametrize(
    "template",
    [
        "{{ var.token | default('x') }}",
        "{{ 'x' if var.token is undefined else var.token }}",
        "{{ var }}",
        "{{ var['tok' ~ 'en'] }}",
        "{% for name in var %}{{ var[name] }}{% endfor %}",
        "{% set all = var %}{{ all.token }}",
    ],
)
def test_no_detour_leads_a_sensitive_variable_to_where_others_can_read_it(loaded: Loader, template: str) -> None:
    text = f'variables: {{token: {{sensitive: true}}}}\nprovision: [{{shell: ls, name: "{template}"}}]\n'
    spec = loaded(text, given=Given(command_line={"token": "hunter2"}), build=Build("b1", "20261101T000000Z", "c0ffee"))
    [message] = [problem.message for problem in spec.problems]
    assert message == "var.token is sensitive and cannot be used here, where others can read it"


def test_a_variable_with_a_default_in_its_template_is_used(loaded: Loader) -> None:
    text = (
        "variables: {greeting: {default: hello}}\nprovision: [{shell: \"echo {{ var.greeting | default('hi') }}\"}]\n"
    )
    assert not loaded(text).problems


def test_a_default_in_a_template_of_the_source_image_waits_for_it(loaded: Loader) -> None:
    spec = loaded("provision: [{shell: \"echo {{ source.name | default('none') }}\"}]\n").spec
    assert spec is not None
    [step] = spec.provision
    assert "Late" in repr(step)


def test_an_undeclared_name_may_have_a_default(loaded: Loader) -> None:
    spec = loaded("launch: {tags: {a: \"{{ var.nothing | default('none') }}\"}}\n").spec
    assert spec is not None
    assert spec.launch.tags == {"a": "none"}


def test_a_missing_secret_is_set_where_others_cannot_read_it() -> None:
    declared = {
        "token": Variable(sensitive=True, env="API_TOKEN"),
        "plain": Variable(),
    }
    missing = resolve(declared, Given()).missing
    assert missing["token"].startswith(
        "set it in the environment as IMAGEPIPE_VAR_token, or API_TOKEN, or in a --var-file of mode 600"
    )
    assert "--var token" not in missing["token"]
    assert missing["plain"].startswith("set it with --var plain=…")


def test_the_value_of_a_sensitive_variable_is_in_no_problem(loaded: Loader) -> None:
    text = (
        "variables: {token: {sensitive: true}, other: {}}\n"
        "provision:\n"
        "  - {use: port, with: {port: '{{ var.token }}'}}\n"
        "  - shell: echo {{ {}[var.token] }}\n"
    )
    files = {
        "provisioners/port/provisioner.yaml": "imagepipe: 1\nname: port\nparameters: {port: {type: integer}}\n"
        "steps: [{shell: 'echo {{ param.port }}'}]\n"
    }
    spec = loaded(text, given=Given({"token": "hunter2secret", "other": "x"}), build=BUILD, files=files)
    assert spec.problems
    assert "hunter2secret" not in "".join(f"{each.message} {each.hint}" for each in spec.problems)
    assert any("***" in each.message for each in spec.problems)
