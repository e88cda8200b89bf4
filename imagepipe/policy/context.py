"""A spec with its regions, and the conditions in policies that identify its own resources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from imagepipe.dataclass import dataclass
from imagepipe.iam.document import Conditions, Statement
from imagepipe.iam.facts import arn
from imagepipe.partitions import partition
from imagepipe.spec.models import EbsOutput, InstanceStoreOutput, Spec

RUN, SPEC, STATE, EXPIRES = "imagepipe:run", "imagepipe:spec", "imagepipe:state", "imagepipe:expires"
"""Tag keys, the same as in `cloud.tags`, which would load boto3; a test compares them."""
UNFINISHED, KEPT = "unfinished", "kept"
OWN_ACCOUNT = "${aws:PrincipalAccount}"


@dataclass(frozen=True, slots=True)
class PolicyContext:
    """One spec and its regions."""

    spec: Spec
    home: str
    """The launch region."""
    role: str | None = None
    """Role in the instance profile, if its name differs from the profile's."""

    @property
    def copies(self) -> tuple[str, ...]:
        return tuple(region for region in dict.fromkeys(self.spec.publish.regions) if region != self.home)

    @property
    def everywhere(self) -> tuple[str, ...]:
        return (self.home, *self.copies)

    @property
    def ebs(self) -> EbsOutput | None:
        return self.spec.output if isinstance(self.spec.output, EbsOutput) else None

    @property
    def bundles(self) -> InstanceStoreOutput | None:
        return self.spec.output if isinstance(self.spec.output, InstanceStoreOutput) else None

    @property
    def replaces(self) -> bool:
        return self.spec.output.on_name_taken == "replace"

    @property
    def partition(self) -> str:
        return partition(self.home)

    def here(self, *kinds: str) -> tuple[str, ...]:
        """Return ARNs of all resources of these types in the launch region."""
        return tuple(arn(self.home, kind) for kind in kinds)

    def all(self, *kinds: str) -> tuple[str, ...]:
        """Return ARNs of all resources of these types in every region."""
        return tuple(arn(region, kind) for region in self.everywhere for kind in kinds)

    def in_copies(self, *kinds: str) -> tuple[str, ...]:
        """Return ARNs of all resources of these types in the regions of the copies."""
        return tuple(arn(region, kind) for region in self.copies for kind in kinds)

    def ours(self, **tags: str) -> Conditions:
        """Return the condition for existing resources that this spec created."""
        wanted = {f"aws:ResourceTag/{SPEC}": self.spec.name, **{f"aws:ResourceTag/{k}": v for k, v in tags.items()}}
        return {"StringEquals": {key: (value,) for key, value in wanted.items()}}

    def endable(self) -> Conditions:
        """Return the condition for images and snapshots that may be deleted; kept ones only for `replace`."""
        return self.ours() if self.replaces else self.ours(**{STATE: UNFINISHED})

    def new(self, more: Mapping[str, tuple[str, ...]] | None = None) -> Conditions:
        """Return the condition for resources that a call creates with this spec's tags."""
        return {
            "StringEquals": {f"aws:RequestTag/{SPEC}": (self.spec.name,), **(more or {})},
            "Null": {f"aws:RequestTag/{RUN}": ("false",)},
        }

    def reads(self, *actions: str) -> Iterator[Statement]:
        """Allow Describe calls, which EC2 cannot restrict to resources, in the spec's regions only."""
        regions = {"StringEquals": {"aws:RequestedRegion": self.everywhere}}
        yield Statement("ReadOnly", tuple(f"ec2:{action}" for action in actions), ("*",), regions)

    def tagged_on_create(self, action: str, *resources: str) -> Iterator[Statement]:
        """Allow tags in create calls, which need a separate permission."""
        condition = {"StringEquals": {"ec2:CreateAction": (action,)}}
        yield Statement("TagOnCreate", ("ec2:CreateTags",), resources, condition)

    def makes(self, sid: str, action: str, *resources: str) -> Iterator[Statement]:
        """Allow a call that creates resources with our tags; yield nothing if `resources` is empty."""
        if not resources:
            return
        yield Statement(sid, (f"ec2:{action}",), resources, self.new())
        yield from self.tagged_on_create(action, *resources)
