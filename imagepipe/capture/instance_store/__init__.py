"""Stages that bundle a disk, upload the parts to S3 and register the image."""
