from __future__ import annotations

import pytest

from imagepipe.cloud.images import Audience
from imagepipe.engine.stage import Ref
from imagepipe.errors import CloudError
from imagepipe.publish.share import CheckPublic, ShareImage
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
    ShareImage(account.ec2, Ref("image"), audience, (Ref("image"),)).run(account.context(image=image))


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


def test_public_images_are_refused_before_anything_is_launched_where_the_account_blocks_them(account: Account) -> None:
    ec2 = account.cloud.client()
    ec2.enable_image_block_public_access(ImageBlockPublicAccessState="block-new-sharing")
    with pytest.raises(CloudError, match="in us-east-1: block public access is block-new-sharing"):
        CheckPublic({"us-east-1": account.ec2}).run(account.context())
    ec2.disable_image_block_public_access()
    CheckPublic({"us-east-1": account.ec2}).run(account.context())
