"""Delete the resources of runs: by journal, or by tags alone; and the heartbeat that protects a living run."""
