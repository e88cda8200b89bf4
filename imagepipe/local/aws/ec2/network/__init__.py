"""Security groups and addresses."""
