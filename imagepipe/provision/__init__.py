"""Stages that run one step each on a machine."""
