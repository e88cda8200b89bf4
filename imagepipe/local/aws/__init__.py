"""The cloud's API, which answers requests to EC2, S3, STS and SSM."""
