"""Write docs/reference/local-cloud.md: `python -m docs.generate.local_cloud PATH`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from imagepipe.local.aws.ec2.actions import MOTO, OWN
from imagepipe.local.aws.ec2.parameters import NO_EFFECT, REFUSED
from imagepipe.local.aws.moto.adapter import SERVICES
from imagepipe.local.aws.protocol.documented_filters import UNSUPPORTED, documented
from imagepipe.local.aws.protocol.query import operations
from imagepipe.local.aws.services import autoscaling, imagebuilder, rbin

HEAD = """\
# The local cloud's actions

Generated from EC2's API model (botocore's) and from the code: `make docs`. How the local cloud works, and where its
machines and bytes differ from EC2's, is in [The local cloud](../explanation/local-cloud.md).

## How to read the tables

- *answered by*: `imagepipe`, for resources that have bytes, machines or states; `moto`, for networks and catalogues.
- *refused*: parameters that ask for something that the local cloud lacks. They are refused by name
  (`UnsupportedOperation`), unless they ask for nothing, such as `EnclaveOptions={Enabled: false}`.
- *without effect*: parameters that are accepted and change nothing, with the reason.
- *filters*: how many of the documented filters work. The others are refused by name (`InvalidParameterValue`).
  `tag:KEY` and `tag-key` work wherever resources have tags.

All other parameters of an action that `imagepipe` answers work. An action that is in no table is refused with
`UnsupportedOperation`. DryRun works for every action that has it.

## EC2

"""
DIFFERENCES = """\
## What differs from EC2, and why

- **Regions share one endpoint.** The signature's scope names the region and the service.
- **The default VPC is 127.42.0.0/16 in every region**, so that this computer reaches every instance without routing.
- **The default VPC has DNS host names switched off**, because `ec2-….amazonaws.com` would not resolve here, or would
  resolve to somebody else's machine. `PublicDnsName` is empty, as on EC2 in such a VPC; switch `enableDnsHostnames` on
  to have the names.
- **Spot requests are fulfilled at once**, at one price. A fleet takes the first pool that has room.
- **Placement groups** are kept and described; all machines run on this computer.
- **Moto's resources are not connected to machines**: routes, network ACLs and internet gateways are kept and described,
  and carry no packets. Security groups are real: they open the machine's ports.
- **NAT gateways** have EC2's states, addresses and failures, and no instance needs one: no packet goes through them.
  DescribeNetworkInterfaces does not list their interfaces.
- **ImportSnapshot** reads raw disks, and VMDK and VHD if qemu-img is installed, from a bucket of the same account and
  region. The role must exist; its policies are not checked. Disks that come from elsewhere boot in QEMU only.
- **DescribeInstanceTypes** lists the types that the region offers according to moto's data, all on one page unless
  MaxResults is given.
- **DescribeImageReferences** takes images that do not exist, and finds them nowhere. It compares image ids: a launch
  template or a recipe that names a parameter is found by the parameter.
- **Usage reports** count at the moment of the request; EC2's may lack the last days. They list other accounts only.
- **Deregistration protection**: during the cooldown, DescribeImages shows `disabled`. EC2 documents no word for it.
- **LastLaunchedTime** is a day late, as on EC2, and tells the hour's newest launch. Launches by other accounts do not
  count.
- **Auto Scaling groups** launch nothing, and a group with a capacity above 0 is refused. Lifecycle hooks, policies,
  scheduled actions, warm pools and instance refreshes do not exist.
- **Image Builder** builds nothing. Components and recipes are kept; a recipe's components need not exist.
- **Retention rules** of Recycle Bin act from the moment they exist, cannot be locked or tagged later, and retain
  snapshots and images, not volumes. Bytes are deleted within an hour after their time in the bin ended.
- **Parameters of the type `aws:ec2:image`** are checked in the request: if the image is not available, PutParameter
  succeeds and nothing changes, as on AWS.
- **Errors**: some codes are not documented by EC2. Where one had to be guessed, the code says so.
"""


def main() -> int:
    Path(sys.argv[1]).write_text("".join(f"{line}\n" for line in lines()), encoding="utf-8")
    return 0


def lines() -> Iterator[str]:
    """Yield the page, line by line."""
    yield from HEAD.splitlines()
    yield f"{len(OWN) + len(MOTO)} of EC2's {len(operations())} actions:"
    yield ""
    yield "| action | answered by | filters | refused | without effect |"
    yield "|---|---|---|---|---|"
    for action in sorted((*OWN, *MOTO)):
        yield _row(action)
    yield ""
    yield "## Filters that are refused"
    yield ""
    for action in sorted((*OWN, *MOTO)):
        if action in UNSUPPORTED:
            yield f"- {action}: {', '.join(f'`{name}`' for name in sorted(UNSUPPORTED[action]))}"
    yield ""
    yield "## Other services"
    yield ""
    yield "| service | actions |"
    yield "|---|---|"
    for service in sorted({*SERVICES} - {"ec2"}):
        yield f"| {service} | {_OTHERS.get(service, 'those of moto')} |"
    for service, actions in (("autoscaling", autoscaling), ("imagebuilder", imagebuilder), ("rbin", rbin)):
        yield f"| {service} | {', '.join(sorted(actions.ACTIONS))} |"
    yield "| lambda | ListFunctions: an empty list |"
    yield ""
    yield from DIFFERENCES.splitlines()


_OTHERS = {
    "s3": "those of moto; bytes, checksums, ACLs and defaults of buckets are imagepipe's",
    "ssm": "those of moto, Debian's public parameter, and the check of parameters of the type `aws:ec2:image`",
    "sts": "AssumeRole and GetCallerIdentity are imagepipe's, the others moto's",
}


def _row(action: str) -> str:
    names = documented(action)
    filters = f"{len(names - UNSUPPORTED.get(action, frozenset()))} of {len(names)}" if names else ""
    refused = ", ".join(f"`{name}`" for name in REFUSED.get(action, ()))
    ignored = "; ".join(f"`{name}`: {reason}" for name, reason in NO_EFFECT.get(action, {}).items())
    owner = "imagepipe" if action in OWN else "moto"
    return f"| {action} | {owner} | {filters} | {refused} | {ignored} |"


if __name__ == "__main__":
    sys.exit(main())
