"""Stages that scan the captured disk or the machine before the image is tested or published."""
