"""Instance-store images: from a provisioned machine to a bundle in S3 and its registration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagepipe.bundle.manifest import Recipients
from imagepipe.capture.instance_store.preconditions import CheckBucket, CheckTypes
from imagepipe.capture.instance_store.stages import BundleRoot, RegisterBundle
from imagepipe.capture.scan.bundle import CheckBundle
from imagepipe.cloud.images import SourceImage
from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import Ref
from imagepipe.publish.copy_bundle import CopyBundleToRegion
from imagepipe.spec.bundle_rules import bundle_region
from imagepipe.spec.models import InstanceStoreOutput
from imagepipe.values import Bundle, BundlePlace, Image, ImageText, Reachable
from imagepipe.wiring.build import ImageBuild
from imagepipe.wiring.scan import gate_of


@dataclass(frozen=True, slots=True)
class BundleCapture:
    """Bundle the running machine's root, upload and register it; copy by S3 and a manifest for each region."""

    build: ImageBuild
    output: InstanceStoreOutput
    source: Ref[SourceImage]
    text: Ref[Mapping[str, ImageText]]
    place: Ref[BundlePlace]
    checks: tuple[Ref[Any], ...]

    @classmethod
    def reserve(
        cls,
        build: ImageBuild,
        output: InstanceStoreOutput,
        source: Ref[SourceImage],
        text: Ref[Mapping[str, ImageText]],
    ) -> BundleCapture:
        """Add the checks before the launch. One of them claims the bundle's place in S3.

        The place is claimed before the instance, so that undo, which works backwards, terminates the instance first.
        """
        types = build.stages.add("types", CheckTypes(build.ec2, build.spec.launch.instance_types))
        place = build.stages.add("bucket", _check_bucket(build, output, source))
        return cls(build, output, source, text, place, (types, place))

    def image(self, machine: Ref[Reachable]) -> Ref[Image]:
        add = self.build.stages.add
        return add("register", self._register(add("bundle", self._bundle(machine))))

    def _bundle(self, machine: Ref[Reachable]) -> BundleRoot:
        build, output, tools = self.build, self.output, self.build.tools
        return BundleRoot(
            ec2=build.ec2,
            connections=tools.connections,
            recipients=self._recipients(build.region),
            machine=machine,
            source=self.source,
            place=self.place,
            name=build.spec.name,
            account=output.account,
            method=output.method,
            bundle_on=output.bundle_on,
            exclude=output.exclude,
            size_gib=output.size_gib,
            is_local=tools.is_local,
            gate=gate_of(build),
            offline=tools.offline,
        )

    def _register(self, bundle: Ref[Bundle]) -> RegisterBundle:
        build, output = self.build, self.output
        return RegisterBundle(
            ec2=build.ec2,
            run_tags=build.run_tags,
            bundle=bundle,
            source=self.source,
            text=self.text,
            imds_v2=output.imds_support == "v2.0",
            virtual_names={v.device: v.virtual_name for v in output.block_devices if v.virtual_name},
            timeout_seconds=output.timeout,
        )

    def scan(self, image: Ref[Image], machine: Ref[Reachable]) -> CheckBundle | None:
        build, tools = self.build, self.build.tools
        if tools.offline is None:
            return None
        return CheckBundle(
            ec2=build.ec2,
            offline=tools.offline,
            recipients=self._recipients(build.region),
            scratch=tools.run_folder,
            image=image,
            machine=machine,
            source=self.source,
            gate=gate_of(build),
        )

    def copy(self, image: Ref[Image], region: str) -> CopyBundleToRegion:
        build, output = self.build, self.output
        return CopyBundleToRegion(
            ec2=build.everywhere[region],
            source_ec2=build.ec2,
            run_tags=build.run_tags,
            image=image,
            source=self.source,
            text=self.text,
            bucket=bundle_region(output, region, home=build.region).bucket,
            prefix=output.prefix,
            recipients=self._recipients(region),
            timeout_seconds=build.spec.publish.timeout,
        )

    def _recipients(self, region: str) -> Recipients:
        return self.build.tools.recipients(self.build.loaded, region, self.build.region)


def _check_bucket(build: ImageBuild, output: InstanceStoreOutput, source: Ref[SourceImage]) -> CheckBucket:
    buckets = {region: bundle_region(output, region, home=build.region).bucket for region in build.everywhere}
    session, is_local = build.tools.regions.session, build.tools.is_local
    return CheckBucket(build.everywhere, session, source, buckets, output.prefix, output.account, is_local=is_local)
