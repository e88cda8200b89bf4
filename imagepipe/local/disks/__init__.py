"""Disk images: snapshots and volumes as files, the base image, imports."""
