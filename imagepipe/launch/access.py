"""Access to the instance: a temporary key pair, and a security group that admits only the caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import SourceImage, late_names
from imagepipe.cloud.tags import RunTags
from imagepipe.communicator import keys
from imagepipe.dataclass import dataclass
from imagepipe.engine.journal import Claim, Lifetime
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import CloudError
from imagepipe.late import Late
from imagepipe.launch.source import checked_tags

TagTemplates = Mapping[str, str | Late]
"""Tag values by key; a late template is rendered once the source image is known."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key pair in EC2 and the place of its private key."""

    name: str
    private_key: str
    """Path of the private key."""


@dataclass(frozen=True)
class MakeKey(Stage[Key]):
    """Make a key pair in the run's folder (mode 0600) and import its public half into EC2."""

    ec2: Ec2 = field(repr=False, compare=False)
    run_tags: RunTags = field(repr=False, compare=False)
    tags: TagTemplates = field(default_factory=dict)
    source: Ref[SourceImage] | None = None
    """The source image, if the tags name it."""

    def run(self, ctx: Context) -> Key:
        private_key = ctx.own_file("id_ed25519")

        def create(claim: Claim) -> str:
            # The comment identifies the run in any authorized_keys file.
            pair = keys.load_or_generate(private_key, f"imagepipe-{ctx.run_id}")
            name = _name(claim)
            tags = temporary_tags(ctx, self.run_tags, claim, name, self.tags, self.source, self.ec2.region)
            return self.ec2.keys.import_public(name, pair.public, token=claim.token, tags=tags)

        claim = ctx.make(
            "key-pair",
            self.ec2.region,
            lifetime=Lifetime.RUN,
            details={"private_key": str(private_key)},
            create=create,
            find=lambda token: next(iter(self.ec2.keys.of_token(token)), None),
        )
        return Key(_name(claim), str(private_key))

    def title(self) -> str:
        return "make a temporary key pair"

    def summary(self, output: Key) -> str:
        return output.name


@dataclass(frozen=True)
class UseKey(Stage[Key]):
    """Use a key pair that the account already has."""

    ec2: Ec2 = field(repr=False, compare=False)
    name: str
    private_key: Path

    def run(self, ctx: Context) -> Key:
        return Key(self.name, str(self.private_key))

    def title(self) -> str:
        return f"use key pair {self.name}"


@dataclass(frozen=True, slots=True)
class Network:
    """The network that an instance is launched into."""

    security_groups: tuple[str, ...]
    subnets: tuple[str | None, ...]
    """Subnets in the order in which they are tried; None means EC2's choice in the default VPC."""


SubnetsWanted = tuple[str | Mapping[str, str], ...]
"""Subnet ids, or tags that subnets must have."""


def subnets_of(ec2: Ec2, wanted: SubnetsWanted) -> tuple[str, ...]:
    """Return the ids of subnets in order, without duplicates. Raises CloudError if tags match no subnet."""
    ids: dict[str, None] = {}
    for subnet in wanted:
        ids.update(dict.fromkeys([subnet] if isinstance(subnet, str) else ec2.subnets.by_tags(subnet)))
    return tuple(ids)


@dataclass(frozen=True)
class MakeGroup(Stage[Network]):
    """Create a security group in the VPC of the first subnet (or the default VPC) that admits some addresses to SSH."""

    ec2: Ec2 = field(repr=False, compare=False)
    run_tags: RunTags = field(repr=False, compare=False)
    subnets: SubnetsWanted
    port: int
    allow_from: tuple[str, ...]
    """CIDRs; `caller` means the address of this computer."""
    tags: TagTemplates = field(default_factory=dict)
    source: Ref[SourceImage] | None = None
    """The source image, if the tags name it."""

    def run(self, ctx: Context) -> Network:
        cidrs = sorted({self.ec2.caller_cidr() if c == "caller" else c for c in self.allow_from})
        subnets = subnets_of(self.ec2, self.subnets)
        vpc = self._vpc(subnets)
        if vpc is None:
            raise CloudError(
                f"making a security group in {self.ec2.region}: the region has no default VPC",
                code="VPCIdNotSpecified",
                hint="name a subnet in launch.subnets",
            )

        def create(claim: Claim) -> str:
            return self.ec2.groups.create(
                _name(claim),
                vpc=vpc,
                description=f"imagepipe run {ctx.run_id}, temporary",
                token=claim.token,
                tags=temporary_tags(ctx, self.run_tags, claim, _name(claim), self.tags, self.source, self.ec2.region),
            )

        claim = ctx.make(
            "security-group",
            self.ec2.region,
            lifetime=Lifetime.RUN,
            create=create,
            find=lambda token: next(iter(self.ec2.groups.of_token(token)), None),
        )
        id = str(claim.id)
        self.ec2.groups.allow_ssh_from(id, port=self.port, cidrs=cidrs)
        ctx.say(f"port {self.port} is open to {', '.join(cidrs)}")
        return Network((id,), subnets or (None,))

    def _vpc(self, subnets: tuple[str, ...]) -> str | None:
        """Return the VPC of the subnets; without subnets, the default VPC, or None if the region has no default VPC.

        Raises CloudError if the subnets are in several VPCs, because they share one security group.
        """
        if not subnets:
            return self.ec2.subnets.default_vpc()
        vpcs = self.ec2.subnets.vpcs_of(subnets)
        if len(set(vpcs.values())) > 1:
            listed = ", ".join(f"{subnet} in {vpc}" for subnet, vpc in vpcs.items())
            raise CloudError(
                f"making a security group in {self.ec2.region}: launch.subnets are in several VPCs: {listed}",
                hint="name subnets of one VPC, or security groups of your own",
            )
        return vpcs[subnets[0]]

    def title(self) -> str:
        return "make a temporary security group"

    def summary(self, output: Network) -> str:
        return ", ".join(output.security_groups)


def temporary_tags(
    ctx: Context,
    run_tags: RunTags,
    claim: Claim,
    name: str,
    tags: TagTemplates,
    source: Ref[SourceImage] | None,
    region: str,
) -> dict[str, str]:
    """Return the tags for the create call of a temporary resource: the spec's and the run's."""
    names = late_names(ctx[source], region) if source else {}
    extra = checked_tags("launch.tags", tags, names, region)
    return {**extra, **run_tags.temporary(claim.token, name)}


def _name(claim: Claim) -> str:
    """Return the name of a key pair or group; names are unique in EC2, and so is the token."""
    return f"imagepipe-{claim.token}"


@dataclass(frozen=True)
class UseGroups(Stage[Network]):
    """Use security groups that the account already has."""

    ec2: Ec2 = field(repr=False, compare=False)
    security_groups: tuple[str, ...]
    subnets: SubnetsWanted

    def run(self, ctx: Context) -> Network:
        return Network(self.security_groups, subnets_of(self.ec2, self.subnets) or (None,))

    def title(self) -> str:
        return f"use security groups {', '.join(self.security_groups)}"
