"""Stages: find the source image, make a way in, launch an instance, reach it."""
