"""Valid specs of instance-store images, and their needs in each region. Invalid ones are among the cases."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from imagepipe.capture.agent.tree import EMPTIED
from imagepipe.late import Late
from imagepipe.spec.bundle_rules import LEFT_OUT, bundle_files, bundle_region, prefix_problem, regions_without_bucket
from imagepipe.spec.models import InstanceStoreOutput

from .conftest import Loader, messages

HEAD = "imagepipe: 1\nname: web\nsource: {ami: ami-0123456789abcdef0}\n"
MACHINE = "launch: {region: us-east-1, instance_types: [m3.medium, c3.large]}\n"
OUTPUT = 'output: {type: instance-store, name: web-1, bucket: my-images, account: "123456789012"}\n'
WEST = "per_region: {us-west-2: {bucket: my-images-west, ec2_certificate: west.pem}}"


def with_words(words: str) -> str:
    return OUTPUT.replace("}\n", f", {words}}}\n")


SOUND: Mapping[str, str] = {
    "as little as can be": MACHINE + OUTPUT,
    "a pair of one's own": MACHINE + with_words("certificate: user.pem, private_key: user.key"),
    "EC2's certificate": MACHINE + with_words("ec2_certificate: west.pem"),
    "another region": MACHINE + with_words(WEST) + "publish: {regions: [us-east-1, us-west-2]}\n",
    "shared with all, from an encrypted volume": MACHINE.replace("[m3", "[m1.small, r3.large, x1.16xlarge, m3").replace(
        "}\n", ", block_devices: [{device: /dev/xvda, size_gib: 10, encrypted: true}]}\n"
    )
    + OUTPUT
    + "publish: {share: {public: true}}\n",
    "a tree, smaller than its root": MACHINE.replace("}\n", ", block_devices: [{device: /dev/sda1, size_gib: 40}]}\n")
    + with_words("method: tree, size_gib: 10, exclude: [/var/cache/apt/archives, /usr/share/doc]"),
    "a size of its own says how the root is read": MACHINE.replace(
        "}\n", ", block_devices: [{device: /dev/sda1, size_gib: 40}]}\n"
    )
    + with_words("size_gib: 1"),
    "a large volume that is not the root": MACHINE.replace(
        "}\n", ", block_devices: [{device: /dev/sdf, size_gib: 40}]}\n"
    )
    + with_words("method: block"),
    "a BIOS, or both": MACHINE + with_words("boot_mode: uefi-preferred"),
    "instance store volumes": MACHINE + with_words("block_devices: [{device: /dev/sdb, virtual_name: ephemeral0}]"),
    "a bucket of the account's own namespace": MACHINE + OUTPUT.replace("my-images", "my-123456789012-us-east-1-an"),
    "a prefix of all that is safe": MACHINE + with_words('prefix: "a/B9!-_.*\'()/{{ build.id }}/{{ source.name }}"'),
}


@pytest.mark.parametrize("text", SOUND.values(), ids=SOUND)
def test_a_sound_spec_of_an_instance_store_image_has_no_problems(loaded: Loader, text: str) -> None:
    spec = loaded(HEAD + text, whole=True, files=dict.fromkeys(("user.pem", "user.key", "west.pem"), ""))
    assert spec.problems == []


def output(loaded: Loader, text: str) -> InstanceStoreOutput:
    found = loaded(HEAD + text, whole=True, files={"west.pem": ""}).checked().output
    assert isinstance(found, InstanceStoreOutput)
    return found


def test_instance_types_of_the_project_are_reported_at_the_output(loaded: Loader) -> None:
    project = "imagepipe: 1\ndefaults: {region: us-east-1, instance_types: [m3.medium, t3a.small], ssh_user: admin}\n"
    (problem,) = loaded(HEAD + OUTPUT, whole=True, files={"imagepipe.yaml": project}).problems
    assert (problem.path, problem.line) == ("output.type", 4)
    assert problem.message.startswith("t3a.small cannot run an instance-store image")


def test_paths_that_are_left_out_are_written_in_one_way(loaded: Loader) -> None:
    found = output(loaded, MACHINE + with_words("exclude: [/var/cache/apt/, //srv//./data]"))
    assert found.exclude == ("/var/cache/apt", "/srv/data")


def test_paths_that_are_left_out_anyway_are_those_that_the_agent_leaves_out() -> None:
    assert sorted(LEFT_OUT) == sorted(EMPTIED), "the agent runs alone on the instance, and cannot import the rules"


def test_a_region_has_its_own_bucket_and_certificate_and_home_has_the_outputs(loaded: Loader) -> None:
    found = output(loaded, MACHINE + with_words(WEST) + "publish: {regions: [us-west-2]}\n")
    home = bundle_region(found, "us-east-1", home="us-east-1")
    assert (home.bucket, home.ec2_certificate) == ("my-images", None)
    west = bundle_region(found, "us-west-2", home="us-east-1")
    assert (west.bucket, west.ec2_certificate) == ("my-images-west", "west.pem")
    assert bundle_region(found, "us-west-2", home="us-west-2") == west, "--region us-west-2"
    with pytest.raises(KeyError):
        bundle_region(found, "eu-west-1", home="us-east-1")


def test_a_build_elsewhere_needs_a_bucket_in_the_region_that_was_home(loaded: Loader) -> None:
    text = MACHINE + with_words(WEST) + "publish: {regions: [us-east-1, us-west-2]}\n"
    spec = loaded(HEAD + text, whole=True, files={"west.pem": ""})
    assert list(regions_without_bucket(spec.checked(), spec.document, home="us-east-1")) == []
    [(path, message)] = regions_without_bucket(spec.checked(), spec.document, home="eu-west-1")
    assert path == ("publish", "regions", 0)
    assert "{us-east-1: {bucket: …}}" in message


def test_a_prefix_that_only_the_run_can_finish_is_left_to_the_run(loaded: Loader) -> None:
    found = output(loaded, MACHINE + with_words('prefix: "web/{{ source.name }}"'))
    assert isinstance(found.prefix, Late)
    assert prefix_problem("web/debian 12") is not None


def test_the_files_of_a_spec_are_known_by_where_they_stand(loaded: Loader) -> None:
    found = output(loaded, MACHINE + with_words(WEST) + "publish: {regions: [us-west-2]}\n")
    assert bundle_files(found) == {("output", "per_region", "us-west-2", "ec2_certificate"): "west.pem"}


def test_an_encrypted_volume_still_makes_an_ebs_image_that_cannot_be_public(loaded: Loader) -> None:
    spec = loaded(
        "launch: {block_devices: [{device: /dev/xvda, encrypted: true}]}\npublish: {share: {public: true}}\n",
    )
    assert messages(spec) == ["an encrypted image cannot be public"]
