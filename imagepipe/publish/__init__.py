"""Stages: what happens with an image once it is there."""
