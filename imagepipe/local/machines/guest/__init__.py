"""A guest's view of its cloud: seed, metadata service, network."""
