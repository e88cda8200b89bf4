"""Make stages from a checked spec. `pipeline` puts them in order."""
