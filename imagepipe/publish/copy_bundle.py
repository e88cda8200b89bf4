"""Copy an instance-store image to another region: copy the parts, write a manifest for EC2 there, register it.

CopyImage can do this too, but it copies into a bucket of Amazon's that nobody can see or clean up. The parts are
encrypted with one key for all regions. A manifest seals that key for EC2 of one region, so each region needs its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import field

from imagepipe import render
from imagepipe.bundle.manifest import Recipients, addressed, find_secret, write_manifest
from imagepipe.clock import Deadline
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import SourceImage, late_names
from imagepipe.cloud.registration import Registration
from imagepipe.cloud.s3 import folder_of
from imagepipe.cloud.tags import RunTags
from imagepipe.dataclass import dataclass
from imagepipe.engine.journal import Claim, Lifetime
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import CloudError
from imagepipe.late import Text
from imagepipe.publish import stored_bundle
from imagepipe.publish.stored_bundle import InBucket
from imagepipe.values import Bundle, Image, ImageText

AT_ONCE = 16
"""Number of parts copied at once. S3 does the copying and we only wait; 1,025 parts take 65 rounds."""
TICK_SECONDS = 0.5


@dataclass(frozen=True)
class CopyBundleToRegion(Stage[Image]):
    """Copy the bundle into a bucket of the region, register it there and wait until the image is available."""

    ec2: Ec2 = field(repr=False, compare=False)
    """EC2 of the destination region."""
    source_ec2: Ec2 = field(repr=False, compare=False)
    """EC2 of the region that has the image."""
    run_tags: RunTags = field(repr=False, compare=False)
    image: Ref[Image]
    source: Ref[SourceImage]
    text: Ref[Mapping[str, ImageText]]
    bucket: str
    """Bucket in the destination region."""
    prefix: Text
    recipients: Recipients = field(repr=False, compare=False)
    """The owner, who signs the manifest, and EC2 of the destination region, which can open it."""
    timeout_seconds: float = 43200.0

    def run(self, ctx: Context) -> Image:
        deadline = ctx.deadline(self.timeout_seconds)
        image = ctx[self.image]
        if image.bundle is None:
            raise CloudError(f"{image.id} in {image.region} is EBS-backed, so it has no bundle to copy")
        machine = self.source_ec2.images.describe(image.id)
        origin = stored_bundle.look_up(self.source_ec2.s3, image.bundle)
        bundle = self._copied(ctx, origin, deadline)
        text = ctx[self.text][self.ec2.region]

        def register(claim: Claim) -> str:
            new = self.run_tags.image(claim.token, text)
            mappings = machine.get("BlockDeviceMappings", ())
            return self.ec2.images.register_bundle(new, Registration.of(machine), bundle.location, mappings)

        find = self.ec2.images.first_of_token
        claim = ctx.make("image", self.ec2.region, lifetime=Lifetime.PRODUCT, create=register, find=find)
        id = str(claim.id)
        self.ec2.await_image(id, deadline=deadline, cancel=ctx.cancel)
        return Image(id, self.ec2.region, text.name, (), bundle=bundle.location)

    def _copied(self, ctx: Context, origin: InBucket, deadline: Deadline) -> Bundle:
        """Copy the bundle into this region, its manifest last."""
        owner, manifest = self.recipients.owner, origin.manifest
        # Write the manifest before the copies: a wrong private key must fail now, not after hours of copying.
        here = addressed(manifest, find_secret(manifest, owner.private_key), self.recipients)
        document = write_manifest(here, owner.private_key)
        prefix = render.render_late(self.prefix, late_names(ctx[self.source], self.ec2.region))
        details = {"bucket": self.bucket, "prefix": prefix}
        claim = ctx.intend("bundle", self.ec2.region, lifetime=Lifetime.PRODUCT, details=details)
        folder = folder_of(prefix, claim.token)
        bundle = Bundle(self.ec2.region, self.bucket, folder, manifest.name, manifest.architecture)
        if claim.id is not None:  # an earlier process finished, because the manifest is put last
            return bundle
        with ctx.span("bytes"):
            self._copy_parts(ctx, origin, bundle, deadline)
        self.ec2.s3.put(self.bucket, bundle.manifest_key, document)
        ctx.bind(claim, bundle.location)
        return bundle

    def _copy_parts(self, ctx: Context, origin: InBucket, bundle: Bundle, deadline: Deadline) -> None:
        """Copy all parts. A failure or a cancel ends it as soon as the copies in progress have ended."""
        parts = origin.manifest.parts
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="copy")
        try:
            begun = {pool.submit(self._copy_part, origin, part.filename, bundle) for part in parts}
            left: set[Future[None]] = begun
            while left:
                done, left = wait(left, timeout=TICK_SECONDS, return_when=FIRST_EXCEPTION)
                for each in done:
                    each.result()
                ctx.cancel.check()
                count = len(begun) - len(left)
                ctx.progress(f"{count} of {len(begun)} parts are in {self.ec2.region}", count / len(begun))
                if left and deadline.is_past():
                    raise CloudError(
                        f"copying {bundle.location} to {self.ec2.region}: timed out after {deadline.seconds:g} s, with"
                        f" {count} of {len(begun)} parts copied",
                        hint="set a longer publish.timeout",
                    )
        finally:
            pool.shutdown(cancel_futures=True)

    def _copy_part(self, origin: InBucket, filename: str, bundle: Bundle) -> None:
        """Copy one part and verify it; a part that is already there is not copied again."""
        source, key = origin.key(filename), f"{bundle.folder}/{filename}"
        sent, arrived = self.source_ec2.s3.stored(origin.bucket, source), self.ec2.s3.stored(bundle.bucket, key)
        if arrived is None or arrived != sent:
            self.ec2.s3.copy(origin.bucket, source, bundle.bucket, key)
            arrived = self.ec2.s3.stored(bundle.bucket, key)
        if arrived is None or arrived != sent:
            raise CloudError(
                f"copying {origin.bucket}/{source} to {bundle.bucket}/{key} in {self.ec2.region}: the copy is"
                f" {arrived or 'missing'}, the original is {sent or 'missing'}",
                hint="does the bucket encrypt with KMS, or does somebody else write to it?",
            )

    def title(self) -> str:
        return f"copy the bundle to {self.ec2.region}"

    def summary(self, output: Image) -> str:
        return f"{output.id} in {output.region}"
