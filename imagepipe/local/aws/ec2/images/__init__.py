"""Images: create, name, describe, share."""
