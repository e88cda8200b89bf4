"""Retire superfluous images: deprecate, disable, deregister, each step after a grace period, if nothing uses them."""
