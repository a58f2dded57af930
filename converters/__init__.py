"""Checkpoints of XCiT from one family and file format into another."""

from xcit_hub import deprecated

deprecated.install()
