"""Find, start and ask the cloud's process."""
