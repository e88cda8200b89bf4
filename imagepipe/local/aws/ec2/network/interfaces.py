"""The MAC address and the DNS names of an instance, the same in the API and in the metadata service.

The names are EC2's (EC2 user guide, "EC2 instance hostnames and domains"): us-east-1 has domains of its own.
"""

from __future__ import annotations

FIRST_REGION = "us-east-1"


def mac_address(interface_id: str) -> str:
    """Derive the address from the interface's id, so that it is the same at every start; locally administered."""
    digits = interface_id[-10:]
    return "02:" + ":".join(digits[at : at + 2] for at in range(0, 10, 2))


def private_dns_name(address: str, region: str) -> str:
    """Name a private address."""
    domain = "ec2.internal" if region == FIRST_REGION else f"{region}.compute.internal"
    return f"ip-{address.replace('.', '-')}.{domain}"


def public_dns_name(address: str | None, region: str) -> str:
    """Name a public address; empty without one, as the API has it."""
    domain = "compute-1" if region == FIRST_REGION else f"{region}.compute"
    return f"ec2-{address.replace('.', '-')}.{domain}.amazonaws.com" if address else ""
