"""Tests of an instance: facts that are checked again and again until they hold or their time is over."""
