"""Builds on many machines: Temporal hands out the bakes, and each bake is a run of ours on shared state.

Needs the extra `imagepipe-ami[temporal]`. Nothing outside of this package and `cli` imports it.
"""
