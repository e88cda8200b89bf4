"""What a guest sees of its cloud: seed, metadata service, network."""
