"""An instance-store image in another region: the same parts, a manifest for EC2 there, registered as it was here."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from imagepipe.bundle.manifest import Recipients, find_secret, read_manifest
from imagepipe.cloud import tags
from imagepipe.cloud.images import SourceImage
from imagepipe.cloud.tags import RunTags
from imagepipe.engine.journal import State
from imagepipe.engine.stage import Context, Ref
from imagepipe.errors import BundleError, Cancelled, CloudError
from imagepipe.late import Late
from imagepipe.publish.copy_bundle import CopyBundleToRegion
from imagepipe.values import Image, ImageText
from tests import bundled
from tests.account import Account
from tests.bundle.samples import ec2_key, recipients
from tests.local.aws import harness

THERE, WEST = "us-west-2", "bundles-west"
SOURCE = SourceImage("ami-0", "debian-12", "1", "x86_64", "hvm", "/dev/xvda", "ebs", ())
LATE = Late("{{ source.name }}/{{ region }}")
TEXT = ImageText("web-there", "a web server", {"from": "debian-12"})


def _stage(account: Account, both: Recipients | None = None) -> CopyBundleToRegion:
    account.regions[THERE].s3.make_bucket(WEST)
    return CopyBundleToRegion(
        ec2=account.regions[THERE],
        source_ec2=account.ec2,
        run_tags=RunTags("r1", "web"),
        image=Ref("image"),
        source=Ref("source"),
        text=Ref("text"),
        bucket=WEST,
        prefix=LATE,
        recipients=both or bundled.for_local_cloud(account),
    )


def _context(account: Account, image: Image) -> Context:
    return account.context(image=image, source=SOURCE, text={THERE: TEXT})


def _there(account: Account) -> list[str]:
    return bundled.keys(account, region=THERE, bucket=WEST)


@pytest.fixture
def image(account: Account) -> Image:
    return bundled.registered(account, bundled.put(account))


def test_the_copy_is_registered_as_the_image_was_and_boots_the_same_bytes(account: Account, image: Image) -> None:
    copy = _stage(account).run(_context(account, image))
    folder = "debian-12/us-west-2/r1-c1"
    assert copy == Image(copy.id, THERE, "web-there", (), bundle=f"{WEST}/{folder}/image.manifest.xml")
    assert _there(account) == [f"{folder}/{name}" for name in bundled.FILES]
    ec2 = account.cloud.client(region=THERE)
    before, found = harness.image(account.cloud.client(), image.id), harness.image(ec2, copy.id)
    same = ("Architecture", "VirtualizationType", "EnaSupport", "SriovNetSupport", "ImdsSupport", "BlockDeviceMappings")
    assert {key: found[key] for key in same} == {key: before[key] for key in same}
    assert (found["Name"], found["Description"]) == ("web-there", "a web server")
    assert tags.mapping(found["Tags"]).items() >= {"from": "debian-12", tags.STATE: tags.UNFINISHED}.items()
    started = harness.launch(ec2, ImageId=copy.id, InstanceType="m3.medium")
    harness.until(lambda: harness.state(ec2, started) == "running")
    assert account.cloud.driver.machines[started].disks[0].path.read_bytes() == bundled.BYTES


def test_both_claims_are_bound_and_the_bundle_is_cleaned_up_by_its_own(account: Account, image: Image) -> None:
    copy = _stage(account).run(_context(account, image))
    of_bundle, of_image = account.journal.claims()
    assert [(c.kind, c.state, c.id) for c in (of_bundle, of_image)] == [
        ("bundle", State.BOUND, copy.bundle),
        ("image", State.BOUND, copy.id),
    ]
    account.holdings.image(of_image)
    account.holdings.bundle(of_bundle)
    assert _there(account) == []
    assert len(bundled.keys(account)) == len(bundled.FILES), "what it was copied from stays"


def test_the_manifest_is_for_ec2_of_the_destination_and_for_the_owner(account: Account, image: Image) -> None:
    with pytest.raises(CloudError, match="InvalidManifest"):  # `recipients` has another EC2 key than this cloud
        _stage(account, recipients()).run(_context(account, image))
    document = account.regions[THERE].s3.read(WEST, _there(account)[0], limit_bytes=1 << 20)
    manifest = read_manifest(document)
    owners = find_secret(manifest, recipients().owner.private_key)
    assert find_secret(manifest, ec2_key()) == owners
    origin = read_manifest(account.s3.read(bundled.BUCKET, "web/t1/image.manifest.xml", limit_bytes=1 << 20))
    assert (manifest.parts, manifest.sha1, manifest.size) == (origin.parts, origin.sha1, origin.size)


def test_a_key_that_does_not_open_the_bundle_is_told_before_anything_is_copied(account: Account, image: Image) -> None:
    both = bundled.for_local_cloud(account)
    other = replace(both, owner=replace(both.owner, private_key=ec2_key()))
    with pytest.raises(BundleError, match="decrypt image: it is neither the owner's nor EC2's"):
        _stage(account, other).run(_context(account, image))
    assert account.journal.claims() == ()
    assert _there(account) == []


def test_a_part_that_is_gone_fails_the_copy_before_its_manifest_is_there(account: Account, image: Image) -> None:
    account.s3.delete(bundled.BUCKET, ["web/t1/image.part.01"])
    with pytest.raises(
        CloudError, match=r"copying bundles/web/t1/image\.part\.01 to bundles-west/.* NoSuchKey|NoSuchKey"
    ):
        _stage(account).run(_context(account, image))
    assert not [key for key in _there(account) if key.endswith(".xml")]
    assert [claim.state for claim in account.journal.claims()] == [State.INTENDED]


def test_a_part_that_arrives_as_another_is_told(account: Account, image: Image) -> None:
    stage = _stage(account)
    real = stage.ec2.s3.copy

    def harmed(source_bucket: str, source_key: str, bucket: str, key: str) -> None:
        real(source_bucket, source_key, bucket, key)
        if key.endswith("part.02"):
            stage.ec2.s3.put(bucket, key, b"other")

    stage.ec2.s3.copy = harmed  # type: ignore[method-assign]
    with pytest.raises(CloudError, match=r"image\.part\.02 in us-west-2: the copy is Stored\(size=5, "):
        stage.run(_context(account, image))


def test_throttling_is_got_over(account: Account, image: Image) -> None:
    account.fault("refuse", "s3:CopyObject", code="SlowDown", status=503, times=4)
    assert _stage(account).run(_context(account, image)).id


def test_a_cancel_ends_the_copying_between_two_looks_at_how_far_it_is(account: Account, image: Image) -> None:
    account.fault("delay", "s3:CopyObject", seconds=2.0, times=9)

    def cancel() -> None:
        harness.until(lambda: "0 of 3 parts are in us-west-2" in [getattr(event, "text", "") for event in account.seen])
        account.cancel.set("got SIGINT")

    threading.Thread(target=cancel).start()
    with pytest.raises(Cancelled):
        _stage(account).run(_context(account, image))
    assert not [key for key in _there(account) if key.endswith(".xml")]
    assert [claim.state for claim in account.journal.claims()] == [State.INTENDED]


def test_an_ebs_backed_image_has_no_bundle_to_copy(account: Account) -> None:
    with pytest.raises(CloudError, match="EBS-backed"):
        _stage(account).run(_context(account, Image("ami-1", "us-east-1", "web", ("snap-1",))))


def test_a_copy_that_takes_longer_than_its_timeout_says_so(account: Account, image: Image) -> None:
    account.cloud.admin("PUT", "faults", {"faults": [{"effect": "hang", "action": "RegisterImage"}]})
    with pytest.raises(
        CloudError, match=rf"waiting for ami-\w+ in {THERE} to be available: timed out after 1 s"
    ) as failed:
        replace(_stage(account), timeout_seconds=1.0).run(_context(account, image))
    assert failed.value.exit_code == 3
    slow = {"effect": "delay", "action": "s3:CopyObject", "seconds": 2.0}
    account.cloud.admin("PUT", "faults", {"faults": [slow]})
    with pytest.raises(CloudError, match=r"timed out after 0 s, with \d+ of \d+ parts copied") as failed:
        replace(_stage(account), timeout_seconds=0.0).run(_context(account, image))
    assert failed.value.hint == "set a longer publish.timeout"
