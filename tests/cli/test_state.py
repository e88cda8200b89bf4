"""`--state`, `IMAGEPIPE_STATE` and `state:` in imagepipe.yaml; and commands on runs of other machines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from imagepipe.cli.main import main
from imagepipe.cli.resume import spec_files_of
from imagepipe.cli.state_options import StateOptions, check_state_of_specs, location_of
from imagepipe.clock import SystemClock
from imagepipe.engine import events as ev
from imagepipe.engine.journal import Journal, Lifetime, RunRecord
from imagepipe.errors import CloudError, SpecError, UsageError
from imagepipe.spec.load import load
from imagepipe.spec.variables import Given
from imagepipe.state.bucket import StateBucket
from imagepipe.state.bucket_store import BucketStore
from imagepipe.state.location import StateLocation
from tests.local.aws.harness import KEY_ID, SECRET, Cloud
from tests.state.shared import make_bucket, session

URL = "s3://our-state/team"
SPEC = """\
imagepipe: 1
name: web
source: {ami: {name: "debian-12-amd64-*", owners: ["136693071363"]}}
launch: {region: us-east-1, ssh: {user: admin}}
provision: [{shell: "true"}]
output: {name: "web-{{ build.id }}"}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working folder; this computer has no run."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("IMAGEPIPE_STATE", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def cloud(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    for name, value in {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    (tmp_path / "cloud").mkdir()
    cloud = Cloud(root=tmp_path / "cloud")
    cloud.start()
    make_bucket(cloud)
    yield cloud
    cloud.stop()


def _dead_run(cloud: Cloud, elsewhere: Path) -> None:
    """Leave a run of another machine, whose disk is lost, with a key pair and a profile that is only there."""
    clock = SystemClock()
    store = BucketStore(StateBucket(session(cloud), StateLocation.parse(URL), clock), elsewhere, clock)
    target = {"endpoint_url": cloud.endpoint, "profile": "of-another-machine"}
    journal = Journal.create(
        store, RunRecord("7f3a91c2", "2026-11-23T03:05:07Z", ("web",), {}, target, {"files": []}), clock
    )
    claim = journal.intend("key-pair", "us-east-1", lifetime=Lifetime.RUN, stage="key")
    made = cloud.client().import_key_pair(
        KeyName=f"imagepipe-{claim.token}",
        PublicKeyMaterial=b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB x",
        TagSpecifications=[
            {"ResourceType": "key-pair", "Tags": [{"Key": "imagepipe:token", "Value": claim.token}]},
        ],
    )
    journal.bind(claim, made["KeyPairId"])
    with journal.event_sink() as sink:
        sink(ev.StageFailed(clock.now(), "7f3a91c2", "launch", 1.0, "no capacity"))
    journal.close()


def _call(*words: str) -> Result:
    return CliRunner().invoke(main, words, catch_exceptions=True)


def test_a_run_of_another_machine_is_listed_shown_and_cleaned(cloud: Cloud, tmp_path: Path) -> None:
    _dead_run(cloud, tmp_path / "elsewhere")
    at = ("--state", URL, "--endpoint-url", cloud.endpoint)

    (row,) = json.loads(_call("runs", *at, "--format", "json").stdout)
    assert (row["run"], row["state"], [each["kind"] for each in row["held"]]) == ("7f3a91c2", "dead", ["key-pair"])
    shown = _call("show", "latest", *at)
    assert "no capacity" in shown.output
    assert "its process died" in shown.output
    reported = _call("report", "latest", *at, "--output", "out")
    assert reported.exit_code == 0, reported.output
    found = json.loads(Path("out/report.json").read_text())
    assert (found["outcome"], found["errors"][0]["message"]) == ("died", "no capacity")
    assert [each["kind"] for each in found["resources"]] == ["key-pair"]
    cleaned = _call("clean", "7f3a", *at)
    assert cleaned.exit_code == 0, cleaned.output
    assert "7f3a91c2: deleted: key-pair key-" in cleaned.output
    assert "note: there is no AWS profile of-another-machine here" in cleaned.stderr
    assert cloud.client().describe_key_pairs()["KeyPairs"] == []
    assert _call("runs").output == "no runs yet\n", "this computer has none"


def test_the_bucket_is_probed_before_anything_is_made(cloud: Cloud, folder: Path) -> None:
    (folder / "web.yaml").write_text(SPEC)
    refused = _call("build", "web.yaml", "--state", "s3://no-state/x", "--endpoint-url", cloud.endpoint)
    assert isinstance(refused.exception, CloudError)
    assert "the state bucket no-state does not exist" in str(refused.exception)
    assert cloud.client().describe_key_pairs()["KeyPairs"] == []


def test_a_bucket_of_another_region_is_noted(cloud: Cloud, folder: Path) -> None:
    make_bucket(cloud, "eu-west-1", "far-state")
    noted = _call("clean", "--all", "--state", "s3://far-state/x", "--endpoint-url", cloud.endpoint)
    assert noted.exit_code == 0, noted.output
    assert "note: the state bucket far-state is in eu-west-1" in noted.stderr


def test_the_option_wins_over_the_environment_and_that_over_the_project(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.parent / "imagepipe.yaml").write_text("state: s3://of-project/p\nstate_kms_key: alias/ours\n")
    assert location_of(StateOptions()) == StateLocation("of-project", "p/", "alias/ours")
    assert location_of(StateOptions("s3://of-option")) == StateLocation("of-option", "", "alias/ours")
    assert location_of(StateOptions("local")) is None
    (folder / "web.yaml").write_text(SPEC)
    monkeypatch.setenv("IMAGEPIPE_STATE", "s3://of-environment/e")
    printed = {words: _call("policy", "web.yaml", *words).stdout for words in ((), ("--state", "s3://of-option"))}
    assert "arn:aws:s3:::of-environment/e/*" in printed[()]
    assert "of-environment" not in printed["--state", "s3://of-option"]


def test_without_any_of_them_runs_are_on_this_computer(folder: Path) -> None:
    assert location_of(StateOptions()) is None


@pytest.mark.parametrize("text", ["state: our-bucket\n", "state: s3://A_B\n", "stat: s3://bucket\n"])
def test_a_project_with_a_wrong_state_is_refused(folder: Path, text: str) -> None:
    (folder / "imagepipe.yaml").write_text(text)
    with pytest.raises(SpecError, match=r"imagepipe\.yaml:1:"):
        location_of(StateOptions())


def test_a_spec_of_a_project_with_another_state_is_refused(folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    (other / "imagepipe.yaml").write_text(f"state: {URL}\n")
    (other / "web.yaml").write_text(SPEC)
    loaded = load([other / "web.yaml"], Given({}, {}, {}))
    with pytest.raises(UsageError, match=f"keeps its runs in {URL}"):
        check_state_of_specs(StateOptions(), loaded)
    check_state_of_specs(StateOptions(URL), loaded)


@pytest.mark.parametrize("words", [("runs", "--local"), ("show", "7f3a", "--profile", "x"), ("ssh", "x", "--local")])
def test_options_for_a_bucket_without_a_bucket_are_refused(folder: Path, words: tuple[str, ...]) -> None:
    refused = _call(*words)
    assert isinstance(refused.exception, UsageError)
    assert "are for the bucket of --state" in str(refused.exception)


@pytest.mark.parametrize(
    ("key", "resource", "condition"),
    [
        ("arn:aws:kms:us-east-1:1:key/k", "arn:aws:kms:us-east-1:1:key/k", None),
        ("1234-abcd", "arn:aws:kms:*:*:key/1234-abcd", None),
        (
            "alias/ours",
            "arn:aws:kms:*:*:key/*",
            {"ForAnyValue:StringEquals": {"kms:ResourceAliases": "alias/ours"}},
        ),
    ],
)
def test_the_policy_allows_shared_state_and_its_key_and_no_deletion(
    folder: Path, key: str, resource: str, condition: object
) -> None:
    (folder / "web.yaml").write_text(SPEC)
    (folder / "imagepipe.yaml").write_text(f"state_kms_key: {key}\n")
    found = {each["Sid"]: each for each in json.loads(_call("policy", "web.yaml", "--state", URL).stdout)["Statement"]}
    assert found["ListState"]["Resource"] == "arn:aws:s3:::our-state"
    assert found["ReadAndWriteState"]["Resource"] == "arn:aws:s3:::our-state/team/*"
    assert found["ReadAndWriteState"]["Action"] == ["s3:GetObject", "s3:PutObject"]
    assert (found["UseKeyOfState"]["Resource"], found["UseKeyOfState"].get("Condition")) == (resource, condition)
    assert "s3:GetObject" in _call("policy", "web.yaml", "--state", URL, "--explain").stdout


def test_the_specs_of_a_run_are_found_under_the_working_folder(folder: Path) -> None:
    (folder / "specs").mkdir()
    (folder / "specs" / "web.yaml").write_text(SPEC)
    stored = {"files": ["/home/first/project/specs/web.yaml"], "folder": "/home/first/project"}
    assert spec_files_of(stored) == [folder / "specs" / "web.yaml"]
    with pytest.raises(UsageError, match=r"the spec /home/first/project/db.yaml of the run was not found") as refused:
        spec_files_of({**stored, "files": ["/home/first/project/db.yaml"]})
    assert "a folder with the same specs" in str(refused.value.hint)
