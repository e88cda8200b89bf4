"""imagepipe: Amazon Machine Images baked from YAML."""

__version__ = "0.1.0"
