"""HTTP, EC2's query protocol, errors, ids, filters and tags."""
