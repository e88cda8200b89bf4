"""EC2's actions."""
