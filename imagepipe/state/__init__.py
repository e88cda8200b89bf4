"""Shared state: runs in an S3 bucket, so that any machine can resume, clean and show them."""
