"""What each stage is made of: from a checked spec to its fields. `pipeline` says how they follow one another."""
