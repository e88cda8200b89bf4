"""Convert the options of an amazon-ebs or amazon-instance source: source image, launch, output and publish."""

from __future__ import annotations

import re
from collections.abc import Callable

from imagepipe.convert.draft import Draft, SourcePath
from imagepipe.convert.evaluate import WRITE_IT
from imagepipe.convert.options import Options
from imagepipe.convert.syntax import Place
from imagepipe.convert.values import Ami, Later, LeftOut, Value, to_string, with_defaults

OutsideAmi = Callable[[Ami, Place], Options]
"""Returns the options of a data source."""

_NEEDED_NOT = (
    *("ami_virtualization_type", "ena_support", "sriov_support", "ebs_optimized", "force_delete_snapshot"),
    *("skip_region_validation", "skip_metadata_api_check", "skip_save_build_region", "skip_profile_validation"),
    *("skip_ami_run_tags", "skip_credential_validation", "max_retries", "aws_polling", "ssh_clear_authorized_keys"),
    *("temporary_key_pair_type", "temporary_key_pair_bits", "temporary_key_pair_name", "ssh_handshake_attempts"),
    *("ssh_keep_alive_interval", "ssh_read_write_timeout", "ssh_disable_agent_forwarding", "ssh_agent_auth"),
    *("ssh_file_transfer_method", "ssh_ciphers", "ssh_key_exchange_algorithms", "ssh_wait_timeout", "ssh_pty"),
    *("shutdown_behavior", "spot_allocation_strategy", "decode_authorization_messages", "insecure_skip_tls_verify"),
    *("bundle_destination", "x509_upload_path", "spot_price_auto_product", "communicator", "type", "name"),
    *("temporary_security_group_source_public_ip", "user_data_base64_encode", "ssh_host_key_algorithms"),
)
"""Options whose purpose imagepipe fulfils without a key."""
_SESSION = ("access_key", "secret_key", "token", "profile", "region_override", "shared_credentials_file", "mfa_code")
_INSTEAD = {
    "ami_org_arns": "set publish.share.organizations",
    "ami_product_codes": "add the product code after the build",
    "assume_role": "pass it to the build: `imagepipe build --help` lists the options of the AWS session",
    "availability_zone": "name a subnet in that zone in launch.subnets",
    "block_duration_minutes": "nothing: EC2 has no such spot instances any more",
    "bundle_prefix": "set output.prefix; the bundle is named after the spec",
    "bundle_upload_command": "nothing: parts go to S3 as they are made",
    "bundle_vol_command": "set output.method and output.exclude",
    "capacity_reservation_group_arn": "launch into another account or zone",
    "capacity_reservation_id": "launch into another account or zone",
    "custom_endpoint_ec2": "pass --endpoint-url to the build",
    "disable_stop_instance": "nothing: imagepipe stops the instance before the capture",
    "enable_nitro_enclave": "choose the instance options when you launch the image",
    "enable_t2_unlimited": "choose an instance type of the family t3, which is unlimited by default",
    "enable_unlimited_credits": "choose an instance type of the family t3, which is unlimited by default",
    "fast_launch": "nothing: it is for Windows",
    "fleet_tags": "set launch.tags",
    "license_specifications": "associate the license when you launch the image",
    "pause_before_connecting": "begin `provision` with a step that waits: shell: sleep 30",
    "pause_before_ssh": "begin `provision` with a step that waits",
    "security_group_filter": "name the groups by id in launch.security_groups",
    "session_manager_port": "use SSH to a public or private address, or a bastion",
    "skip_create_ami": "run `imagepipe validate`, or `imagepipe plan`",
    "snapshot_description": "nothing: imagepipe describes the snapshots",
    "snapshot_groups": "share the image: publish.share.public",
    "snapshot_users": "share the image: publish.share.accounts; snapshots stay private",
    "spot_tags": "set launch.tags",
    "ssh_certificate_file": "use a key pair: launch.ssh.key_pair and launch.ssh.private_key",
    "ssh_password": "use a key pair: launch.ssh.key_pair and launch.ssh.private_key",
    "ssh_proxy_host": "use launch.ssh.bastion",
    "temporary_iam_instance_profile_policy_document": "create the profile, and set launch.iam_instance_profile",
    "tenancy": "create the image on shared hardware; choose the tenancy when you launch it",
    "tpm_support": "nothing: the image keeps the setting of the source image",
    "uefi_data": "nothing: the image keeps the setting of the source image",
    "vault_aws_engine": "fetch the credentials before the build, and set them in the environment",
    "vpc_filter": "name subnets of the VPC in launch.subnets",
    "vpc_id": "name subnets of the VPC in launch.subnets",
}
_FILTERS_OF_ANY_IMAGE = {
    "virtualization-type": ("hvm",),
    "root-device-type": ("ebs",),
    "state": ("available",),
    "image-type": ("machine",),
    "is-public": ("true",),
    "hypervisor": ("xen",),
    "ena-support": ("true",),
}


def convert_source(options: Options, draft: Draft, *, is_instance_store: bool, data: OutsideAmi) -> None:
    """Add the keys of a source to a spec. Raises LeftOut if it has no source image or cannot be launched by SSH."""
    communicator = options.constant("communicator")
    if communicator not in (None, "ssh"):
        instead = "imagepipe supports Linux over SSH, so keep Packer for this source"
        raise LeftOut(options.at, f"{options.owner} uses the communicator `{communicator}`", instead)
    if options.constant("ami_virtualization_type") == "paravirtual":
        options.listing.add(options.at, "paravirtual images", "use an hvm source image")
    _source(options, draft, data)
    _launch(options, draft)
    _ssh(options, draft)
    _output(options, draft)
    if is_instance_store:
        _bundle(options, draft)
    else:
        _encryption(options, draft)
    _publish(options, draft)
    for name in _SESSION:
        if options.is_set(name):
            options.leave_out(name, "has no counterpart in a spec", "set it in the AWS session, or use --profile")
        options.skip(name)
    options.skip(*_NEEDED_NOT)
    options.rest(_why)


def _why(name: str) -> tuple[str, str]:
    if name in _INSTEAD:
        return "has no counterpart", _INSTEAD[name]
    if name.startswith(("winrm", "windows")):
        return "has no counterpart", "nothing: imagepipe supports Linux over SSH"
    return "is not known", "check its name; if it is an option of Packer, see docs/reference/spec.md"


# Source image


def _source(options: Options, draft: Draft, data: OutsideAmi) -> None:
    at = options.place("source_ami")
    option = options.values.get("source_ami")
    if option is not None and isinstance(option.value, Ami):
        options.skip("source_ami")
        found = data(option.value, at)
        if option.value.kind == "amazon-parameterstore":
            name = found.text("name")
            if name is None:
                raise LeftOut(found.at, "the data source has no `name`", WRITE_IT)
            draft.put(at, {"ssm": name}, "source", "ami")
            found.skip("with_decryption", "region")
        else:
            draft.put(at, _filter(found), "source", "ami")
        return
    has_filter = "source_ami_filter" in options.values
    if option is not None and (ami := (options.text if has_filter else options.required)("source_ami")) is not None:
        options.skip("source_ami_filter")
        draft.put(at, ami, "source", "ami")
        return
    at = options.place("source_ami_filter")
    blocks = options.blocks("source_ami_filter")
    if not blocks:
        raise LeftOut(
            at, f"{options.owner} has no source image that is known now", "write source.ami, and convert again"
        )
    draft.put(at, _filter(blocks[0]), "source", "ami")


def _filter(options: Options) -> dict[str, Value] | Value:
    at = options.at
    filters = options.mapping("filters") | {
        key: value for each in options.blocks("filter") for key, value in [_pair(each)] if key
    }
    owners = options.strings("owners")
    found: dict[str, Value] = {}
    name = filters.pop("name", None)
    if (image := filters.pop("image-id", None)) is not None:
        return image
    owners += [owner for key in ("owner-id", "owner-alias") if (owner := filters.pop(key, None)) is not None]
    if name is None or not owners:
        missing = "filters.name" if name is None else "owners"
        raise LeftOut(at, f"{options.owner} has no `{missing}`", "add it to the template; imagepipe requires both")
    found["name"] = name
    found["owners"] = list(dict.fromkeys(owners)) if all(isinstance(each, str) for each in owners) else owners
    if (architecture := filters.pop("architecture", None)) is not None:
        found["architecture"] = architecture
    for key, value in filters.items():
        if value not in _FILTERS_OF_ANY_IMAGE.get(key, ()):
            options.listing.add(
                at, f"the filter `{key}`", "make the pattern in source.ami.name match those images only"
            )
    if options.flag("most_recent") is not True:
        found["most_recent"] = False
    options.skip("include_deprecated", "region", "most_recent", "filters", "assume_role", "profile")
    return found


def _pair(options: Options) -> tuple[str, Value]:
    return options.constant("key") or options.constant("name") or "", options.text("value")


# Launch


def _launch(options: Options, draft: Draft) -> None:
    put = draft.put
    at = options.place("region")
    put(at, options.text("region"), "launch", "region")
    at = options.place("instance_type")
    kind = options.required("instance_type")
    kinds = [kind] if kind is not None else []
    if not kinds:
        at = options.place("spot_instance_types")
        kinds = options.strings("spot_instance_types")
        if not kinds:
            options.listing.add(options.at, f"{options.owner} has no `instance_type`", "set launch.instance_types")
    options.skip("spot_instance_types")
    put(at, kinds, "launch", "instance_types")
    _network(options, draft)
    _spot(options, draft)
    _user_data(options, draft)
    at = options.place("iam_instance_profile")
    put(at, options.text("iam_instance_profile"), "launch", "iam_instance_profile")
    at = options.place("launch_block_device_mappings")
    devices = [_device(each) for each in options.blocks("launch_block_device_mappings")]
    put(at, [device for device in devices if device], "launch", "block_devices")
    at = options.place("run_tags")
    tags = _tags(options, "run_tags", "run_tag")
    for key, value in _tags(options, "run_volume_tags", "run_volume_tag").items():
        if tags.get(key, value) == value:
            tags[key] = value
        else:
            options.listing.add(at, f"the volume's tag `{key}` differs from the instance's", "launch.tags is for both")
    put(at, tags, "launch", "tags")
    for each in options.blocks("metadata_options"):
        if each.constant("http_endpoint") == "disabled" or each.constant("instance_metadata_tags") == "enabled":
            options.listing.add(each.at, "metadata_options", "nothing: the instance requires IMDSv2, without tags")
    for each in options.blocks("placement"):
        options.listing.add(
            each.at, "placement", "launch on shared hardware; choose the placement of the image's instances"
        )


def _network(options: Options, draft: Draft) -> None:
    at = options.place("subnet_id")
    subnet = options.text("subnet_id")
    subnets: list[Value] = [subnet] if subnet is not None else []
    if not subnets:
        for each in options.blocks("subnet_filter"):
            at = each.at
            filters = each.mapping("filters")
            filters |= {key: value for pair in each.blocks("filter") for key, value in [_pair(pair)] if key}
            tags = {key.removeprefix("tag:"): value for key, value in filters.items() if key.startswith("tag:")}
            for key in filters:
                if not key.startswith("tag:"):
                    options.listing.add(at, f"the subnet filter `{key}`", "launch.subnets takes ids or tags")
            if tags:
                subnets.append({"tags": tags})
    options.skip("subnet_filter")
    draft.put(at, subnets, "launch", "subnets")
    if subnets:
        options.skip("vpc_id", "vpc_filter", "availability_zone")
    else:
        if not options.is_set("vpc_id"):
            options.text("vpc_id")  # lists a variable that is empty by default
        if options.flag("associate_public_ip_address") and options.is_set("vpc_id"):
            options.listing.add(at, "associate_public_ip_address", "the subnet decides it")
    options.skip("associate_public_ip_address")
    at = options.place("security_group_ids" if "security_group_ids" in options.values else "security_group_id")
    groups = options.strings("security_group_ids")
    group = options.text("security_group_id")
    groups += [group] if group is not None else []
    draft.put(at, groups, "launch", "security_groups")
    name = "temporary_security_group_source_cidrs"
    at = options.place(name)
    cidrs = options.strings(name) + options.strings("temporary_security_group_source_cidr")
    if not groups:
        draft.put(at, cidrs, "launch", "ssh", "allow_from")


def _spot(options: Options, draft: Draft) -> None:
    at = options.place("spot_price")
    price = options.text("spot_price")
    if price in (None, "0"):
        return
    spot: dict[str, Value] = {"fallback": False}
    draft.put(at, spot if price == "auto" else {"max_price": price, **spot}, "launch", "spot")


def _user_data(options: Options, draft: Draft) -> None:
    at = options.place("user_data")
    text = options.text("user_data")
    if text is None:
        at = options.place("user_data_file")
        if name := options.constant("user_data_file"):
            try:
                text = options.evaluator.read(name, at)
            except LeftOut as error:
                options.listing.add_error(error)
    options.skip("user_data_file")
    draft.put(at, text, "launch", "user_data")


def _device(options: Options) -> dict[str, Value]:
    found: dict[str, Value] = {}
    device = options.text("device_name")
    if device is None:
        options.listing.add(options.at, f"{options.owner} has no `device_name`", "add it to the template")
        return {}
    found["device"] = device
    if options.flag("no_device"):
        return {"device": device, "no_device": True}
    if (virtual := options.text("virtual_name")) is not None:
        return {"device": device, "virtual_name": virtual}
    for key, name in (("size_gib", "volume_size"), ("iops", "iops"), ("throughput", "throughput")):
        value = options.number(name)
        if value not in (None, 0):
            found[key] = value
    for key, name in (("type", "volume_type"), ("kms_key", "kms_key_id"), ("snapshot", "snapshot_id")):
        if (text := options.text(name)) is not None:
            found[key] = text
    for key in ("encrypted", "delete_on_termination"):
        if (flag := options.flag(key)) is not None:
            found[key] = flag
    options.rest(
        lambda name: ("has no counterpart", f"keys of a block device: docs/reference/spec.md; leave {name} out")
    )
    order = ("device", "size_gib", "type", "iops", "throughput", "encrypted", "kms_key", "snapshot")
    return {key: found[key] for key in (*order, "delete_on_termination") if key in found}


def _tags(options: Options, mapping: str, block: str) -> dict[str, Value]:
    found = options.mapping(mapping)
    for each in options.blocks(block):
        key, value = _pair(each)
        if key:
            found[key] = "" if value is None else value
    return found


# SSH


def _ssh(options: Options, draft: Draft) -> None:
    put = draft.put
    at = options.place("ssh_username")
    user = options.required("ssh_username")
    if user is None:
        raise LeftOut(at, f"{options.owner} has no `ssh_username`", "add it to the template: imagepipe requires it")
    put(at, user, "launch", "ssh", "user")
    at = options.place("ssh_port")
    port = options.number("ssh_port")
    put(at, None if port in (0, 22) else port, "launch", "ssh", "port")
    at = options.place("ssh_interface")
    interface = options.constant("ssh_interface")
    if interface == "session_manager":
        instead = "use SSH to a public or private address, or launch.ssh.bastion"
        options.listing.add(at, "ssh_interface `session_manager`", instead)
    elif interface not in (None, "public_ip"):
        put(at, interface, "launch", "ssh", "address")
    at = options.place("ssh_keypair_name")
    pair, key = options.text("ssh_keypair_name"), options.constant("ssh_private_key_file")
    if pair is not None and key:
        path = str(options.evaluator.folders.find(key))
        put(at, pair, "launch", "ssh", "key_pair")
        put(at, SourcePath(path, key), "launch", "ssh", "private_key")
    elif pair is not None or key:
        instead = "set both launch.ssh.key_pair and launch.ssh.private_key, or neither"
        options.listing.add(at, "a key pair without its private key, or a private key without its pair", instead)
    at = options.place("ssh_timeout")
    timeout = options.constant("ssh_timeout")
    options.skip("ssh_wait_timeout")
    put(at, duration_of(timeout, at, options), "launch", "ssh", "timeout")
    if options.is_set("ssh_bastion_host"):
        instead = "set launch.ssh.bastion, with the host key that imagepipe requires"
        options.leave_out("ssh_bastion_host", "has no host key", instead)
    options.skip(*[name for name in options.values if name.startswith("ssh_bastion_")])


def duration_of(text: str | None, at: Place, options: Options) -> str | None:
    """Return a duration of Go as a spec has it; None for a missing, unreadable or zero one."""
    if text is None:
        return None
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)(?:\.\d+)?s)?|(\d+)", text.strip())
    if found is None or not text.strip():
        options.listing.add(at, f"the duration `{text}`", "write it as 90s, 5m or 2h")
        return None
    hours, minutes, seconds, number = (int(part or 0) for part in found.groups())
    if number:
        options.listing.add(at, f"the duration `{text}` has no unit", "write it as 90s, 5m or 2h")
        return None
    total = hours * 3600 + minutes * 60 + seconds
    if total == 0:
        return None
    if total % 3600 == 0:
        return f"{total // 3600}h"
    return f"{total // 60}m" if total % 60 == 0 else f"{total}s"


# Output and publish


def _output(options: Options, draft: Draft) -> None:
    put = draft.put
    at = options.place("ami_name")
    name = options.required("ami_name")
    if name is None:
        raise LeftOut(at, f"{options.owner} has no `ami_name` that is known now", "write output.name in the template")
    put(at, name, "output", "name")
    at = options.place("ami_description")
    put(at, options.text("ami_description"), "output", "description")
    at = options.place("tags")
    tags = _tags(options, "tags", "tag")
    put(at, tags, "output", "tags")
    at = options.place("snapshot_tags")
    for key, value in _tags(options, "snapshot_tags", "snapshot_tag").items():
        if tags.get(key) != value:
            what = f"the snapshots' tag `{key}`, which the image does not have"
            options.listing.add(at, what, "output.tags is for the image and its snapshots: add it there")
    at = options.place("ami_block_device_mappings")
    devices = [_device(each) for each in options.blocks("ami_block_device_mappings")]
    put(at, [device for device in devices if device], "output", "block_devices")
    at = options.place("imds_support")
    if options.constant("imds_support") != "v2.0":
        put(at, "source", "output", "imds_support")
    at = options.place("boot_mode")
    put(at, options.constant("boot_mode"), "output", "boot_mode")
    at = options.place("force_deregister")
    if options.flag("force_deregister"):
        put(at, "replace", "output", "on_name_taken")


def _encryption(options: Options, draft: Draft) -> None:
    at = options.place("encrypt_boot")
    encrypts = options.flag("encrypt_boot")
    key = options.text("kms_key_id")
    regions = options.mapping("region_kms_key_ids")
    if encrypts is None and (key is not None or regions):
        encrypts = True
    if not encrypts:
        return
    keys = {region: {"kms_key": value} for region, value in regions.items() if value != ""}
    for region, value in regions.items():
        if value == "":
            options.listing.add(
                at, f"the default key for the copy in {region}", "name a key in output.encrypt.per_region"
            )
    encrypt: dict[str, Value] = {}
    if key is not None:
        encrypt["kms_key"] = key
    if keys:
        encrypt["per_region"] = keys
    draft.put(at, encrypt or True, "output", "encrypt")


def _bundle(options: Options, draft: Draft) -> None:
    put = draft.put
    put(options.at, "instance-store", "output", "type")
    at = options.place("s3_bucket")
    bucket = options.required("s3_bucket")
    if isinstance(bucket, str) and "/" in bucket:
        bucket, _, prefix = bucket.partition("/")
        put(at, prefix.strip("/") or None, "output", "prefix")
    put(at, bucket, "output", "bucket")
    at = options.place("account_id")
    account = options.required("account_id")
    put(at, account.replace("-", "") if isinstance(account, str) else account, "output", "account")
    for name, key in (("x509_cert_path", "certificate"), ("x509_key_path", "private_key")):
        at = options.place(name)
        if path := options.constant(name):
            put(at, SourcePath(str(options.evaluator.folders.find(path)), path), "output", key)


def _publish(options: Options, draft: Draft) -> None:
    put = draft.put
    at = options.place("ami_regions")
    put(at, _distinct(options.strings("ami_regions")), "publish", "regions")
    for name, key in (("ami_users", "accounts"), ("ami_org_arns", "organizations"), ("ami_ou_arns", "ous")):
        at = options.place(name)
        put(at, options.strings(name), "publish", "share", key)
    at = options.place("ami_groups")
    for group in options.strings("ami_groups"):
        if with_defaults(group) == "all":
            put(at, True, "publish", "share", "public")
        else:
            options.listing.add(
                at, f"the group `{to_string(with_defaults(group))}`", "only `all` exists: publish.share.public"
            )
    at = options.place("deprecate_at")
    value = options.raw("deprecate_at")
    if isinstance(value, Later):
        days, rest = divmod(value.seconds, 86400)
        put(at, f"{days}d" if not rest else f"{value.seconds}s", "publish", "deprecate_after")
    elif with_defaults(value) not in (None, ""):
        options.listing.add(at, "deprecate_at is a date", "set publish.deprecate_after, a duration: 90d")
    for each in options.blocks("deregistration_protection"):
        if each.flag("enabled"):
            cooldown = each.flag("with_cooldown")
            put(each.at, {"cooldown": True} if cooldown else True, "publish", "deregistration_protection")


def _distinct(items: list[Value]) -> list[Value]:
    return [item for index, item in enumerate(items) if item not in items[:index]]
