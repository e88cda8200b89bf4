"""The cloud's process."""
