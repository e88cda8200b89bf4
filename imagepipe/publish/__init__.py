"""Stages that publish an image: test gate, copies, launch permissions, names."""
