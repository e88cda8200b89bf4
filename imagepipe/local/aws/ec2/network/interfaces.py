"""The MAC address and the DNS names of an instance, the same in the API and in the metadata service.

The names are EC2's (EC2 user guide, "EC2 instance hostnames and domains"): us-east-1 has domains of its own. They do
not resolve here, so the default VPC has DNS host names switched off, and its instances no public name; a VPC that
switches them on has them.
"""

from __future__ import annotations

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.state.records import Instance

FIRST_REGION = "us-east-1"


def mac_address(interface_id: str) -> str:
    """Derive the address from the interface's id, so that it is the same at every start; locally administered."""
    digits = interface_id[-10:]
    return "02:" + ":".join(digits[at : at + 2] for at in range(0, 10, 2))


def private_dns_name(address: str, region: str) -> str:
    """Name a private address."""
    domain = "ec2.internal" if region == FIRST_REGION else f"{region}.compute.internal"
    return f"ip-{address.replace('.', '-')}.{domain}"


def public_dns_name(backend: Backend, instance: Instance, address: str | None) -> str:
    """Name a public address; empty without one, and in a VPC without DNS host names, as the API has it."""
    region = instance.region
    if not backend.network.has_dns_host_names(instance.account, region, instance.vpc_id):
        return ""
    domain = "compute-1" if region == FIRST_REGION else f"{region}.compute"
    return f"ec2-{address.replace('.', '-')}.{domain}.amazonaws.com" if address else ""
