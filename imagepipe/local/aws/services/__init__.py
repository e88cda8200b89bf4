"""STS and SSM."""
