"""Security groups, addresses and NAT gateways."""
