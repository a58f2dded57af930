"""Checkpoints of XCiT from one family and file format into another."""
