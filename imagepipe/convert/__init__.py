"""Turn Packer templates into specs: read HCL2 or JSON, evaluate it, and write YAML. Contacts no cloud."""
