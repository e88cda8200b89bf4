"""Rules of EC2 and S3 for instance-store images, checked without asking them.

Sources: EC2 user guide, "Create an Amazon S3-backed AMI" and "Device names for volumes on Amazon EC2 instances"; S3
user guide, "General purpose bucket naming rules" and "Naming Amazon S3 objects"; November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from imagepipe.regular_files import is_file, missing
from imagepipe.spec.document import Document, KeyPath
from imagepipe.spec.ec2_rules import Finding
from imagepipe.spec.find import named_file
from imagepipe.spec.models import AmiByFilter, BlockDevice, BundleRegion, InstanceStoreOutput, Spec

FAMILIES = ("c1", "c3", "d2", "i2", "m1", "m2", "m3", "r3", "x1")
"""Instance families in which every type supports an instance store root; no other type does. All are Xen, x86 and BIOS.
Sources: the user guide; `SupportedRootDeviceTypes` of DescribeInstanceTypes in moto 5.2.5; November 2026."""
LARGEST_ROOT_GIB = 10
ROOT_DEVICES = ("/dev/sda1", "/dev/xvda")
"""Device names that EC2 reserves for the root; the source image decides which of the two it is."""
LONGEST_PREFIX_BYTES = 1024 - 144
"""S3's limit for a key, minus the parts after the prefix: a slash, the run's token (64 at most), a slash, the spec's
name (64 at most) and `.manifest.xml` (13)."""
LEFT_OUT = ("dev", "media", "mnt", "proc", "run", "sys", "tmp")
"""Folders of the root whose contents belong to the running machine; `method: tree` always leaves them out."""
NEEDED_TO_BOOT = frozenset(
    {"/", "/bin", "/boot", "/etc", "/lib", "/lib64", "/sbin", "/usr", "/usr/bin", "/usr/lib", "/usr/sbin"}
)
_PREFIX = re.compile(r"[A-Za-z0-9/!_.*'()-]*")
"""S3's safe characters. Others need to be URL-encoded, and readers of manifests disagree about how."""


def bundle_findings(spec: Spec, output: InstanceStoreOutput, document: Document, folder: Path) -> Iterator[Finding]:
    """Yield the problems of a spec of an instance-store image."""
    yield from _machine(spec, document)
    yield from _files(output, folder)
    yield from _prefix(output)
    yield from _buckets(spec, output)
    yield from regions_without_bucket(spec, document, home=spec.launch.region)
    yield from _method(output)
    yield from _root_size(spec, output)
    for index, device in enumerate(output.block_devices):
        if message := _mapping_problem(device):
            yield ("output", "block_devices", index), message


def bundle_warnings(output: InstanceStoreOutput) -> Iterator[Finding]:
    """Yield things that work but are probably mistakes."""
    named: list[tuple[KeyPath, str]] = [(("output", "bucket"), output.bucket)]
    named += [(("output", "per_region", region, "bucket"), entry.bucket) for region, entry in output.per_region.items()]
    for at, bucket in named:
        if "." in bucket:
            # It works: boto3 then puts the name into the path, for as long as S3 accepts such requests.
            yield at, "S3's TLS certificates do not cover bucket names with dots; dashes are safer"
    for index, path in enumerate(output.exclude):
        if (top := path.split("/")[1]) in LEFT_OUT:
            yield ("output", "exclude", index), f"/{top} is left out anyway: it belongs to the running machine"


def regions_without_bucket(spec: Spec, document: Document, *, home: str | None) -> Iterator[Finding]:
    """Yield the regions without a bucket if the spec is built in `home`. EC2 reads only bundles in its own region."""
    for index, region in enumerate(spec.publish.regions):
        # Use the document's keys: the model drops an entry that has an error, and that error is reported elsewhere.
        if region != home and ("output", "per_region", region) not in document.values:
            message = (
                "an instance-store image needs a bucket in each region: write output.per_region: "
                f"{{{region}: {{bucket: …}}}}"
            )
            yield ("publish", "regions", index), message


def _machine(spec: Spec, document: Document) -> Iterator[Finding]:
    written = ("launch", "instance_types") in document.values
    for index, instance_type in enumerate(spec.launch.instance_types):
        if instance_type.partition(".")[0] in FAMILIES:
            continue
        able = ", ".join(family.upper() for family in FAMILIES)
        message = f"{instance_type} cannot run an instance-store image: only {able} can"
        if written:
            yield ("launch", "instance_types", index), message
        else:
            yield ("output", "type"), f"{message}; set launch.instance_types: [m3.medium, c3.large]"
    ami = spec.source.ami
    if isinstance(ami, AmiByFilter) and ami.architecture == "arm64":
        message = "an instance-store image is x86: no arm64 instance type supports an instance store root"
        yield ("source", "ami", "architecture"), message
    if spec.output.boot_mode == "uefi":
        yield ("output", "boot_mode"), "the instance types that run instance-store images boot only with BIOS"


def _files(output: InstanceStoreOutput, folder: Path) -> Iterator[Finding]:
    for given, other in (("certificate", "private_key"), ("private_key", "certificate")):
        if getattr(output, given) and not getattr(output, other):
            message = f"{given} needs {other}: set both, or neither to use a pair that imagepipe creates"
            yield ("output", given), message
    for path, file in bundle_files(output).items():
        if not is_file(place := named_file(folder, file)):
            yield path, missing(place, file)


def bundle_files(output: InstanceStoreOutput) -> dict[KeyPath, str]:
    """Return the certificates and keys that the spec names, by their paths in the spec."""
    named: dict[KeyPath, str | None] = {
        ("output", "certificate"): output.certificate,
        ("output", "private_key"): output.private_key,
        ("output", "ec2_certificate"): output.ec2_certificate,
    }
    for region, entry in output.per_region.items():
        named["output", "per_region", region, "ec2_certificate"] = entry.ec2_certificate
    return {path: file for path, file in named.items() if file}


def _prefix(output: InstanceStoreOutput) -> Iterator[Finding]:
    prefix = output.prefix
    if isinstance(prefix, str) and (message := prefix_problem(prefix)):
        yield ("output", "prefix"), message


def prefix_problem(prefix: str) -> str | None:
    """Return the problem with a key prefix; None if it is valid. Also checks late prefixes, while the graph runs."""
    parts = prefix.split("/")
    if "://" in prefix:
        return "a prefix cannot have a scheme or a bucket: write web/prod, not s3://my-images/web/prod"
    if prefix and not (parts[0] and parts[-1]):
        return "a prefix cannot start or end with a slash: imagepipe adds the slashes that are needed"
    if prefix and "" in parts:
        return "a prefix cannot have two slashes in a row: tools that treat keys as paths drop the empty part"
    if any(part in (".", "..") for part in parts):
        return "a prefix cannot have . or .. as a part: clients resolve them, and then request another key"
    if not _PREFIX.fullmatch(prefix):
        bad = " ".join(map(repr, sorted({c for c in prefix if not _PREFIX.fullmatch(c)})))
        return f"a prefix can have only letters, digits and / ! - _ . * ' ( ), which S3 calls safe, not {bad}"
    if len(prefix) > LONGEST_PREFIX_BYTES:
        return f"a prefix can have at most {LONGEST_PREFIX_BYTES} bytes, not {len(prefix)}: a key has at most 1024"
    return None


def _buckets(spec: Spec, output: InstanceStoreOutput) -> Iterator[Finding]:
    home = spec.launch.region
    first = {output.bucket: home} if home else {}
    for region, entry in output.per_region.items():
        if region not in spec.publish.regions:
            yield ("output", "per_region", region), f"{region} is not in publish.regions"
        elif (other := first.setdefault(entry.bucket, region)) != region:
            message = f"{entry.bucket} is already the bucket for {other}, and a bucket is in only one region"
            yield ("output", "per_region", region, "bucket"), message


def _method(output: InstanceStoreOutput) -> Iterator[Finding]:
    if output.method == "block":
        why = "applies only to method: tree; block copies the disk as it is"
        if output.exclude:
            yield ("output", "exclude"), f"exclude {why}"
        if output.size_gib is not None:
            yield ("output", "size_gib"), f"size_gib {why}"
    for index, path in enumerate(output.exclude):
        if path in NEEDED_TO_BOOT:
            yield ("output", "exclude", index), f"an image without {path} does not boot"


def _root_size(spec: Spec, output: InstanceStoreOutput) -> Iterator[Finding]:
    if output.method == "tree" or output.size_gib is not None:
        return
    for index, volume in enumerate(spec.launch.block_devices):
        if volume.device in ROOT_DEVICES and (volume.size_gib or 0) > LARGEST_ROOT_GIB:
            message = (
                f"the root of an instance-store image has at most {LARGEST_ROOT_GIB} GiB, but {volume.device} is copied"
                f" whole: make it smaller, or set output.size_gib to make a new file system"
            )
            yield ("launch", "block_devices", index, "size_gib"), message


def _mapping_problem(device: BlockDevice) -> str | None:
    if device.device in ROOT_DEVICES:
        return f"{device.device} is the root, which is the bundle itself and cannot be mapped"
    if device.virtual_name is None:
        return "an instance-store image can map only instance store: {device: /dev/sdb, virtual_name: ephemeral0}"
    return None


def bundle_region(output: InstanceStoreOutput, region: str, *, home: str) -> BundleRegion:
    """Return the bucket for a region's bundle and the EC2 certificate that it is encrypted for.

    `home` is the region where the image is baked. Raises KeyError if the spec has no entry for the region, which
    `regions_without_bucket` reports to the user.
    """
    if region == home and region not in output.per_region:
        return BundleRegion(bucket=output.bucket, ec2_certificate=output.ec2_certificate)
    return output.per_region[region]
