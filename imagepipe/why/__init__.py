"""The reasons why an image is up to date or stale."""
