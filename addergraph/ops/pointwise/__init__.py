"""Ops whose element of the result reads the elements at its own place."""
