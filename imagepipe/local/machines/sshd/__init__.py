"""Machines that are an sshd alone."""
