"""imagepipe: Amazon Machine Images baked, tested and published from YAML."""

__version__ = "0.1.0"
