"""Machines that consist of an sshd."""
