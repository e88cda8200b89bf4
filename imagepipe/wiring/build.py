"""One image build: a spec, the regions that get its image, and its section of the graph. Its methods make stages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any, TypeVar, assert_never

from imagepipe.cloud.devices import DeviceWanted
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import Audience, ImageFilter, SourceImage
from imagepipe.cloud.tags import RunTags
from imagepipe.dataclass import dataclass
from imagepipe.engine.graph import Graph
from imagepipe.engine.stage import Ref, Stage
from imagepipe.inputs.collect import collect_inputs
from imagepipe.late import Late
from imagepipe.launch.access import Key, MakeGroup, MakeKey, Network, UseGroups, UseKey
from imagepipe.launch.connect import AwaitSsh
from imagepipe.launch.devices import DevicePlan
from imagepipe.launch.machine import Launch, SpotWanted
from imagepipe.launch.record_inputs import RecordInputs
from imagepipe.launch.source import BySsm, CheckNames, FindBase, FindSource, NameImages, Newest
from imagepipe.publish.keep import Keep
from imagepipe.publish.parameter import CheckParameter, ImageParameter
from imagepipe.publish.share import CheckKeys, CheckPublic, ImageKeys
from imagepipe.spec.find import named_file
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import AmiByFilter, AmiById, AmiBySsm, BlockDevice, EbsOutput, Encrypt, Spec
from imagepipe.values import Endpoint, Image, ImageText, Instance
from imagepipe.wiring.tools import Tools

if TYPE_CHECKING:
    from imagepipe.publish.launch_template import TemplateTarget

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Section:
    """The part of a graph that belongs to one spec. All its stage names begin with one prefix."""

    graph: Graph
    prefix: str
    names: list[str] = field(default_factory=list)
    """Stages of the section, in the order in which they were added."""
    whole: Section | None = None
    """The section that this one is a part of."""

    def add(self, name: str, stage: Stage[T]) -> Ref[T]:
        """Add a stage under the section's prefix. Raises ValueError as `Graph.add` does."""
        ref = self.graph.add(f"{self.prefix}{name}", stage)
        self.names.append(ref.stage)
        if self.whole is not None:
            self.whole.names.append(ref.stage)
        return ref


@dataclass(frozen=True, slots=True)
class BestEffort:
    """The stages of a region that may fail alone."""

    source: Ref[Image]
    """The image that is copied or published there; its stage belongs to the spec itself."""
    image: Ref[Image]
    """The image in the region, once everything about it is done."""
    stages: frozenset[str]


@dataclass(frozen=True, slots=True)
class Baked:
    """References to a spec's images in the outcome of a run."""

    spec: str
    """Key of the spec."""
    images: Ref[tuple[Image, ...]]
    kept: Ref[tuple[Image, ...]]
    """The images once they are kept, even if a later stage fails; often the same as `images`."""
    tests: tuple[str, ...]
    """The stages that test the image, the boot of the test instance first."""
    stages: frozenset[str]
    """All stages of the spec."""
    best_effort: Mapping[str, BestEffort] = field(default_factory=dict)
    """The regions that may fail alone."""
    tested: Mapping[str, Ref[Image]] = field(default_factory=dict)
    """The tested image by region. A layer starts as soon as the one in its launch region is there."""
    base: Ref[Image] | None = None
    """The image of the base in the launch region; None if the source is no spec's image."""
    is_unchanged: bool = False
    """True if nothing is baked, because an image with the same inputs exists."""


@dataclass(frozen=True, slots=True)
class ImageBuild:
    """The inputs of all stages of one spec."""

    loaded: LoadedSpec
    tools: Tools
    stages: Section
    ec2: Ec2
    """EC2 in the launch region."""
    everywhere: Mapping[str, Ec2]
    """EC2 by region: the launch region, then each region that gets a copy."""
    parts: Mapping[str, Section]
    """The section of each region that may fail alone, in which its stages are."""
    run_tags: RunTags
    base: Ref[Image] | None = None
    """The image of the spec that this one is built on, in the launch region."""
    base_kept: Ref[tuple[Image, ...]] | None = None
    """All images of that spec, once they are kept."""
    expected_source: str | None = None
    """Id of the source image that a plan expects."""

    @classmethod
    def of(
        cls, loaded: LoadedSpec, tools: Tools, stages: Section, *, region: str, base: Baked | None = None
    ) -> ImageBuild:
        """Collect the parts for a spec that is launched in `region`."""
        spec = loaded.checked()
        everywhere = {name: tools.regions[name] for name in spec.publish.everywhere(region)}
        started = str(loaded.names["build"]["timestamp"])
        run_tags = RunTags(tools.run_id, spec.name, started, variant=loaded.key.variant)
        image = base.tested[region] if base else None
        kept = base.kept if base else None
        may_fail = [name for name in spec.publish.best_effort if name != region]
        parts = {name: Section(stages.graph, stages.prefix, whole=stages) for name in may_fail}
        return cls(loaded, tools, stages, tools.regions[region], everywhere, parts, run_tags, image, kept)

    @property
    def spec(self) -> Spec:
        return self.loaded.checked()

    @property
    def region(self) -> str:
        """The launch region."""
        return self.ec2.region

    @property
    def copies(self) -> list[str]:
        """The regions that get a copy."""
        return [region for region in self.everywhere if region != self.region]

    @property
    def required(self) -> Mapping[str, Ec2]:
        """EC2 by region, without the regions that may fail alone."""
        return {region: ec2 for region, ec2 in self.everywhere.items() if region not in self.parts}

    def add_in(self, region: str, name: str, stage: Stage[T]) -> Ref[T]:
        """Add a stage of one region: it fails alone if the region may."""
        return self.parts.get(region, self.stages).add(f"{name}-{region}", stage)

    @property
    def replaces(self) -> bool:
        """True if the image may take over a name that is already in use."""
        return self.spec.output.on_name_taken == "replace"

    @property
    def audience(self) -> Audience:
        """Everybody with whom the image is shared; falsy if it is not shared."""
        return audience_of(self.spec)

    @property
    def encryption(self) -> Encrypt | None:
        """The encryption of an EBS-backed image; None for all others."""
        return self.spec.output.encrypt if isinstance(self.spec.output, EbsOutput) else None

    def find_source(self) -> FindBase | FindSource:
        is_ebs = isinstance(self.spec.output, EbsOutput)
        devices, boot_mode = device_plan(self.spec), self.spec.output.boot_mode
        if self.base is not None:
            name = str(self.spec.source.image)
            return FindBase(self.ec2, self.base, name, needs_ebs=is_ebs, devices=devices, boot_mode=boot_mode)
        wanted, expected = source_wanted(self.spec), self.expected_source
        return FindSource(self.ec2, wanted, expected, needs_ebs=is_ebs, devices=devices, boot_mode=boot_mode)

    def record_inputs(self, source: Ref[SourceImage]) -> RecordInputs:
        return RecordInputs(source, str(self.loaded.key), collect_inputs(self.loaded))

    def name_images(self, source: Ref[SourceImage], fingerprint: Ref[str]) -> NameImages:
        output = self.spec.output
        regions = tuple(self.everywhere)
        commit = str(self.loaded.names["build"].get("git_sha", ""))
        return NameImages(regions, source, output.name, output.description, output.tags, fingerprint, commit)

    def check_names(self, wanted: Ref[Mapping[str, ImageText]]) -> CheckNames:
        return CheckNames(self.everywhere, wanted, self.replaces, frozenset(self.parts))

    def check_publication(self, source: Ref[SourceImage]) -> Iterator[Ref[None]]:
        """Add the checks that the image can be shared, and named by a parameter and templates, as the spec asks."""
        if self.audience.public:
            yield self.stages.add("public", CheckPublic(self.required))
        if self.audience and (keys := image_keys(self.spec, self.region)):
            yield self.stages.add("keys", CheckKeys(self.required, source, self.audience, keys))
        if (parameter := image_parameter(self.loaded)) is not None:
            yield self.stages.add("parameter", CheckParameter(self.required, parameter))
        targets = {region: tuple(template_targets(self.spec, region, self.region)) for region in self.required}
        if any(targets.values()):
            from imagepipe.publish.launch_template import CheckTemplates

            yield self.stages.add("templates", CheckTemplates(self.required, targets))

    def keep(self, images: Iterable[Ref[Image]], after: Sequence[Ref[Any]]) -> Keep:
        """Keep the images, once these stages are done and the images of the base are kept."""
        return Keep(self.everywhere, tuple(images), (*after, *((self.base_kept,) if self.base_kept else ())))

    def key(self, source: Ref[SourceImage]) -> MakeKey | UseKey:
        """Use the account's own key pair if the spec names one; otherwise make a temporary one."""
        ssh = self.spec.launch.ssh
        if ssh.key_pair and ssh.private_key:
            return UseKey(self.ec2, ssh.key_pair, named_file(self.loaded.file.parent, ssh.private_key).resolve())
        return MakeKey(self.ec2, self.run_tags, self.spec.launch.tags, self._if_tags_name(source))

    def network(self, source: Ref[SourceImage]) -> MakeGroup | UseGroups:
        """Use the account's own security groups if the spec names any; otherwise make a temporary one."""
        launch = self.spec.launch
        subnets = tuple(subnet if isinstance(subnet, str) else subnet.tags for subnet in launch.subnets)
        if launch.security_groups:
            return UseGroups(self.ec2, launch.security_groups, subnets)
        return MakeGroup(
            ec2=self.ec2,
            run_tags=self.run_tags,
            subnets=subnets,
            port=launch.ssh.port,
            allow_from=launch.ssh.allow_from,
            tags=launch.tags,
            source=self._if_tags_name(source),
        )

    def _if_tags_name(self, source: Ref[SourceImage]) -> Ref[SourceImage] | None:
        """Return the source image if a tag in `launch.tags` uses it; None otherwise, so that nothing waits for it."""
        return source if any(isinstance(value, Late) for value in self.spec.launch.tags.values()) else None

    def launch(
        self, source: Ref[SourceImage], key: Ref[Key], network: Ref[Network], *, after: Sequence[Ref[Any]]
    ) -> Launch:
        """Launch the instance that is customized, once the checks in `after` have passed."""
        launch = self.spec.launch
        return Launch(
            ec2=self.ec2,
            run_tags=self.run_tags,
            source=source,
            key=key,
            network=network,
            after=tuple(after),
            instance_types=launch.instance_types,
            devices=devices_wanted(launch.block_devices),
            encrypt_root=self.encryption is not None,
            kms_key=self.encryption.kms_key if self.encryption else None,
            instance_profile=launch.iam_instance_profile,
            sends_host_key=launch.ssh.host_key == "user-data",
            user_data=launch.user_data,
            public_address=launch.ssh.bastion is None and launch.ssh.address in ("public_ip", "public_dns"),
            tags=launch.tags,
            spot=SpotWanted(launch.spot.max_price, launch.spot.fallback) if launch.spot else None,
        )

    def connect(self, instance: Ref[Instance], key: Ref[Key]) -> AwaitSsh:
        ssh = self.spec.launch.ssh
        # A bastion implies the private address, unless the spec names another one.
        address = "private_ip" if ssh.bastion and "address" not in ssh.model_fields_set else ssh.address
        return AwaitSsh(
            self.ec2,
            self.tools.connections,
            instance,
            key,
            ssh.login,
            ssh.port,
            address,
            ssh.timeout,
            via=self._bastion(),
            key_on_console=ssh.host_key == "console",
            has_user_data=self.spec.launch.user_data is not None,
        )

    def _bastion(self) -> Endpoint | None:
        bastion = self.spec.launch.ssh.bastion
        if bastion is None:
            return None
        private_key = str(named_file(self.loaded.file.parent, bastion.private_key).resolve())
        return Endpoint(bastion.host, bastion.port, bastion.user, bastion.host_key, private_key)


def source_wanted(spec: Spec) -> str | BySsm | Newest:
    """Translate `source.ami` for FindSource."""
    match spec.source.ami:
        case AmiById(id=id):
            return id
        case AmiByFilter() as wanted:
            return Newest(ImageFilter(wanted.name, wanted.owners, wanted.architecture), only=not wanted.most_recent)
        case AmiBySsm(ssm=name):
            return BySsm(name)
        case None:
            raise AssertionError("the source of this spec is the image of another one")
        case _:
            assert_never(spec.source.ami)


def audience_of(spec: Spec) -> Audience:
    """Return everybody with whom a spec shares its image; falsy if it is not shared."""
    share = spec.publish.share
    return Audience(share.accounts, share.organizations, share.ous, share.public)


def image_parameter(loaded: LoadedSpec) -> ImageParameter | None:
    """Return the SSM parameter that names a spec's images; None if the spec has no `ssm_parameter`."""
    spec = loaded.checked()
    if spec.publish.ssm_parameter is None:
        return None
    return ImageParameter(spec.publish.ssm_parameter, spec.name, loaded.key.variant)


def template_targets(spec: Spec, region: str, home: str) -> Iterator[TemplateTarget]:
    """Yield the launch templates of a region that get a version with a spec's image. `home` is the launch region."""
    for each in spec.publish.launch_templates:
        from imagepipe.publish.launch_template import TemplateTarget

        if region == each.region or (each.region is None and (each.name is not None or region == home)):
            yield TemplateTarget(each.id, each.name, each.source_version, each.set_default)


def image_keys(spec: Spec, home: str) -> ImageKeys | None:
    """Return the KMS keys that a spec names for an EBS-backed image; None for all others."""
    if not isinstance(spec.output, EbsOutput):
        return None
    encrypt = spec.output.encrypt
    return ImageKeys(
        home,
        encrypts=encrypt is not None,
        kms_key=encrypt.kms_key if encrypt else None,
        per_region={region: each.kms_key for region, each in encrypt.per_region.items()} if encrypt else {},
        devices=devices_wanted(spec.launch.block_devices),
    )


def device_plan(spec: Spec) -> DevicePlan:
    """Return the spec's block devices, to be checked against the source image."""
    output = devices_wanted(spec.output.block_devices) if isinstance(spec.output, EbsOutput) else ()
    return DevicePlan(devices_wanted(spec.launch.block_devices), output)


def devices_wanted(devices: Sequence[BlockDevice]) -> tuple[DeviceWanted, ...]:
    """Translate block devices of a spec."""
    return tuple(DeviceWanted(**{**each.model_dump(exclude={"tags"}), "tags": each.tags}) for each in devices)
