"""Certificates and keys of an instance-store image: what is wrong with them is said where the spec names them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from imagepipe.bundle import certificates
from imagepipe.bundle.certificates import load_certificate, load_private_key
from imagepipe.errors import Problem
from imagepipe.spec.load import load
from imagepipe.spec.variables import Given
from imagepipe.wiring.certificates import check_bundle_files
from tests.bundle.samples import CASES

EC2 = CASES / "ec2-cert.pem"

SPEC = """\
imagepipe: 1
name: web
source: {ami: ami-0123456789abcdef0}
variables: {pair: {description: a file, default: ""}}
launch: {region: REGION, instance_types: [m3.medium], ssh: {user: admin}}
output:
  type: instance-store
  name: web-1
  bucket: my-images
  account: "123456789012"
"""

Check = Callable[..., list[Problem]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Problems of a spec beside a pair (`user.pem`, `user.key`), where EC2's certificates are in `folder`."""
    shutil.copy(CASES / "user-cert.pem", tmp_path / "user.pem")
    shutil.copy(CASES / "user-key.pem", tmp_path / "user.key")

    def run(
        output: str = "",
        *,
        at: str = "us-east-1",
        rest: str = "",
        folder: Path | None = None,
        is_local: bool = False,
        region: str | None = None,
        if_absent: str = "error",
    ) -> list[Problem]:
        text = SPEC.replace("REGION", at) + "".join(f"  {line}\n" for line in output.splitlines()) + rest
        (tmp_path / "web.yaml").write_text(text)
        (one,) = load([tmp_path / "web.yaml"], Given())
        assert [p for p in one.problems if p.severity == "error"] == []
        return check_bundle_files(
            one,
            environment={"EC2_AMITOOL_HOME": str(folder)} if folder else {},
            is_local=is_local,
            region=region,
            if_absent=if_absent,
        )

    return run


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of ec2-ami-tools, where a stand-in is EC2's default certificate."""
    home = tmp_path / "tools"
    (home / "etc/ec2/amitools").mkdir(parents=True)
    shutil.copy(EC2, home / "etc/ec2/amitools/cert-ec2.pem")
    monkeypatch.setitem(certificates.FINGERPRINTS, "default", load_certificate(EC2).fingerprint)
    return home


def said(problems: list[Problem]) -> list[tuple[str, str]]:
    return [(problem.path, problem.severity) for problem in problems]


def test_a_pair_and_a_region_whose_certificate_is_here_have_no_problem(check: Check, known: Path) -> None:
    assert check("certificate: user.pem\nprivate_key: user.key", folder=known) == []
    assert check(folder=known) == [], "imagepipe makes the pair"


def test_the_certificate_of_a_region_is_asked_for_in_a_build_and_missed_by_validate(check: Check) -> None:
    (problem,) = check(at="eu-west-1")
    assert problem.message.startswith("EC2's certificate for eu-west-1 was not found in /etc/ec2/amitools")
    assert (problem.path, problem.line, problem.severity) == ("output", 7, "error")
    assert "ec2_certificate" in str(problem.hint)
    assert said(check(at="eu-west-1", if_absent="warning")) == [("output", "warning")]


def test_a_region_with_a_certificate_that_nobody_knows_is_an_error_everywhere(check: Check) -> None:
    (problem,) = check(at="af-south-1", if_absent="warning")
    assert problem.message == "imagepipe does not know EC2's certificate for af-south-1"
    assert (problem.path, problem.severity) == ("output", "error")


def test_a_certificate_that_is_given_is_the_one_that_is_read(check: Check, tmp_path: Path) -> None:
    shutil.copy(EC2, tmp_path / "ec2.pem")
    assert check("ec2_certificate: ec2.pem", at="af-south-1") == []
    (tmp_path / "ec2.pem").write_text("garbage")
    (problem,) = check("ec2_certificate: ec2.pem", at="af-south-1", if_absent="warning")
    assert (problem.path, problem.line, problem.severity) == ("output.ec2_certificate", 11, "error")
    assert "ec2.pem is not an X.509 certificate" in problem.message


def test_each_region_of_the_image_has_a_certificate(check: Check, known: Path, tmp_path: Path) -> None:
    per_region = "per_region:\n  us-west-2: {bucket: west-2}\n  af-south-1: {bucket: africa}"
    regions = "publish: {regions: [us-east-1, us-west-2, af-south-1]}\n"
    (problem,) = check(per_region, rest=regions, folder=known, if_absent="warning")
    assert (problem.path, problem.severity, problem.line) == ("output.per_region.af-south-1", "error", 13)
    shutil.copy(CASES / "user-key.pem", tmp_path / "swapped.pem")
    swapped = per_region.replace("africa", "africa, ec2_certificate: swapped.pem")
    (first,) = check(swapped, rest=regions, folder=known, if_absent="warning")
    assert first.path == "output.per_region.af-south-1.ec2_certificate"
    assert first.message.endswith("is a private key, not a certificate")


def test_a_region_whose_known_certificate_is_not_here_is_a_warning_where_that_is_wanted(
    check: Check, known: Path
) -> None:
    regions = "publish: {regions: [us-gov-east-1]}\n"
    found = check(
        "per_region: {us-gov-east-1: {bucket: gov}}",
        at="us-gov-west-1",
        rest=regions,
        folder=known,
        if_absent="warning",
    )
    assert ("output.per_region.us-gov-east-1", "warning") in said(found)


def test_the_local_cloud_wants_no_certificate_of_ec2(check: Check) -> None:
    assert check(at="af-south-1", is_local=True) == []


def test_the_pair_is_looked_at_for_the_local_cloud_too(check: Check, tmp_path: Path) -> None:
    shutil.copy(CASES / "ec2-key.pem", tmp_path / "user.key")
    (problem,) = check("certificate: user.pem\nprivate_key: user.key", is_local=True)
    assert (problem.path, problem.line) == ("output.private_key", 12)
    assert "user.key does not belong to the certificate" in problem.message
    assert "openssl req" in str(problem.hint)


def test_a_file_in_a_home_folder_is_found_from_wherever_the_spec_is(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    shutil.copy(CASES / "ec2-key.pem", tmp_path / "home/user.key")
    (problem,) = check("certificate: user.pem\nprivate_key: ~/user.key", is_local=True)
    assert f"the private key {tmp_path}/home/user.key does not belong" in problem.message


def test_both_files_of_a_pair_are_said_at_once(check: Check) -> None:
    problems = check("certificate: user.key\nprivate_key: user.pem", is_local=True)
    assert said(problems) == [("output.certificate", "error"), ("output.private_key", "error")]
    assert all(problem.hint == "are the two files swapped?" for problem in problems)


def test_a_private_key_with_a_passphrase_is_refused_with_how_to_take_it_off(check: Check, tmp_path: Path) -> None:
    protection = serialization.BestAvailableEncryption(b"secret")
    key = load_private_key(tmp_path / "user.key")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    (tmp_path / "user.key").write_bytes(pem)
    (problem,) = check("certificate: user.pem\nprivate_key: user.key", is_local=True)
    assert problem.message.endswith("user.key has a passphrase")
    assert "openssl rsa" in str(problem.hint)


def test_another_region_of_the_command_line_needs_its_own_certificate_and_leaves_the_specs_without_a_bucket(
    check: Check, known: Path
) -> None:
    rest = "publish: {regions: [us-east-1]}\n"
    problems = check(rest=rest, folder=known, region="af-south-1", if_absent="warning")
    assert [(p.path, p.severity) for p in problems] == [("output", "error"), ("publish.regions.0", "error")]
    assert "af-south-1" in problems[0].message
    assert "{us-east-1: {bucket: …}}" in problems[1].message


def test_a_file_whose_name_is_not_known_yet_is_not_missed(check: Check, known: Path, tmp_path: Path) -> None:
    text = SPEC.replace("REGION", "us-east-1").replace('a file, default: ""', "a file")
    (tmp_path / "web.yaml").write_text(text + '  certificate: "{{ var.pair }}"\n  private_key: user.key\n')
    (one,) = load([tmp_path / "web.yaml"], Given())
    assert one.problems == []
    assert check_bundle_files(one, environment={"EC2_AMITOOL_HOME": str(known)}, is_local=False) == []


def test_an_ebs_image_and_a_spec_with_problems_have_no_such_files(tmp_path: Path) -> None:
    for output in ("{name: web-1}", "{type: instance-store}"):
        (tmp_path / "web.yaml").write_text(
            f"imagepipe: 1\nname: web\nsource: {{ami: ami-0123456789abcdef0}}\noutput: {output}\n"
        )
        (one,) = load([tmp_path / "web.yaml"], Given())
        assert check_bundle_files(one, environment={}, is_local=False) == []
