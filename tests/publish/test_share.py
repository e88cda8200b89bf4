from __future__ import annotations

import pytest

from imagepipe.cloud.devices import DeviceWanted
from imagepipe.cloud.images import Audience
from imagepipe.engine.stage import Ref
from imagepipe.errors import CloudError
from imagepipe.publish.share import CheckKeys, CheckPublic, ImageKeys, RevokeGrants, ShareImage
from imagepipe.values import Image
from tests.account import Account
from tests.local.aws import harness

OTHER = "210987654321"
ORGANIZATION = "arn:aws:organizations::123456789012:organization/o-abcdefghij"
OU = "arn:aws:organizations::123456789012:ou/o-abcdefghij/ou-ab12-34567890"


def _image(account: Account) -> Image:
    ec2 = account.cloud.client()
    snapshot = harness.snapshot_of(ec2, harness.stopped(ec2))
    return Image(harness.available(ec2, harness.register(ec2, snapshot, "mine")), "us-east-1", "mine", (snapshot,))


def _share(account: Account, image: Image, audience: Audience) -> None:
    ShareImage(account.ec2, Ref("image"), audience).run(account.context(image=image))


def test_accounts_organizations_and_units_may_launch_it(account: Account) -> None:
    image = _image(account)
    _share(account, image, Audience((OTHER,), (ORGANIZATION,), (OU,)))
    answer = account.cloud.client().describe_image_attribute(ImageId=image.id, Attribute="launchPermission")
    assert answer["LaunchPermissions"] == [
        {"UserId": OTHER},
        {"OrganizationArn": ORGANIZATION},
        {"OrganizationalUnitArn": OU},
    ]


def test_accounts_may_copy_it_too_as_they_are_let_at_its_snapshots(account: Account) -> None:
    image = _image(account)
    _share(account, image, Audience((OTHER,), (ORGANIZATION,)))
    [snapshot] = image.snapshots
    answer = account.cloud.client().describe_snapshot_attribute(SnapshotId=snapshot, Attribute="createVolumePermission")
    assert answer["CreateVolumePermissions"] == [{"UserId": OTHER}]


def test_sharing_twice_is_as_sharing_once(account: Account) -> None:
    image = _image(account)
    for _ in range(2):
        _share(account, image, Audience((OTHER,)))


def test_grants_that_are_not_in_the_audience_are_removed_from_the_image_and_its_snapshots(account: Account) -> None:
    image = _image(account)
    _share(account, image, Audience((OTHER, "333333333333"), (ORGANIZATION,), (OU,)))
    described = account.ec2.images.describe(image.id)
    stage = RevokeGrants(account.ec2, Ref("image"), Audience((OTHER,), (ORGANIZATION,)))
    assert stage.differences(described) == [
        "- 333333333333 may no longer launch it",
        f"- {OU} may no longer launch it",
        f"- 333333333333 may no longer copy {image.snapshots[0]}",
    ]
    for _ in range(2):
        stage.run(account.context(image=image))
    assert stage.differences(described) == []
    assert account.ec2.images.permissions(image.id) == [{"UserId": OTHER}, {"OrganizationArn": ORGANIZATION}]
    assert account.ec2.snapshots.permissions(image.snapshots[0]) == [{"UserId": OTHER}]


def test_a_public_image_is_private_again(account: Account) -> None:
    image = _image(account)
    account.cloud.client().disable_image_block_public_access()
    _share(account, image, Audience(public=True))
    [snapshot] = image.snapshots
    account.cloud.client().modify_snapshot_attribute(
        SnapshotId=snapshot, CreateVolumePermission={"Add": [{"Group": "all"}]}
    )
    stage = RevokeGrants(account.ec2, Ref("image"), Audience())
    assert stage.differences(account.ec2.images.describe(image.id)) == [
        "- everybody may no longer launch it",
        f"- everybody may no longer copy {snapshot}",
    ]
    stage.run(account.context(image=image))
    assert account.ec2.images.permissions(image.id) == []
    assert account.ec2.snapshots.permissions(snapshot) == []


OTHERS = Audience((OTHER,))
PUBLIC = Audience(public=True)
PLAIN = ImageKeys("us-east-1")


def _check_keys(account: Account, source: str, keys: ImageKeys, audience: Audience = OTHERS) -> None:
    regions = {region: account.regions[region] for region in ("us-east-1", "us-west-2")}
    CheckKeys(regions, Ref("source"), audience, keys).run(account.context(source=account.ec2.images.by_id(source)))


@pytest.mark.parametrize("region", ["us-east-1", "us-west-2"])
def test_a_region_that_encrypts_by_default_is_found_before_anything_is_launched(account: Account, region: str) -> None:
    # github.com/hashicorp/packer/issues/9529: after the bake, EC2 refused to share the image.
    base = harness.base_image(account.cloud.client())
    _check_keys(account, base, PLAIN)
    ec2 = account.cloud.client(region=region)
    ec2.enable_ebs_encryption_by_default()
    with pytest.raises(CloudError, match=f"alias/aws/ebs in {region}, because the account encrypts by default"):
        _check_keys(account, base, PLAIN)
    with pytest.raises(CloudError, match="an encrypted image cannot be public"):
        _check_keys(account, base, PLAIN, PUBLIC)
    key = account.cloud.client("kms", region=region).create_key()["KeyMetadata"]["Arn"]
    ec2.modify_ebs_default_kms_key_id(KmsKeyId=key)
    if region == "us-west-2":
        _check_keys(account, base, PLAIN)
    else:
        with pytest.raises(CloudError, match="alias/aws/ebs in us-west-2, because it is encrypted in us-east-1"):
            _check_keys(account, base, PLAIN)
        _check_keys(account, base, ImageKeys("us-east-1", per_region={"us-west-2": "alias/images"}))


def test_keys_of_the_spec_are_used_whatever_the_account_does_by_default(account: Account) -> None:
    base = harness.base_image(account.cloud.client())
    for region in ("us-east-1", "us-west-2"):
        account.cloud.client(region=region).enable_ebs_encryption_by_default()
    copies = {"us-west-2": "alias/images"}
    _check_keys(account, base, ImageKeys("us-east-1", encrypts=True, kms_key="alias/images", per_region=copies))
    of_root = (DeviceWanted("/dev/xvda", encrypted=True, kms_key="alias/images"),)
    _check_keys(account, base, ImageKeys("us-east-1", per_region=copies, devices=of_root))
    more = (*of_root, DeviceWanted("/dev/sdf", size_gib=8))
    with pytest.raises(CloudError, match="because the account encrypts by default"):
        _check_keys(account, base, ImageKeys("us-east-1", per_region=copies, devices=more))


def test_an_encrypted_source_of_somebody_else_takes_the_default_key(account: Account) -> None:
    other = account.cloud.client(other=True)
    key = account.cloud.client("kms", other=True).create_key()["KeyMetadata"]["Arn"]
    root = [{"DeviceName": "/dev/xvda", "Ebs": {"Encrypted": True, "KmsKeyId": key}}]
    snapshot = harness.snapshot_of(other, harness.stopped(other, BlockDeviceMappings=root))
    source = harness.available(other, harness.register(other, snapshot, "base"))
    other.modify_image_attribute(ImageId=source, LaunchPermission={"Add": [{"UserId": harness.ACCOUNT}]})
    other.modify_snapshot_attribute(SnapshotId=snapshot, CreateVolumePermission={"Add": [{"UserId": harness.ACCOUNT}]})
    with pytest.raises(CloudError, match=f"in us-east-1, because source image {source} is encrypted"):
        _check_keys(account, source, PLAIN)


def test_an_encrypted_source_of_our_own_keeps_its_key_but_its_copies_do_not(account: Account) -> None:
    ec2 = account.cloud.client()
    root = [{"DeviceName": "/dev/xvda", "Ebs": {"Encrypted": True}}]
    snapshot = harness.snapshot_of(ec2, harness.stopped(ec2, BlockDeviceMappings=root))
    source = harness.available(ec2, harness.register(ec2, snapshot, "base"))
    with pytest.raises(CloudError, match="in us-west-2, because it is encrypted in us-east-1"):
        _check_keys(account, source, PLAIN)
    _check_keys(account, source, ImageKeys("us-east-1", per_region={"us-west-2": "alias/images"}))
    with pytest.raises(CloudError, match="cannot be public"):
        _check_keys(account, source, PLAIN, PUBLIC)


def test_without_the_permission_to_ask_for_the_default_key_the_build_goes_on(account: Account) -> None:
    account.fault("refuse", "GetEbsEncryptionByDefault", code="UnauthorizedOperation", status=403)
    _check_keys(account, harness.base_image(account.cloud.client()), PLAIN)
    assert any("not checked whether the image can be shared" in str(event) for event in account.seen)


def test_public_images_are_refused_before_anything_is_launched_where_the_account_blocks_them(account: Account) -> None:
    ec2 = account.cloud.client()
    ec2.enable_image_block_public_access(ImageBlockPublicAccessState="block-new-sharing")
    with pytest.raises(CloudError, match="in us-east-1: block public access is block-new-sharing"):
        CheckPublic({"us-east-1": account.ec2}).run(account.context())
    ec2.disable_image_block_public_access()
    CheckPublic({"us-east-1": account.ec2}).run(account.context())
