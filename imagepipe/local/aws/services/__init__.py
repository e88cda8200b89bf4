"""The services: EC2, S3, STS, SSM and the others."""
