"""`imagepipe validate` as a user runs it: what it finds, prints and returns, and what it does not load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from imagepipe.cli.main import BUG

ROOT = Path(__file__).resolve().parents[2]
SOUND = "imagepipe: 1\nname: NAME\nsource: {ami: ami-0123456789abcdef0}\noutput: {name: image-NAME}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "specs").mkdir()
    (tmp_path / "imagepipe.yaml").write_text("defaults: {ssh_user: admin}\n")
    for name in ("web-server", "db"):
        (tmp_path / f"specs/{name}.yaml").write_text(SOUND.replace("NAME", name))
    return tmp_path


def run(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "imagepipe.cli.main", "validate", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ([], "2 specs, valid"),
        (["specs"], "2 specs, valid"),
        (["specs/"], "2 specs, valid"),
        (["web-server.yaml"], "1 spec, valid"),
        (["web-server"], "1 spec, valid"),
        (["specs/web-server.yaml"], "1 spec, valid"),
        (["db", "web-server"], "2 specs, valid"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else None,
)
def test_specs_are_found_by_path_by_name_and_by_folder(project: Path, words: list[str], count: str) -> None:
    result = run(project, *words)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{count}\n", "")


def test_a_required_variable_without_a_value_is_noted(project: Path) -> None:
    with (project / "specs/db.yaml").open("a") as spec:
        spec.write("variables: {size: {}}\nprovision: [{shell: 'echo {{ var.size }}'}]\n")
    result = run(project)
    assert result.returncode == 0
    assert result.stdout == "note: specs/db.yaml: a build needs values of: size (--var)\n2 specs, valid\n"
    assert run(project, "--var", "size=1").stdout == "2 specs, valid\n"


def test_a_spec_with_mistakes_ends_with_2_and_all_of_them(project: Path) -> None:
    with (project / "specs/db.yaml").open("a") as spec:
        spec.write("launch: {regoin: x}\nprovision: [{shell: {script: none.sh}}]\n")
    result = run(project)
    assert result.returncode == 2
    assert "specs/db.yaml:5:10: launch.regoin: unknown key 'regoin'; did you mean 'region'?" in result.stdout
    assert "specs/db.yaml:6:30: provision.0.shell.script: file none.sh does not exist" in result.stdout
    assert result.stdout.endswith("2 specs, 2 errors\n")


def test_a_mistake_in_the_project_file_is_reported_once(project: Path) -> None:
    (project / "imagepipe.yaml").write_text("imagepipe: 1\ndefaults: {regoin: eu-west-1}\n")
    result = run(project)
    assert result.returncode == 2
    assert result.stdout.count("unknown key 'regoin'; did you mean 'region'?") == 1
    assert result.stdout.endswith("2 specs, 1 error\n")


def test_a_warning_is_not_an_error(project: Path) -> None:
    with (project / "specs/db.yaml").open("a") as spec:
        spec.write("variables: {x: {default: a}}\n")
    result = run(project, "db")
    assert result.returncode == 0
    assert "warning: variables.x: variable 'x' is never used" in result.stdout
    assert result.stdout.endswith("1 spec, valid, 1 warning\n")


def test_a_spec_that_is_not_there_ends_with_2(project: Path) -> None:
    result = run(project, "web-sever")
    assert result.returncode == 2
    assert "web-sever: this spec was not found, neither here nor in specs/" in result.stdout
    assert "did you mean web-server?" in result.stdout


def test_a_folder_without_specs_ends_with_2(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.returncode == 2
    assert "no specs/ folder with YAML files was found here" in result.stdout


@pytest.mark.parametrize("content", [b"", b"\x00", b"\xff", b"[" * 200_000, b"a: [", b"- x", b"a: &a [*a]"])
def test_nothing_in_a_file_brings_a_traceback(project: Path, content: bytes) -> None:
    (project / "specs/db.yaml").write_bytes(content)
    result = run(project, "db")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr + result.stdout
    assert BUG not in result.stderr
    assert result.stdout.endswith("1 spec, 1 error\n")


def test_json_has_every_problem_in_its_parts(project: Path) -> None:
    with (project / "specs/db.yaml").open("a") as spec:
        spec.write("launch: {regoin: é}\n")
    result = run(project, "--format", "json")
    assert result.returncode == 2
    assert json.loads(result.stdout) == {
        "specs": ["specs/db.yaml", "specs/web-server.yaml"],
        "problems": [
            {
                "file": "specs/db.yaml",
                "line": 5,
                "column": 10,
                "path": "launch.regoin",
                "severity": "error",
                "message": "unknown key 'regoin'; did you mean 'region'?",
                "hint": None,
            }
        ],
    }


def test_json_of_sound_specs_has_no_problems(project: Path) -> None:
    result = run(project, "db", "--format", "json")
    assert (result.returncode, json.loads(result.stdout)) == (0, {"specs": ["specs/db.yaml"], "problems": []})


def test_annotations_of_github_are_one_line_each_and_escaped(project: Path) -> None:
    odd = project / "specs/a,b%:c.yaml"
    odd.write_text(SOUND.replace("NAME", "odd") + 'publish: {regions: ["50%,:\\n::error::x"]}\nzzz: 1\n')
    result = run(project, str(odd.relative_to(project)), "--format", "github")
    assert result.returncode == 2
    first, second = result.stdout.splitlines()
    place = "file=specs/a%2Cb%25%3Ac.yaml"
    assert first.startswith(
        f"::error {place},line=5,col=21,title=imagepipe::publish.regions.0: unknown region '50%25,:"
    )
    assert "%0A" in first
    assert second.startswith(f"::error {place},line=6,col=1,title=imagepipe::zzz: unknown key 'zzz'%0Ahint: known here")


def test_annotations_of_sound_specs_are_none(project: Path) -> None:
    result = run(project, "--format", "github")
    assert (result.returncode, result.stdout) == (0, "")


def test_variables_are_taken_in_their_order(project: Path) -> None:
    (project / "specs/db.yaml").write_text(
        SOUND.replace("NAME", "db") + "variables: {x: {default: a, allowed: [a]}}\ndescription: '{{ var.x }}'\n"
    )
    (project / "one.yaml").write_text("x: from-file-one\n")
    (project / "two.yaml").write_text("x: from-file-two\n")

    def refused(*words: str, **environment: str) -> str:
        result = run(project, "db", *words, **environment)
        return result.stdout.partition("variable 'x': '")[2].partition("'")[0]

    env = {"IMAGEPIPE_VAR_x": "from-env"}
    assert refused() == ""
    assert refused(**env) == "from-env"
    assert refused("--var-file", "one.yaml", **env) == "from-file-one"
    assert refused("--var-file", "one.yaml", "--var-file", "two.yaml", **env) == "from-file-two"
    assert refused("--var-file", "one.yaml", "--var", "x=line=1", **env) == "line=1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--var", "x"], "error: --var x: write --var NAME=VALUE"),
        (["--var", "=x"], "error: --var =x: write --var NAME=VALUE"),
        (["--var", "nothing=x"], "error: --var nothing: no spec has a variable 'nothing'"),
        (["--var-file", "none.yaml"], "none.yaml: cannot be read: No such file or directory"),
        (["--format", "xml"], "'xml' is not one of 'text', 'json', 'github'"),
        (["--formt", "json"], "error: no such option '--formt'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_usage_ends_with_2(project: Path, words: list[str], message: str) -> None:
    result = run(project, "db", *words)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_value_given_for_a_secret_is_not_printed(project: Path) -> None:
    (project / "specs/db.yaml").write_text(
        SOUND.replace("NAME", "db")
        + "variables: {t: {sensitive: true, allowed: [x]}}\ndescription: '{{ var.t }}'\n"
        + "provision: [{shell: 'echo {{ var.t }}', when: var.t == 'a', timeout: '{{ var.t }}'}]\n"
    )
    result = run(project, "db", "--var", "t=hunter2")
    assert result.returncode == 2
    assert "hunter2" not in result.stdout + result.stderr


HEAVY = [
    "boto3",
    "botocore",
    "paramiko",
    "networkx",
    "moto",
    "rich",
    "cryptography",
    "cheroot",
    "asyncio",
    "http.client",
]


MATRIX = """\
imagepipe: 1
name: sized
matrix: {size: [s, m, l]}
source: {ami: ami-0123456789abcdef0}
launch: {region: us-east-1, ssh: {user: admin}}
output: {name: "sized-{{ matrix.size }}"}
"""


def test_a_variant_in_brackets_is_checked_alone(project: Path) -> None:
    (project / "specs/sized.yaml").write_text(MATRIX)
    assert "3 specs, valid" in run(project, "sized").stdout
    assert "1 spec, valid" in run(project, "specs/sized.yaml[size=m]").stdout
    unknown = run(project, "sized[size=xl]")
    assert unknown.returncode == 2
    assert "[size=xl]: specs/sized.yaml has no such variant" in unknown.stderr


def test_it_loads_none_of_the_heavy_libraries(project: Path) -> None:
    code = (
        "import sys\nfrom imagepipe.cli.main import main\n"
        "assert main(['validate'], standalone_mode=False) == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout == "2 specs, valid\n[]\n"


STORE = """\
imagepipe: 1
name: store
source: {ami: ami-0123456789abcdef0}
launch: {region: us-east-1, instance_types: [m3.medium]}
output: {type: instance-store, name: store-1, bucket: my-images, account: "123456789012"}
"""


def test_a_certificate_of_ec2_that_is_not_here_is_a_warning_and_one_that_nobody_knows_an_error(project: Path) -> None:
    (project / "specs/store.yaml").write_text(STORE)
    environment = {"EC2_AMITOOL_HOME": str(project)}
    result = run(project, "store", **environment)
    assert result.returncode == 0
    assert "specs/store.yaml:5:9: warning: output: EC2's certificate for us-east-1 was not found in" in result.stdout
    assert "hint: copy it from ec2-ami-tools" in result.stdout
    elsewhere = run(project, "store", "--region", "il-central-1", **environment)
    assert elsewhere.returncode == 2
    assert "output: imagepipe does not know EC2's certificate for il-central-1" in elsewhere.stdout


@pytest.mark.machine
def test_the_local_cloud_needs_no_certificate_of_ec2(project: Path) -> None:
    (project / "specs/store.yaml").write_text(STORE)
    result = run(project, "store", "--local")
    assert (result.returncode, result.stderr) == (0, "")
    assert "1 spec, valid" in result.stdout
    assert "EC2's certificate" not in result.stdout


def test_an_invalid_private_key_is_found_by_validate(project: Path) -> None:
    (project / "specs/store.yaml").write_text(STORE.replace('"}', '", certificate: a, private_key: a}'))
    (project / "specs/a").write_text("garbage")
    result = run(project, "store")
    assert result.returncode == 2
    assert "output.certificate: specs/a is not an X.509 certificate, in PEM or DER" in result.stdout
    assert "output.private_key: specs/a is not a private key, in PEM or DER" in result.stdout


def test_the_specs_of_this_project_are_valid() -> None:
    result = run(ROOT)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_name_in_a_variable_file_that_is_almost_a_variable_s_is_warned_of(project: Path) -> None:
    spec = project / "specs/web-server.yaml"
    spec.write_text(
        SOUND.replace("name: NAME", "name: web").replace("image-NAME", '"image-{{ var.title }}"')
        + "variables: {title: {default: a}}\n"
    )
    (project / "prod.yaml").write_text("titel: b\nof_another_spec: c\n")
    done = run(project, "web-server", "--var-file", "prod.yaml")
    assert done.returncode == 0
    assert done.stderr == "warning: --var-file: no spec has a variable 'titel'; did you mean 'title'?\n"


def test_specs_for_the_local_cloud_are_checked_on_a_machine_that_cannot_run_it(project: Path) -> None:
    result = run(project, "--local", PATH="/nowhere")
    assert (result.returncode, result.stdout, result.stderr) == (0, "2 specs, valid\n", "")
