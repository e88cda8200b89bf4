"""Stages: scrub the machine, stop it, make an image of its disks."""
