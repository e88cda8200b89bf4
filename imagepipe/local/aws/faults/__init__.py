"""Faults on demand, and eventual consistency."""
