"""The changing calls to EC2 of every stage, as the stages send them to the in-process cloud."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from imagepipe.capture.ebs import CaptureEbs
from imagepipe.capture.stop import Stop
from imagepipe.cloud.devices import DeviceWanted
from imagepipe.cloud.ec2 import Ec2, Regions
from imagepipe.cloud.images import Audience
from imagepipe.cloud.registration import Registration
from imagepipe.cloud.session import Access, Session
from imagepipe.cloud.tags import RunTags
from imagepipe.engine.stage import Ref
from imagepipe.errors import CloudError
from imagepipe.launch.access import MakeGroup, MakeKey
from imagepipe.launch.machine import Launch, SpotWanted
from imagepipe.publish.attribute import ImageAttribute
from imagepipe.publish.copy_ebs import CopyLimits, CopyToRegion
from imagepipe.publish.keep import Keep
from imagepipe.publish.launch_template import TemplateTarget, UpdateTemplate
from imagepipe.publish.lifetime import DeprecateImage, ProtectImage, RemoveDeprecation, RemoveProtection
from imagepipe.publish.share import RevokeGrants, ShareImage
from imagepipe.values import Image, ImageText, Sealed
from tests.account import Account
from tests.local.aws import harness
from tests.published import template

READS = ("Describe", "Get", "Head", "List")
ENDS = frozenset(
    {
        *("StopInstances", "TerminateInstances", "DeregisterImage", "DeleteSnapshot"),
        *("DisableImageDeprecation", "DisableImageDeregistrationProtection"),
    }
)
"""Actions whose only field is an id that EC2 has returned."""
RUN_TAGS = RunTags("r1", "web")
ORGANIZATION = "arn:aws:organizations::123456789012:organization/o-abcdefghij"
OU = "arn:aws:organizations::123456789012:ou/o-abcdefghij/ou-ab12-34567890"


def fields(value: Any, path: str = "") -> Iterator[str]:
    """Yield the names of all members that have a value, such as `BlockDeviceMappings.Ebs.Iops`."""
    if isinstance(value, Mapping):
        for name, member in value.items():
            yield from fields(member, f"{path}.{name}" if path else name)
    elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
        for item in value:
            yield from fields(item, path)
    else:
        yield path


def record(account: Account) -> dict[str, set[str]]:
    """Run the stages of a build with every option, and return the fields of each changing action."""
    sent: dict[str, set[str]] = {}
    access = Access(
        endpoint_url=account.cloud.endpoint,
        region="us-east-1",
        access_key_id=harness.KEY_ID,
        secret_access_key=harness.SECRET,
    )
    session = Session(access)

    def keep(params: Mapping[str, Any], model: Any, **_: Any) -> None:
        if not model.name.startswith(READS) and model.name not in ENDS:
            sent.setdefault(model.name, set()).update(fields(params))

    session._session.get_component("event_emitter").register("before-parameter-build.ec2", keep)
    _build(account, Regions(session, account.clock))
    return sent


def _build(account: Account, regions: Regions) -> None:
    here, west, client = regions["us-east-1"], regions["us-west-2"], account.cloud.client()
    client.disable_image_block_public_access()
    account.cloud.client("iam").create_instance_profile(InstanceProfileName="web")
    key = account.cloud.client("kms", "us-west-2").create_key()["KeyMetadata"]["Arn"]
    source = here.images.by_id(harness.base_image(client))
    source = replace(source, sriov_net_support="simple", boot_mode="uefi", tpm_support="v2.0", imds_support="v2.0")
    outputs: dict[str, Any] = {"source": source}
    context = account.context
    outputs["key"] = MakeKey(here, RUN_TAGS, {"team": "web"}).run(context(**outputs))
    group = MakeGroup(here, RUN_TAGS, (), 22, ("caller", "2001:db8::/64"), {"team": "web"})
    network = outputs["network"] = group.run(context(**outputs))
    subnet = client.describe_subnets()["Subnets"][0]["SubnetId"]
    snapshot = harness.snapshot_of(client, harness.stopped(client))
    devices = (
        DeviceWanted("/dev/xvda", size_gib=8, type="gp3", iops=3000, throughput=125),
        DeviceWanted("/dev/sdf", snapshot=snapshot, encrypted=True, kms_key="alias/aws/ebs", tags={"use": "data"}),
        DeviceWanted("/dev/sdg", virtual_name="ephemeral0"),
        DeviceWanted("/dev/sdh", no_device=True),
    )
    launch = Launch(
        ec2=here,
        run_tags=RUN_TAGS,
        source=Ref("source"),
        key=Ref("key"),
        network=Ref("network"),
        after=(),
        instance_types=("t3.small",),
        devices=devices,
        encrypt_root=False,
        kms_key=None,
        instance_profile="web",
        sends_host_key=True,
        user_data="#cloud-config\n{}\n",
        public_address=True,
        tags={"team": "web"},
        spot=SpotWanted("0.5", fallback=False),
    )
    profile = "arn:aws:iam::123456789012:instance-profile/web"
    with suppress(CloudError):  # this cloud has no such profile, and no device to leave out
        launch.run(context(**{**outputs, "network": replace(network, subnets=(subnet,))}))
    with suppress(CloudError):
        replace(launch, instance_profile=profile, spot=None, devices=()).run(context(**outputs))
    plain = replace(launch, instance_profile=None, spot=None, devices=devices[:2])
    made = plain.run(context(**outputs))
    harness.until(lambda: harness.state(client, made.id) == "running")
    outputs["machine"] = Stop(here, Ref("sealed")).run(context(sealed=Sealed(made)))
    text = ImageText("web-1", "of a build", {"team": "web"})
    outputs["text"] = {"us-east-1": text, "us-west-2": text}
    wanted = (
        DeviceWanted("/dev/xvda", size_gib=9, type="io2", iops=200),
        DeviceWanted("/dev/sdf", no_device=True),
        DeviceWanted("/dev/sdh", size_gib=5, type="gp3", iops=3000, throughput=200, encrypted=True, tags={"use": "x"}),
        DeviceWanted("/dev/sdi", virtual_name="ephemeral0"),
    )
    capture = CaptureEbs(
        here, RUN_TAGS, Ref("machine"), Ref("source"), Ref("text"), boot_mode="uefi", imds_v2=True, devices=wanted
    )
    outputs["image"] = capture.run(context(**outputs))
    sold = replace(source, product_codes=("abc",))
    with suppress(CloudError):  # CreateImage is used, and this cloud knows no such product
        renamed = {"us-east-1": replace(text, name="web-2")}
        replace(capture, devices=wanted[2:]).run(context(**{**outputs, "source": sold, "text": renamed}))
    copy = CopyToRegion(west, CopyLimits(), RUN_TAGS, Ref("image"), Ref("text"), kms_key=key)
    outputs["copy"] = copy.run(context(**outputs))
    for audience in (Audience(("210987654321",), (ORGANIZATION,), (OU,)), Audience(public=True)):
        with suppress(CloudError):  # an image with an encrypted volume is not public
            ShareImage(here, Ref("image"), audience).run(context(**outputs))
    _publish(here, account, outputs)
    Keep({"us-east-1": here, "us-west-2": west}, (Ref("image"), Ref("copy"))).run(context(**outputs))
    with suppress(CloudError):  # there is no such bundle
        bundle = RUN_TAGS.image("t2", ImageText("bundle", "of the root", {"team": "web"}))
        ephemeral = [{"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"}]
        described = harness.image(client, source.id)
        here.images.register_bundle(bundle, Registration.of(described), "bucket/x.manifest.xml", ephemeral)
    with suppress(CloudError):  # the variables of a machine with UEFI
        registration = replace(Registration.of(described), uefi_data="QU1aTg==", boot_mode="uefi", tpm_support="v2.0")
        here.images.register(replace(bundle, name="uefi"), registration, [])


def _publish(ec2: Ec2, account: Account, outputs: Mapping[str, Any]) -> None:
    """Run the stages that give an image its attributes, and those that take them away."""
    template(account)
    image: Ref[Image] = Ref("image")
    target = TemplateTarget(None, "web", "default", sets_default=True)
    organizations = Audience(("210987654321",), (ORGANIZATION,), (OU,))
    stages: list[ImageAttribute] = [
        ShareImage(ec2, image, organizations),
        RevokeGrants(ec2, image, Audience()),
        DeprecateImage(ec2, image, 86400.0),
        RemoveDeprecation(ec2, image),
        ProtectImage(ec2, image, has_cooldown=True),
        RemoveProtection(ec2, image),
        UpdateTemplate(ec2, image, target),
    ]
    for stage in stages:
        stage.run(account.context(**outputs))
