"""Checks that the models cannot make: files, options that exclude one another, and EC2's rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imagepipe.errors import Problem
from imagepipe.partitions import partition
from imagepipe.regular_files import is_file, missing
from imagepipe.spec.base import CommonOptions
from imagepipe.spec.bundle_rules import bundle_findings, bundle_warnings
from imagepipe.spec.document import Document, KeyPath
from imagepipe.spec.ec2_rules import (
    Finding,
    architecture_findings,
    block_device_findings,
    image_device_findings,
    region_finding,
    size_findings,
    tag_findings,
)
from imagepipe.spec.explain import did_you_mean, nearest, value_at
from imagepipe.spec.find import named_file
from imagepipe.spec.keys import parse_key
from imagepipe.spec.models import AmiByFilter, AmiBySsm, EbsOutput, Encrypt, InstanceStoreOutput, Project, Spec, Ssh
from imagepipe.spec.publish_rules import publish_findings, publish_warnings
from imagepipe.spec.scalars import description_problem, image_name_problem
from imagepipe.spec.user_data import user_data_problem

if TYPE_CHECKING:
    from imagepipe.spec.loaded import LoadedSpec

USUAL_USERS = (
    "admin (Debian), ec2-user (Amazon Linux, RHEL, SUSE), ubuntu (Ubuntu), rocky (Rocky Linux), fedora (Fedora)"
)
"""EC2 user guide, "Connect to your Linux instance using SSH", section on default user names."""
DEFAULT_USER = "defaults: {ssh_user: …} in imagepipe.yaml sets it for every spec"


def check_spec(spec: Spec, document: Document, file: Path, project: Project) -> list[Problem]:
    """Return the problems of a spec on its own."""
    findings = [
        *_source(spec),
        *_launch(spec, file.parent),
        *_ownership(spec),
        *_output(spec, document, file.parent),
        *publish_findings(spec, document),
        *_sharing(spec),
        *_retention(spec),
        *_partitions(spec),
    ]
    if not project.allow_unknown_region:
        findings += _regions(spec)
    missing = () if spec.launch.ssh.user or _misspells_user(document) else (_missing_user(document),)
    warnings = [*publish_warnings(spec)]
    if isinstance(spec.output, InstanceStoreOutput):
        warnings += bundle_warnings(spec.output)
    return [
        *missing,
        *(document.problem(path, message) for path, message in findings),
        *(document.problem(path, message, severity="warning") for path, message in warnings),
    ]


def _missing_user(document: Document) -> Problem:
    message = "key 'user' is required: the user to log in as, which depends on the source image"
    return document.problem(("launch", "ssh", "user"), message, hint=f"usual users: {USUAL_USERS}; {DEFAULT_USER}")


def _misspells_user(document: Document) -> bool:
    """Return whether a key of `launch.ssh` is a misspelt `user`. The misspelling is reported as an unknown key."""
    ssh = value_at(document.value, ("launch", "ssh"))
    return isinstance(ssh, dict) and any(key not in Ssh.model_fields and nearest(key, ["user"]) for key in ssh)


def _source(spec: Spec) -> Iterator[Finding]:
    if (spec.source.ami is None) == (spec.source.image is None):
        yield ("source",), "exactly one of ami and image is needed"
    if isinstance(spec.source.ami, AmiBySsm):
        home, where = spec.launch.region, _region_of(spec.source.ami.ssm)
        if home and where not in (None, home) and _partition_of(spec.source.ami.ssm) == partition(home):
            yield ("source", "ami", "ssm"), f"the parameter is in {where}, but launch.region is {home}"


def _launch(spec: Spec, folder: Path) -> Iterator[Finding]:
    launch, ssh = spec.launch, spec.launch.ssh
    ami = spec.source.ami
    if isinstance(ami, AmiByFilter) and ami.architecture:
        are_default = "instance_types" not in launch.model_fields_set
        yield from architecture_findings(ami.architecture, launch.instance_types, are_default=are_default)
    yield from size_findings(launch.instance_types)
    yield from block_device_findings(launch.block_devices, ("launch", "block_devices"), tags=launch.tags)
    yield from tag_findings(launch.tags, ("launch", "tags"))
    if launch.region:
        yield from key_region_findings(spec, launch.region)
    if ssh.key_pair and not ssh.private_key:
        yield ("launch", "ssh", "key_pair"), "key_pair also needs private_key, the path of its private key"
    if ssh.private_key and not ssh.key_pair:
        yield ("launch", "ssh", "private_key"), "private_key needs key_pair, the key pair's name in EC2"
    if ssh.private_key and not is_file(key := named_file(folder, ssh.private_key)):
        yield ("launch", "ssh", "private_key"), missing(key, ssh.private_key)
    if ssh.bastion and not is_file(key := named_file(folder, ssh.bastion.private_key)):
        yield ("launch", "ssh", "bastion", "private_key"), missing(key, ssh.bastion.private_key)
    if ssh.bastion and not launch.security_groups and "allow_from" not in ssh.model_fields_set:
        message = "the instance sees the bastion's address, not this computer's: set allow_from or security_groups"
        yield ("launch", "ssh", "bastion"), message
    if not launch.security_groups and not ssh.bastion:
        yield from _address_family(ssh)
    gives_host_key = ssh.host_key == "user-data"
    if launch.user_data and (problem := user_data_problem(launch.user_data, gives_host_key=gives_host_key)):
        yield ("launch", "user_data"), problem
    if launch.security_groups and "allow_from" in ssh.model_fields_set:
        message = "allow_from applies only to the temporary group, which security_groups replaces"
        yield ("launch", "ssh", "allow_from"), message


def _address_family(ssh: Ssh) -> Iterator[Finding]:
    """Report a temporary security group that admits no address of the kind that SSH connects from."""
    cidrs = [cidr for cidr in ssh.allow_from if cidr != "caller"]
    if ssh.address == "ipv6" and not any(":" in cidr for cidr in cidrs):
        message = "the instance is reached by IPv6, but allow_from admits only IPv4 addresses: add an IPv6 CIDR"
        yield ("launch", "ssh", "allow_from" if cidrs else "address"), message
    elif ssh.address != "ipv6" and cidrs == list(ssh.allow_from) and all(":" in cidr for cidr in cidrs):
        message = "the instance is reached by IPv4, but allow_from admits only IPv6 addresses: set address: ipv6"
        yield ("launch", "ssh", "allow_from"), message


def _ownership(spec: Spec) -> Iterator[Finding]:
    if spec.launch.ssh.user == "root":
        return
    for key, steps in (("provision", spec.provision), ("test", spec.test)):
        for index, step in enumerate(steps):
            copied = getattr(step, "file", None) or getattr(step, "template", None)
            if copied is not None and copied.owner and not _has_sudo(step, spec):
                kind = "file" if hasattr(step, "file") else "template"
                yield (
                    (key, index, kind, "owner"),
                    f"{spec.launch.ssh.user or 'the user'} cannot change the owner of a file; set sudo: true",
                )


def _has_sudo(step: CommonOptions, spec: Spec) -> bool:
    return spec.launch.ssh.sudo if step.sudo is None else step.sudo


def _output(spec: Spec, document: Document, folder: Path) -> Iterator[Finding]:
    output = spec.output
    if isinstance(output.name, str) and (message := image_name_problem(output.name)):
        yield ("output", "name"), message
    if isinstance(output.description, str) and (message := description_problem(output.description)):
        yield ("output", "description"), message
    yield from tag_findings(output.tags, ("output", "tags"))
    yield from block_device_findings(output.block_devices, ("output", "block_devices"), tags=output.tags)
    yield from image_device_findings(output.block_devices, ("output", "block_devices"))
    if isinstance(output, InstanceStoreOutput):
        yield from bundle_findings(spec, output, document, folder)
    elif output.encrypt:
        yield from _keys(output.encrypt, spec)


def _keys(encrypt: Encrypt, spec: Spec) -> Iterator[Finding]:
    """Check the regions of KMS keys, which EC2 would check only when it makes the copy."""
    for region, wanted in encrypt.per_region.items():
        at = ("output", "encrypt", "per_region", region)
        if region not in spec.publish.regions:
            yield at, f"{region} is not in publish.regions"
        elif (where := _region_of(wanted.kms_key)) not in (None, region):
            yield (*at, "kms_key"), f"the key is in {where}, but the copy in {region} needs a key in that region"


def key_region_findings(spec: Spec, home: str) -> Iterator[Finding]:
    """Yield the KMS keys that are used at the launch, but are not in the launch region `home`."""
    named: list[tuple[KeyPath, str | None]] = [
        (("launch", "block_devices", index, "kms_key"), volume.kms_key)
        for index, volume in enumerate(spec.launch.block_devices)
    ]
    if isinstance(spec.output, EbsOutput) and spec.output.encrypt:
        named.append((("output", "encrypt", "kms_key"), spec.output.encrypt.kms_key))
    for path, key in named:
        where = _region_of(key) if key else None
        if where not in (None, home):
            yield path, f"the key is in {where}, but launch.region is {home}"


def _region_of(name: str) -> str | None:
    """Return the region of an ARN; None for a plain name, which is looked up in each region."""
    return name.split(":")[3] if name.startswith("arn:") else None


def _partition_of(name: str) -> str | None:
    return name.split(":")[1] if name.startswith("arn:") else None


def _retention(spec: Spec) -> Iterator[Finding]:
    """Report a retention that has no condition, and would retire every image but the last."""
    if spec.retention and spec.retention.newest is None and spec.retention.max_age is None:
        yield ("retention",), "newest or max_age is needed: retention: {newest: 5, max_age: 90d}"


def _partitions(spec: Spec) -> Iterator[Finding]:
    """Report regions and ARNs of another partition, where neither the account nor the image exists.

    CopyImage does not cross partitions (EC2 user guide, "Copy an Amazon EC2 AMI": only store and restore does).
    """
    home = spec.launch.region
    if home is None:
        return
    own = partition(home)
    for index, region in enumerate(spec.publish.regions):
        if (other := partition(region)) != own:
            message = f"{region} is in the partition {other} and {home} in {own}: an image cannot be copied there"
            yield ("publish", "regions", index), message
    named: list[tuple[KeyPath, str | None]] = [(("launch", "iam_instance_profile"), spec.launch.iam_instance_profile)]
    if isinstance(spec.source.ami, AmiBySsm):
        named.append((("source", "ami", "ssm"), spec.source.ami.ssm))
    share = spec.publish.share
    for key, arns in (("organizations", share.organizations), ("ous", share.ous)):
        named += [(("publish", "share", key, index), arn) for index, arn in enumerate(arns)]
    for path, arn in named:
        if arn is not None and _partition_of(arn) not in (None, own):
            yield path, f"the ARN is of the partition {_partition_of(arn)}, but launch.region {home} is in {own}"


def _sharing(spec: Spec) -> Iterator[Finding]:
    output, share = spec.output, spec.publish.share
    # A captured image is encrypted if its volume was. A bundle is encrypted for EC2 in any case.
    encrypted = isinstance(output, EbsOutput) and (
        output.encrypt is not None or any(v.encrypted for v in spec.launch.block_devices)
    )
    if encrypted and share.public:
        yield ("publish", "share", "public"), "an encrypted image cannot be public"
    if encrypted and (share.accounts or share.organizations or share.ous):
        yield from _keys_for_sharing(spec)
        yield from _managed_keys(spec)


def _keys_for_sharing(spec: Spec) -> Iterator[Finding]:
    output = spec.output
    keys = output.encrypt if isinstance(output, EbsOutput) else None
    own = {v.kms_key for v in spec.launch.block_devices if v.encrypted}
    if (keys is None or not keys.kms_key) and None in (own or {None}):
        message = "sharing an encrypted image needs output.encrypt.kms_key: the account's default key cannot be shared"
        yield ("publish", "share"), message
    for region in spec.publish.regions:
        if region != spec.launch.region and (keys is None or region not in keys.per_region):
            message = f"sharing an encrypted image needs your own KMS key in {region}: set output.encrypt.per_region"
            yield ("publish", "share"), message


def _managed_keys(spec: Spec) -> Iterator[Finding]:
    """Report keys that AWS manages: their policies cannot be changed, so nobody else can use a shared image."""
    keys = spec.output.encrypt if isinstance(spec.output, EbsOutput) else None
    named: list[tuple[KeyPath, str | None]] = [
        (("launch", "block_devices", index, "kms_key"), device.kms_key)
        for index, device in enumerate(spec.launch.block_devices)
    ]
    if keys is not None:
        named.append((("output", "encrypt", "kms_key"), keys.kms_key))
        named += [
            (("output", "encrypt", "per_region", region, "kms_key"), wanted.kms_key)
            for region, wanted in keys.per_region.items()
        ]
    for path, key in named:
        if key is not None and key.rpartition(":")[2].startswith("alias/aws/"):
            yield path, f"{key} is a key that AWS manages, and an image encrypted with it cannot be shared"


def _regions(spec: Spec) -> Iterator[Finding]:
    if spec.launch.region is not None:
        yield from region_finding(spec.launch.region, ("launch", "region"))
    for index, region in enumerate(spec.publish.regions):
        yield from region_finding(region, ("publish", "regions", index))
    for index, template in enumerate(spec.publish.launch_templates):
        if template.region is not None:
            yield from region_finding(template.region, ("publish", "launch_templates", index, "region"))


def check_together(loaded: Sequence[LoadedSpec]) -> None:
    """Find the base of each spec among the others, and add the problems of specs that are built together.

    These are names that are used twice, bases that no spec bakes, and cycles.
    """
    documents: dict[str, LoadedSpec] = {}
    for each in loaded:
        if _raw(each, "name") is None:
            continue
        first = documents.setdefault(each.key.name, each)
        if first.document is not each.document:
            where = f"{first.document.file}:{first.document.mark(('name',)).line}"
            message = f"another spec has the name '{each.key.name}': {where}"
            each.problems.append(each.problem(("name",), message))
    for each in loaded:
        if each.base is not None:
            _find_base(each, loaded, documents)
    for circle in _circles(loaded):
        names = [str(each.key) for each in circle]
        places = ", ".join(f"{name} at {_place(each)}" for name, each in zip(names, circle, strict=True))
        for each in circle:
            message = f"images that are built on one another in a cycle: {' -> '.join((*names, names[0]))} ({places})"
            each.problems.append(each.problem(("source", "image"), message))
    for each in loaded:
        if any(problem.severity == "error" for problem in each.problems):
            each.spec = None


def _find_base(layer: LoadedSpec, loaded: Sequence[LoadedSpec], names: Mapping[str, LoadedSpec]) -> None:
    """Set the base of a spec, or add the reason why none was found."""
    key = parse_key(layer.base or "")
    if key is None:
        return  # the model reports it
    found = [each for each in loaded if key.covers(each.key)]
    if len({id(each.document) for each in found}) > 1:
        return  # reported as a name that is used twice
    if len(found) == 1:
        layer.base_spec = found[0]
        return
    hint = ""
    if found:
        listed = ", ".join(str(each.key) for each in found[:5]) + (", …" if len(found) > 5 else "")
        message = f"'{key}' has {len(found)} variants"
        hint = f"name one of them: {listed}"
    elif key.name in names:
        keys = [str(each.key) for each in loaded if each.key.name == key.name]
        message = f"spec '{key.name}' has no variant '{key}'{did_you_mean(str(key), keys)}"
        hint = f"its variants are {', '.join(keys[:5])}" + (", …" if len(keys) > 5 else "")
    else:
        message = f"no spec has the name '{key.name}'{did_you_mean(key.name, names)}"
        hint = "it was searched among the specs given, beside this one and in specs/"
    layer.problems.append(layer.problem(("source", "image"), message, hint=hint))


def _circles(loaded: Sequence[LoadedSpec]) -> Iterator[tuple[LoadedSpec, ...]]:
    """Yield every cycle once. An image has one base, so a walk along the bases meets at most one cycle."""
    walked: set[int] = set()
    for start in loaded:
        walk: dict[int, LoadedSpec] = {}
        each: LoadedSpec | None = start
        while each is not None and id(each) not in walked and id(each) not in walk:
            walk[id(each)] = each
            each = each.base_spec
        if each is not None and id(each) in walk:
            specs = list(walk.values())
            yield tuple(specs[list(walk).index(id(each)) :])
        walked |= walk.keys()


def _place(loaded: LoadedSpec) -> str:
    mark = loaded.document.mark(("source", "image"))
    return f"{loaded.document.file}:{mark.line}:{mark.column}"


def _raw(loaded: LoadedSpec, *keys: str) -> str | None:
    """Return a string of the document, even if other parts of it are invalid."""
    value = loaded.document.value
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None
