"""Stages that publish an image: test gate, copies, permissions, lifetime, names, templates and the parameter."""
