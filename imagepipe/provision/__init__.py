"""Stages: a step each, from a machine that lets us in to the same machine, changed."""
