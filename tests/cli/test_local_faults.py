"""Files of faults: what is wrong with one, each with its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from imagepipe.cli.local_faults import read_faults
from imagepipe.cli.main import main
from imagepipe.errors import LocalCloudError, SpecError
from imagepipe.local.aws.faults.faults import Fault, to_json

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "faults.md"
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def written(folder: Path, text: str) -> Path:
    path = folder / "faults.yaml"
    path.write_text(text, encoding="utf-8")
    return path


WRONG = {
    "an unknown effect": ("effect: refuze", "1:19: faults.0.effect: unknown effect 'refuze'; did you mean 'refuse'?"),
    "no effect": ("action: RunInstances", "1:10: faults.0: a fault has an effect: refuse, delay"),
    "an unknown field": (
        "effect: cut-after, tims: 1",
        "1:30: faults.0.tims: unknown field 'tims'; did you mean 'times'?",
    ),
    "another effect's field": ("effect: cut-after, seconds: 1", "1:30: faults.0.seconds: 'cut-after' has no 'seconds'"),
    "a wrong type": ("effect: refuse, times: often", "times is a whole number, 1 or more, and not 'often'"),
    "a boolean for a number": ("effect: delay, seconds: yes", "seconds is a number of seconds, and not True"),
    "a share beyond one": ("effect: refuse, probability: 2", "probability is a number from 0 to 1, and not 2"),
    "nothing to wait for": ("effect: delay", "1:10: faults.0: 'delay' needs seconds"),
    "time that runs back": ("effect: delay, seconds: -1", "seconds cannot be negative in 'delay'"),
    "EC2 has no such action": (
        "effect: refuse, action: RunInstance",
        "no service here has an action 'RunInstance'; did you mean 'RunInstances'?",
    ),
    "S3 has no such action": ("effect: refuse, action: 's3:PutObjct'", "did you mean 's3:PutObject'?"),
    "an action that makes nothing": ("effect: hang, action: DescribeImages", "'hang' comes at RegisterImage"),
    "an action of all": ("effect: skew, seconds: 1, action: RunInstances", "'skew' has no 'action'"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_fault_is_refused_with_its_place(tmp_path: Path, wrong: str) -> None:
    text, message = WRONG[wrong]
    with pytest.raises(SpecError) as caught:
        read_faults(written(tmp_path, f"faults: [{{{text}}}]\n"))
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a\n", "faults: refuse\n", "faults: [nothing]\n", "fault: []\n", "faults: [\n"])
def test_a_file_that_has_no_faults_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(SpecError, match=r"faults\.yaml:\d"):
        read_faults(written(tmp_path, text))


def test_all_mistakes_are_reported_at_once_and_nothing_starts(tmp_path: Path) -> None:
    file = written(tmp_path, "faults:\n  - effect: refuze\n  - effect: delay\n")
    store = tmp_path / "store"
    done = CliRunner().invoke(main, ["local", "--store", str(store), "serve", "--faults", str(file)])
    assert isinstance(done.exception, SpecError)
    assert done.exception.exit_code == 2
    assert [problem.line for problem in done.exception.problems] == [2, 3]
    assert not store.exists()


def test_faults_are_those_of_a_cloud_that_runs(tmp_path: Path) -> None:
    file = written(tmp_path, EXAMPLES[0])
    done = CliRunner().invoke(main, ["local", "--store", str(tmp_path / "store"), "faults", str(file)])
    assert isinstance(done.exception, LocalCloudError)
    assert "is not running" in str(done.exception)


def test_a_missing_seed_is_drawn_and_printed(tmp_path: Path) -> None:
    found = read_faults(written(tmp_path, "faults: [{effect: cut-after, probability: 0.5}]"))
    assert found.describe() == f"active faults (seed: {found.seed}):\n  cut-after *, probability 0.5"


def test_a_fault_is_the_same_after_a_way_over_the_admin_door(tmp_path: Path) -> None:
    for example in EXAMPLES:
        for fault in read_faults(written(tmp_path, example)).faults:
            assert Fault(**to_json(fault)) == fault
