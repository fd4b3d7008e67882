"""Targets (what instructions there are) and machines (what they cost), as data."""
