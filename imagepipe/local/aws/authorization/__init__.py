"""Check calls against the caller's policies."""
