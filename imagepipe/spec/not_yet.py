"""What the language has and `build` cannot do yet: refused before anything is launched, with where it stands."""

from __future__ import annotations

from collections.abc import Iterator

from imagepipe.errors import Problem
from imagepipe.spec.document import Path
from imagepipe.spec.load import LoadedSpec
from imagepipe.spec.models import AmiBySsm, InstanceStoreOutput, Spec, SubnetsByTags


def not_yet(one: LoadedSpec, *, severity: str = "error") -> list[Problem]:
    """One problem for everything in a spec that this version cannot build."""
    if one.spec is None:
        return []
    return [
        one.document.problem(
            path, f"{what}: not yet; this version of imagepipe checks it but cannot build it", severity=severity
        )
        for path, what in _found(one.spec)
    ]


def _found(spec: Spec) -> Iterator[tuple[Path, str]]:
    launch, ssh, output, publish = spec.launch, spec.launch.ssh, spec.output, spec.publish
    if spec.source.image is not None:
        yield ("source", "image"), "an image that another spec bakes"
    if isinstance(spec.source.ami, AmiBySsm):
        yield ("source", "ami", "ssm"), "a source image from an SSM parameter"
    for index, subnet in enumerate(launch.subnets):
        if isinstance(subnet, SubnetsByTags):
            yield ("launch", "subnets", index), "subnets by tags"
    if launch.spot is not None:
        yield ("launch", "spot"), "spot instances"
    if launch.user_data is not None and ssh.host_key == "user-data":
        yield ("launch", "user_data"), "user data of your own beside host_key: user-data"
    if ssh.host_key == "console":
        yield ("launch", "ssh", "host_key"), "reading the host key from the console"
    if ssh.bastion is not None:
        yield ("launch", "ssh", "bastion"), "a bastion"
    for index, volume in enumerate(launch.volumes):
        if volume.tags:
            yield ("launch", "volumes", index, "tags"), "tags of one volume"
    if spec.test:
        yield ("test",), "the test stage"
    if isinstance(output, InstanceStoreOutput):
        yield ("output", "type"), "instance-store images"
    elif output.encrypt is not None and output.encrypt.per_region:
        yield ("output", "encrypt", "per_region"), "a KMS key for each region"
    if output.block_devices:
        yield ("output", "block_devices"), "block devices other than what was captured"
    if output.on_name_taken == "replace":
        yield ("output", "on_name_taken"), "replacing an image"
    share = publish.share
    if share.accounts or share.organizations or share.ous or share.public:
        yield ("publish", "share"), "launch permissions"
    if publish.ssm_parameter is not None:
        yield ("publish", "ssm_parameter"), "writing an SSM parameter"
    if publish.deprecate_after is not None:
        yield ("publish", "deprecate_after"), "deprecation"
    if publish.keep is not None:
        yield ("publish", "keep"), "retiring old images"
    if spec.hygiene.allow:
        yield ("hygiene", "allow"), "exceptions from the hygiene gate, which is not there yet"
