"""Stages that scrub the machine, stop it and make an image of its disks."""
