"""Stages that find the source image, prepare access, launch an instance and connect to it."""
