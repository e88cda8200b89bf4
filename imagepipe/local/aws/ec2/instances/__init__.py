"""Instances: run, place, change, describe."""
