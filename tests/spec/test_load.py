"""Files to specs: what a file may be, what a project fills in, what variables are."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagepipe.errors import SpecError
from imagepipe.late import Late
from imagepipe.spec.load import load, load_var_file, refuse
from imagepipe.spec.scalars import ssm_parameter_arn
from imagepipe.spec.step_models import ShellStep, TemplateStep
from imagepipe.spec.variables import Given

from .conftest import BUILD, SOUND, SSH_USER, Loader, messages


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n\n# only a comment\n", "the file is empty"),
        (b"---\n---\n", "the file is empty"),
        (b"null\n", "the file is empty"),
        (b"\xff\xfei\x00m\x00", "not UTF-8: byte 0xff"),
        (SOUND.encode() + b"description: caf\xe9\n", "not UTF-8: byte 0xe9"),
        (SOUND.encode() + b"description: a\x00b\n", "character '\\x00' is not allowed in YAML"),
        (b"\x7fELF\x02\x01\x01\x00", "character '\\x7f' is not allowed in YAML"),
    ],
    ids=["nothing", "comment", "separators", "null", "utf-16", "latin-1", "nul", "a program"],
)
def test_a_file_that_is_not_a_spec_has_one_problem(loaded: Loader, content: bytes, message: str) -> None:
    assert messages(loaded(content)) == [message]


def test_a_byte_that_is_not_utf_8_has_its_place(loaded: Loader) -> None:
    (problem,) = loaded(SOUND.encode() + b"description: caf\xe9\n").problems
    assert problem.location() == "web.yaml:5:17"


def test_a_huge_file_is_not_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "huge.yaml"
    with file.open("wb") as stream:
        stream.truncate(2**40)
    (spec,) = load([file], Given())
    assert messages(spec) == ["the file is larger than 4 MiB"]


def test_a_byte_order_mark_is_not_part_of_the_spec(loaded: Loader) -> None:
    spec = loaded(b"\xef\xbb\xbf" + SOUND.encode() + b"nam: x\n")
    (problem,) = spec.problems
    assert (problem.line, problem.column) == (5, 1)
    assert loaded(b"\xef\xbb\xbf" + SOUND.encode()).problems == []


def test_windows_line_ends_are_line_ends(loaded: Loader) -> None:
    spec = loaded((SOUND + "provision:\n  - shell: |\n      a\n      b\n").replace("\n", "\r\n").encode())
    assert spec.problems == []
    step = spec.steps[0].step
    assert isinstance(step, ShellStep)
    assert step.shell.inline == ("a\nb\n",)


def test_a_file_that_does_not_exist_cannot_be_read(tmp_path: Path) -> None:
    (spec,) = load([tmp_path / "none.yaml"], Given())
    assert messages(spec) == ["cannot be read: No such file or directory"]


def test_a_folder_cannot_be_read(tmp_path: Path) -> None:
    (spec,) = load([tmp_path], Given())
    assert messages(spec) == ["cannot be read: Is a directory"]


def test_a_sound_spec_has_no_problems(loaded: Loader) -> None:
    spec = loaded()
    assert spec.problems == []
    assert spec.checked().name == "web"
    refuse([spec])


def test_refuse_raises_with_the_errors_and_without_the_warnings(loaded: Loader) -> None:
    spec = loaded("variables: {x: {default: a}}\nlaunch: {regoin: us-east-1}\n")
    assert len(spec.problems) == 2
    with pytest.raises(SpecError) as caught:
        refuse([spec])
    assert [problem.path for problem in caught.value.problems] == ["launch.regoin"]
    assert caught.value.exit_code == 2


def test_problems_of_a_spec_without_its_version_are_reported_too(loaded: Loader) -> None:
    spec = loaded("name: web\nsource: {ami: x}\noutput: {nam: web-1}\n", whole=True)
    assert [problem.path for problem in spec.problems] == ["", "source.ami", "output.nam"]


def test_late_names_stay_for_the_stage_and_the_rest_is_rendered_now(loaded: Loader) -> None:
    spec = loaded(
        "variables: {who: {default: team}}\n"
        "provision:\n  - shell: 'echo {{ var.who }} {{ source.id }}'\n  - shell: 'echo {{ var.who }}'\n"
        "publish: {ssm_parameter: '/x/{{ region }}'}\n"
    )
    assert spec.problems == []
    first, second = (at.step for at in spec.steps)
    assert isinstance(first, ShellStep)
    assert isinstance(second, ShellStep)
    assert first.shell.inline is not None
    assert isinstance(first.shell.inline[0], Late)
    assert second.shell.inline == ("echo team",)
    assert isinstance(spec.checked().publish.ssm_parameter, Late)


def test_a_template_file_may_use_loops_and_macros_of_its_own(loaded: Loader) -> None:
    page = (
        "{% macro row(x) %}<li>{{ x }} {{ kwargs }}</li>{% endmacro %}"
        "{% for item in items %}{{ loop.index }}{{ row(item) }}{% endfor %}"
        "{% set total = items | length %}{{ total }}{{ missing | default('none') }}{{ var.who }}"
    )
    spec = loaded(
        "variables: {who: {default: x}}\nprovision:\n  - template: {src: page.j2, dest: /a, vars: {items: [a, b]}}\n",
        files={"page.j2": page},
    )
    assert spec.problems == []
    assert isinstance(spec.steps[0].step, TemplateStep)


def test_steps_of_a_provisioner_stand_where_it_is_used(loaded: Loader) -> None:
    provisioner = (
        "description: d\nparameters:\n  update: {type: boolean, description: d}\n"
        "  items: {type: list, required: true, description: d}\n  note: {description: d}\n"
        "steps:\n  - shell: \"echo {{ param.update }} {{ param.items | join(' ') }} <{{ param.note }}>\"\n"
        "  - {shell: 'true', sudo: false, timeout: 1m}\n"
    )
    spec = loaded(
        "provision:\n  - shell: 'true'\n"
        "  - {use: tool, with: {items: [a, b]}, sudo: true, timeout: 2m, env: {A: b}, when: region == 'x'}\n",
        files={"provisioners/tool/provisioner.yaml": provisioner},
    )
    assert spec.problems == []
    assert [at.path for at in spec.steps] == ["provision.0", "provision.1/tool.0", "provision.1/tool.1"]
    first, second = spec.steps[1].step, spec.steps[2].step
    assert isinstance(first, ShellStep)
    assert isinstance(second, ShellStep)
    assert first.shell.inline == ("echo false a b <>",)
    assert (first.sudo, first.timeout, first.env) == (True, 120.0, {"A": "b"})
    assert (second.sudo, second.timeout) == (False, 60.0)
    assert spec.steps[1].conditions[0].expression == "region == 'x'"


def test_a_step_of_a_provisioner_names_every_use_line_around_it(loaded: Loader) -> None:
    outer = "description: d\nsteps:\n- use: inner\n"
    inner = "description: d\nsteps: [{shell: ls}]\n"
    files = {"provisioners/outer/provisioner.yaml": outer, "provisioners/inner/provisioner.yaml": inner}
    spec = loaded("provision:\n- shell: ls\n- use: outer\n- use: inner\n", files=files)
    places = [at.where() for at in spec.steps]
    assert places == [
        "web.yaml:6",
        "provisioners/inner/provisioner.yaml:2, used in provisioners/outer/provisioner.yaml:3, used in web.yaml:7",
        "provisioners/inner/provisioner.yaml:2, used in web.yaml:8",
    ]


def test_a_provisioner_used_twice_has_its_problems_once(loaded: Loader) -> None:
    spec = loaded(
        "provision: [{use: tool}, {use: tool}]\n",
        files={"provisioners/tool/provisioner.yaml": "description: d\nsteps: [{shel: x}]\n"},
    )
    assert messages(spec) == ["unknown key 'shel'; did you mean 'shell'?"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("a: [", "not YAML: "),
        ("[]", "a provisioner must be a mapping with description and steps"),
        ("description: d\nsteps: []\n---\na: b\n", "a provisioner must be one document"),
    ],
    ids=["empty", "not yaml", "list", "two"],
)
def test_a_broken_provisioner_is_a_problem_of_its_file(loaded: Loader, text: str, message: str) -> None:
    spec = loaded("provision: [{use: tool}]\n", files={"provisioners/tool/provisioner.yaml": text})
    (problem,) = spec.problems
    assert problem.message.startswith(message)
    assert problem.file == "provisioners/tool/provisioner.yaml"


def test_a_provisioner_that_is_not_utf_8_is_reported(loaded: Loader, tmp_path: Path) -> None:
    (tmp_path / "provisioners/tool").mkdir(parents=True)
    (tmp_path / "provisioners/tool/provisioner.yaml").write_bytes(b"description: caf\xe9\n")
    assert messages(loaded("provision: [{use: tool}]\n")) == ["not UTF-8: byte 0xe9"]


def test_a_default_of_another_kind_than_its_parameter_is_an_error(loaded: Loader) -> None:
    text = "description: d\nparameters: {n: {type: integer, default: x, description: d}}\nsteps: [{shell: 'true'}]\n"
    spec = loaded("provision: [{use: tool}]\n", files={"provisioners/tool/provisioner.yaml": text})
    assert messages(spec) == ["the parameter is an integer, but its default is 'x'"]


PROJECT = """\
imagepipe: 1
defaults: {region: eu-west-1, instance_types: [m5.large], ssh_user: debian, tags: {team: infra, cost: "1"}}
"""


def test_a_projects_defaults_apply_to_keys_that_the_spec_leaves_out(loaded: Loader) -> None:
    spec = loaded("", files={"imagepipe.yaml": PROJECT}).checked()
    assert spec.launch.region == "eu-west-1"
    assert spec.launch.instance_types == ("m5.large",)
    assert spec.launch.ssh.user == "debian"
    assert spec.output.tags == {"team": "infra", "cost": "1"}


def test_a_specs_own_values_win_over_the_projects(loaded: Loader) -> None:
    text = SOUND.replace("{name: web-1}", "{name: web-1, tags: {team: web}}")
    text += "launch: {region: us-east-1, instance_types: [t3.small], ssh: {user: admin}}\n"
    spec = loaded(text, whole=True, files={"imagepipe.yaml": PROJECT}).checked()
    assert (spec.launch.region, spec.launch.instance_types) == ("us-east-1", ("t3.small",))
    assert spec.launch.ssh.user == "admin"
    assert spec.output.tags == {"team": "web", "cost": "1"}


def test_a_mistake_in_the_project_file_is_shown_there(loaded: Loader) -> None:
    spec = loaded("", files={"imagepipe.yaml": "imagepipe: 1\ndefaults: {regoin: eu-west-1}\n"})
    (problem,) = spec.problems
    assert Path(problem.file).name == "imagepipe.yaml"
    assert (problem.line, problem.column) == (2, 12)
    assert "did you mean 'region'" in problem.message


def test_a_spec_without_a_user_is_an_error_that_names_the_usual_users(loaded: Loader) -> None:
    (problem,) = loaded("launch:\n  region: us-east-1\n", files={"imagepipe.yaml": "imagepipe: 1\n"}).problems
    assert problem.message == "key 'user' is required: the user to log in as, which depends on the source image"
    assert (problem.path, problem.location()) == ("launch.ssh.user", "web.yaml:6:3")
    for user in ("admin (Debian)", "ec2-user (Amazon Linux", "ubuntu (Ubuntu)", "ssh_user: …} in imagepipe.yaml"):
        assert user in str(problem.hint)


def test_the_missing_user_is_reported_beside_other_problems_of_ssh(loaded: Loader) -> None:
    spec = loaded("launch: {ssh: {port: 70000}}\n", files={"imagepipe.yaml": "imagepipe: 1\n"})
    assert [problem.path for problem in spec.problems] == ["launch.ssh.user", "launch.ssh.port"]


def test_a_project_file_that_cannot_be_read_is_the_only_error_for_a_spec_without_a_user(loaded: Loader) -> None:
    spec = loaded("", files={"imagepipe.yaml": "imagepipe: 1\ndefaults: {ssh_user: a b}\n"})
    assert messages(spec) == ["a user's name has lower case letters, digits and . _ -, a letter first"]


def test_a_default_region_is_checked_too(loaded: Loader) -> None:
    spec = loaded("", files={"imagepipe.yaml": "imagepipe: 1\ndefaults: {region: eu-wst-1}\n"})
    (problem,) = spec.problems
    assert "unknown region 'eu-wst-1'; did you mean 'eu-west-1'?" in problem.message
    assert (Path(problem.file).name, problem.line, problem.column) == ("imagepipe.yaml", 2, 20)


def test_an_unknown_region_is_accepted_if_the_project_allows_it(loaded: Loader) -> None:
    text = "launch: {region: mars-north-1}\n"
    assert messages(loaded(text)) != []
    assert messages(loaded(text, files={"imagepipe.yaml": f"allow_unknown_region: true\n{SSH_USER}"})) == []


def test_variables_take_their_values_in_the_documented_order(loaded: Loader) -> None:
    text = "variables: {x: {default: default, env: OWN}}\nprovision: [{shell: 'echo {{ var.x }}'}]\n"

    def value(given: Given) -> object:
        spec = loaded(text, given=given, build=BUILD)
        assert spec.problems == []
        return spec.names["var"]["x"]

    env = {"OWN": "own", "IMAGEPIPE_VAR_x": "prefixed"}
    assert value(Given({"x": "line"}, {"x": "file"}, env)) == "line"
    assert value(Given({}, {"x": "file"}, env)) == "file"
    assert value(Given({}, {}, env)) == "prefixed"
    assert value(Given({}, {}, {"OWN": "own"})) == "own"
    assert value(Given()) == "default"


def test_a_variable_without_a_value_is_an_error_in_a_build_only(loaded: Loader) -> None:
    text = "variables: {x: {env: OWN}}\nprovision: [{shell: {script: '{{ var.x }}.sh'}}]\n"
    assert loaded(text).problems == []
    (problem,) = loaded(text, build=BUILD).problems
    assert problem.message == "variable 'x' has no value"
    assert problem.hint == "set it with --var x=…, --var-file, or in the environment as IMAGEPIPE_VAR_x, or OWN"


def test_values_of_sensitive_variables_are_known_to_be_secret(loaded: Loader) -> None:
    text = 'variables: {t: {sensitive: true, env: T}, u: {sensitive: true, default: ""}}\n'
    text += "provision: [{shell: 'true', env: {T: '{{ var.t }}{{ var.u }}'}}]\n"
    assert loaded(text, given=Given(environment={"T": "hunter2"})).secrets == {"hunter2"}


def test_a_variable_that_only_a_condition_or_a_template_file_uses_is_used(loaded: Loader) -> None:
    spec = loaded(
        "variables: {a: {default: x}, b: {default: x}, c: {default: x}}\nprovision:\n"
        "  - {shell: 'true', when: var.a == 'x'}\n  - template: {src: t.j2, dest: /t}\n"
        "  - {use: tool, with: {p: '{{ var.c }}'}}\n",
        files={
            "t.j2": "{{ var.b }}",
            "provisioners/tool/provisioner.yaml": "description: d\nparameters: {p: {description: d}}\n"
            "steps: [{shell: 'echo {{ param.p }}'}]\n",
        },
    )
    assert spec.problems == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "a variable file must be one mapping of names to values"),
        ("", "a variable file must be one mapping of names to values"),
        ("a: 1\n---\nb: 2\n", "a variable file must be one mapping of names to values"),
        ("a: [1]\n", "a variable's value is a string, a number or a boolean"),
        (
            "a: 012345670123\n",
            'YAML 1.1 reads 012345670123 as the number 1402433619; write it in quotes: "012345670123"',
        ),
        ("a: [\n", "not YAML: "),
        ("a: 1\na: 2\n", "duplicate key 'a'; it is already in line 1"),
    ],
    ids=["list", "empty", "two", "a list", "octal", "not yaml", "twice"],
)
def test_a_variable_file_with_a_mistake_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "v.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        load_var_file(tmp_path / "v.yaml")
    assert caught.value.problems[0].message.startswith(message)


def test_a_variable_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        load_var_file(tmp_path / "none.yaml")


def test_specs_in_several_files_know_one_another(tmp_path: Path) -> None:
    (tmp_path / "imagepipe.yaml").write_text(SSH_USER)
    base, web = tmp_path / "base.yaml", tmp_path / "web.yaml"
    base.write_text("imagepipe: 1\nname: base\nsource: {image: web}\noutput: {name: image-a}\n")
    web.write_text("imagepipe: 1\nname: web\nsource: {image: base}\noutput: {name: image-b}\n")
    first, second = load([base, web], Given())
    for spec in (first, second):
        (message,) = messages(spec)
        assert f"base at {base}:3:17" in message
        assert f"web at {web}:3:17" in message
        assert spec.spec is None


HEAD = "imagepipe: 1\nname: web\nsource: {ami: ami-0123456789abcdef0}\n"


@pytest.mark.parametrize("key", ["alias/aws/ebs", "arn:aws:kms:us-east-1:123456789012:alias/aws/ebs"])
@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("output: {{name: web, encrypt: {{kms_key: '{key}'}}}}\n", "output.encrypt.kms_key"),
        (
            "output: {{name: web, encrypt: {{kms_key: alias/mine}}}}\n"
            "launch: {{block_devices: [{{device: /dev/sdf, size_gib: 1, encrypted: true, kms_key: '{key}'}}]}}\n",
            "launch.block_devices.0.kms_key",
        ),
    ],
)
def test_a_key_that_aws_manages_is_refused_if_the_image_is_shared(
    loaded: Loader, key: str, text: str, path: str
) -> None:
    share = "publish: {share: {accounts: ['123456789012']}}\n"
    shared, kept = (loaded(HEAD + text.format(key=key) + more, whole=True).problems for more in (share, ""))
    assert [p.path for p in shared if "AWS manages" in p.message] == [path]
    assert not kept


def test_a_description_beyond_ascii_is_refused_before_the_bake(loaded: Loader) -> None:
    [problem] = loaded(f"{HEAD}output: {{name: web, description: 'f\u00fcr alle'}}\n", whole=True).problems
    assert problem.message == "EC2 accepts only printable ASCII characters in a description, not '\u00fc'"


@pytest.mark.parametrize(("first", "second"), [("/dev/sdf", "/dev/xvdf"), ("/dev/sda1", "/dev/xvda")])
def test_two_names_of_one_device_are_one_device(loaded: Loader, first: str, second: str) -> None:
    devices = f"[{{device: {first}, size_gib: 9}}, {{device: {second}, size_gib: 9}}]"
    [problem] = loaded(f"launch: {{block_devices: {devices}}}\n").problems
    expected = f"device {second} is listed twice; first as entry 0, {first}, which names the same device"
    assert problem.message == expected


@pytest.mark.parametrize(
    ("name", "is_valid"),
    [
        ("/aws/service/debian/release/12/latest/amd64", True),
        ("golden-image", True),
        ("golden-image:3", True),
        ("/images/base:stable", True),
        ("arn:aws:ssm:us-east-1:123456789012:parameter/images/base", True),
        ("arn:aws:ssm:us-east-1:123456789012:parameter/base:2", True),
        ("images/base", False),
        ("/images/", False),
        ("/images/base:", False),
        ("/images/base:1:2", False),
        ("arn:aws:ssm:us-east-1:12:parameter/x", False),
    ],
)
def test_a_parameter_is_named_as_getparameter_takes_it(loaded: Loader, name: str, is_valid: bool) -> None:
    text = f"imagepipe: 1\nname: web\nsource: {{ami: {{ssm: '{name}'}}}}\noutput: {{name: web}}\n"
    assert (loaded(text, whole=True).problems == []) is is_valid


@pytest.mark.parametrize(
    ("name", "arn"),
    [
        ("base:3", "arn:aws:ssm:us-east-1:*:parameter/base"),
        ("/images/base:stable", "arn:aws:ssm:us-east-1:*:parameter/images/base"),
        (
            "arn:aws:ssm:us-east-1:123456789012:parameter/images/base:2",
            "arn:aws:ssm:us-east-1:123456789012:parameter/images/base",
        ),
    ],
)
def test_iam_compares_a_parameter_without_version_and_label(name: str, arn: str) -> None:
    assert ssm_parameter_arn(name, "aws", "us-east-1") == arn
