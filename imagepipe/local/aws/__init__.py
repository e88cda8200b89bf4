"""The cloud's API: what answers an EC2, S3, STS or SSM request."""
